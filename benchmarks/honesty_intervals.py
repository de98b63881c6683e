"""Coverage of intervals, folds and thresholds by simulation: rows of promise, scenario, measured, error, nominal.

    python benchmarks/honesty_intervals.py --attacks gaussian lightgbm --sizes 400 2000 --repetitions 100

`rows(...)` returns all of them; `benchmarks/honesty.py` collects the rows of every such file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from mia_lightning.attacks.base import Attack
from mia_lightning.attacks.fusion import Fusion
from mia_lightning.attacks.gaussian_ratio import GaussianLikelihoodRatio
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.mlp import MLP
from mia_lightning.attacks.random_forest import RandomForest
from mia_lightning.metrics.roc import auc, evaluate, partial_auc, tpr_at_fpr
from mia_lightning.scores.crossfit import assign_folds, cross_fit, draw_holdout
from mia_lightning.signals.table import SignalTable

FPRS = (0.001, 0.01, 0.05)
FIGURES = ("AUC", "partial AUC", "TPR@0.1%", "TPR@1%", "TPR@5%")
FEATURES = 12
FRESH = 4000
"""Least number of new records that one model is evaluated on; the mean over repetitions is the truth."""

BOOSTED = LightGBM(["x*"], n_estimators=40, num_leaves=7, min_child_samples=30, learning_rate=0.08, n_jobs=1)

ATTACKS: Mapping[str, Mapping[str, Attack]] = {
    "gaussian": {"a": GaussianLikelihoodRatio("x0")},
    "lightgbm": {"a": BOOSTED},
    "forest": {"a": RandomForest(["x*"], n_estimators=60, n_jobs=1)},
    "mlp": {"a": MLP(["x*"], hidden=[32], epochs=20, batch_size=100, learning_rate=3e-3, ensemble_size=2, dropout=0.2)},
    "fusion": {
        "l": BOOSTED,
        "g": GaussianLikelihoodRatio("x0"),
        "a": Fusion(["l", "g"]),
    },
}  # fmt: skip


TARGETS = (0.5, 0.55, 0.65, 0.75)

CELLS = [
    (name, n, target, repetitions)
    for name, n, repetitions in (
        ("gaussian", 400, 400),
        ("gaussian", 2000, 400),
        ("gaussian", 20_000, 300),
        ("lightgbm", 400, 200),
        ("lightgbm", 2000, 150),
        ("lightgbm", 20_000, 200),
        ("fusion", 400, 150),
        ("fusion", 2000, 150),
        ("forest", 400, 100),
        ("forest", 2000, 40),
        ("mlp", 400, 60),
    )
    for target in TARGETS
]
"""Attack, records, AUC of the informative column and repetitions that the full table measures."""


class Row(NamedTuple):
    """One line of the table."""

    promise: str
    scenario: str
    measured: float
    standard_error: float
    nominal: str


def share(promise: str, scenario: str, hits: list[bool] | np.ndarray, nominal: str = "0.93-0.97") -> Row:
    """Return the row of a share of repetitions."""
    rate, count = float(np.mean(hits)), len(hits)
    return Row(promise, scenario, rate, float(np.sqrt(max(rate * (1 - rate), 0.25 / count) / count)), nominal)


def simulated(n: int, target: float, rng: np.random.Generator, extra: int) -> tuple[SignalTable, np.ndarray]:
    """Return records with one informative column of this AUC among noise, and their membership."""
    member = np.concatenate([rng.permutation(np.arange(size) % 2) for size in (n, extra) if size]).astype(np.int8)
    columns = {f"x{k}": rng.normal(size=n + extra) for k in range(FEATURES)}
    columns["x0"] = columns["x0"] + np.sqrt(2) * ndtri(target) * member
    return SignalTable(columns, np.zeros(n + extra, np.int64), 1), member


def single_fit(name: str, table: SignalTable, member: np.ndarray, fold: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return AUC, partial AUC and TPRs, on the records from number n on, of the fit that scores the first fold."""
    old, new = np.flatnonzero(fold[:n] != 0), np.arange(n, len(member))
    scores: dict[str, np.ndarray] = {}
    for key, attack in ATTACKS[name].items():
        columns = {k: v for k, v in scores.items() if k in attack.required_columns()}
        fitted = deepcopy(attack).fit(table.rows(old), member[old], seed=seed) if attack.is_trainable else attack
        scores[key] = fitted.score(table.rows(new).with_columns(columns))
    s, m = scores["a"], member[new]
    exact = 2 / (len(new) + 2)  # the (k+1)-th highest of n has an expected FPR of (k+1) / (n+1), not of k / n
    return np.array([auc(s, m), partial_auc(s, m)[0], *(tpr_at_fpr(s, m, max(fpr - exact, 0.0)) for fpr in FPRS)])


def refitted(cells: Iterable[tuple[str, int, float, int]]) -> Iterator[Row]:
    """Coverage of the intervals of out-of-fold figures: the expected figure of a fit on other records.

    Args:
        cells: Attack, records, AUC of the informative column and repetitions of each cell.
    """
    for name, n, target, repetitions in cells:
        fits, truths = [], []
        for seed in range(repetitions):
            rng = np.random.default_rng((7, n, round(1000 * target), seed))
            table, member = simulated(n, target, rng, max(n, FRESH))
            fold = assign_folds(np.where(np.arange(len(member)) < n, member, -1).astype(np.int8), folds=5, seed=seed)
            public = np.arange(n)
            fit = cross_fit(ATTACKS[name], table.rows(public), member[:n], fold[:n], seed=0, stability=True)["a"]
            fits.append((fit.scores, member[:n], fit.stability))
            truths.append(single_fit(name, table, member, fold, n, seed))
        yield from coverage(name, n, target, fits, np.mean(truths, axis=0))


def coverage(
    name: str, n: int, target: float, fits: list[tuple[np.ndarray, np.ndarray, float | None]], truth: np.ndarray
) -> Iterator[Row]:
    """Yield the share of intervals that hold the true figures, for scores, membership and stability of each sample."""
    hits: list[list[bool]] = []
    plain: list[bool] = []
    for scores, member, stability in fits:
        e = evaluate(scores, member, FPRS, stability=stability)
        ends = [(e.auc_low, e.auc_high), (e.partial_auc_low, e.partial_auc_high)]
        ends += [(point.low, point.high) for point in e.points]
        hits.append([low <= value <= high for (low, high), value in zip(ends, truth, strict=True)])
        fixed = evaluate(scores, member, ())
        plain.append(fixed.auc_low <= truth[0] <= fixed.auc_high)
    scenario = f"{name}, n = {n:,}, AUC of the signal {target:g} (attack {truth[0]:.3f})"
    yield share("AUC interval that ignores the fit", scenario, plain, "(before)")
    counts = [np.inf, np.inf, *(fpr * n / 2 for fpr in FPRS)]
    for figure, count, column in zip(FIGURES, counts, zip(*hits, strict=True), strict=True):
        nominal = "0.93-0.97" if count >= 10 else f">= 0.93 ({count:g} false positives)"
        if count > 1:  # below, the interval is that of another figure; see `edges`
            yield share(f"{figure} interval of a refitted attack", scenario, list(column), nominal)


def edges(repetitions: int) -> Iterator[Row]:
    """Coverage near AUC 1, with ties and in lopsided samples; the TPR at unresolvable rates."""
    for shift in (0.0, 1.0, 4.0, 5.5):
        for members, non_members in ((40, 2000), (2000, 40), (10, 10), (400, 20_000), (20_000, 400)):
            member, hits, own = np.repeat([1, 0], (members, non_members)), [], []
            for seed in range(repetitions):
                scores = np.random.default_rng((3, seed)).normal(size=len(member)) + shift * member
                e = evaluate(scores, member, (0.0,))
                hits.append(e.auc_low <= ndtr(shift / np.sqrt(2)) <= e.auc_high)
                own.append(e.points[0].low <= ndtr(shift - e.points[0].threshold) <= e.points[0].high)
            scenario = f"normal scores {shift:g} apart, {members:,} + {non_members:,}"
            yield share("AUC interval", scenario, hits, ">= 0.93")
            yield share("TPR at the highest of n non-members", scenario, own, ">= 0.93")


def class_strata(classes: int, records: int, repetitions: int) -> Iterator[Row]:
    """AUC of a class-reading attack on coin-flip membership, out-of-fold and on the hold-out."""
    attack = {"a": LightGBM(["x*"], class_one_hot=True, n_estimators=60, min_child_samples=20, n_jobs=1)}
    figures: list[tuple[float, float]] = []
    for seed in range(repetitions):
        rng = np.random.default_rng((9, classes, seed))
        member = rng.integers(0, 2, records).astype(np.int8)
        table = SignalTable({"x0": rng.normal(size=records)}, rng.integers(0, classes, records), classes)
        held = draw_holdout(member, share=0.3, seed=seed)
        visible = np.where(held, np.int8(-1), member)
        scores = cross_fit(attack, table, visible, assign_folds(visible, folds=5, seed=seed), seed=0)["a"].scores
        figures.append((auc(scores[~held], member[~held]), auc(scores[held], member[held])))
    shares = {"out-of-fold": (0.7, 2.0), "hold-out": (0.3, 1.0)}  # of the records; variance factor of a refit on noise
    for (name, (part, factor)), values in zip(shares.items(), np.array(figures).T, strict=True):
        chance = float(
            np.sqrt(factor * (part * records + 1) / 3) / (part * records)
        )  # few repetitions vary less by luck
        error = max(float(values.std(ddof=1)), chance) / float(np.sqrt(len(values)))
        yield Row(
            f"AUC of noise, {name}", f"{classes} classes, {records:,} records", float(values.mean()), error, "0.5"
        )


def private_thresholds(names: list[str], n: int, repetitions: int) -> Iterator[Row]:
    """Whether the interval of a public threshold's FPR holds that on new records, by single models and by the mean."""
    for name in names:
        both: dict[float, list[bool]] = {0.01: [], 0.05: []}
        upper: dict[float, list[bool]] = {0.01: [], 0.05: []}
        for seed in range(repetitions):
            table, member = simulated(n, 0.76, np.random.default_rng((11, seed)), FRESH)
            fold = assign_folds(np.where(np.arange(len(member)) < n, member, -1).astype(np.int8), folds=5, seed=seed)
            fit = cross_fit(ATTACKS[name], table, member, fold, seed=0)["a"]
            e = evaluate(fit.scores[:n], member[:n], tuple(both))
            single, mean = (s[n:][member[n:] == 0] for s in (fit.single, fit.scores))
            for fpr in both:
                point = e.at(fpr)
                rate = float((single > point.threshold).mean())
                noise = 2 * np.sqrt(fpr * (1 - fpr) / len(single))  # of the new records' own rate
                both[fpr].append(point.fpr_low - noise <= rate <= point.fpr_high + noise)
                upper[fpr].append(float((mean > point.threshold).mean()) <= point.fpr_high)
        for fpr in both:
            scenario = f"{name}, n = {n:,}, {100 * fpr:g}%"
            yield share("FPR of a public threshold on new records, one model each", scenario, both[fpr], ">= 0.93")
            yield share("FPR of a public threshold on new records, mean of models, is at most fpr_high",
                        scenario, upper[fpr], ">= 0.975")  # fmt: skip


def rows(cells: Iterable[tuple[str, int, float, int]], repetitions: int) -> Iterator[Row]:
    """Return all rows; the cells are those of `refitted`, the repetitions those of the others."""
    names = sorted({name for name, *_ in cells})
    yield from edges(repetitions)
    for classes in (100, 44, 20):
        yield from class_strata(classes, 4000, max(repetitions // 10, 4))
    yield from private_thresholds(names, 2000, max(repetitions // 5, 10))
    yield from refitted(cells)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[400, 2000])
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS))
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--only", choices=["edges", "refitted", "private", "classes"])
    given = parser.parse_args()
    chosen_cells = [
        (name, n, target, given.repetitions) for name in given.attacks for n in given.sizes for target in given.targets
    ]
    chosen = {
        None: lambda: rows(chosen_cells, given.repetitions),
        "edges": lambda: edges(given.repetitions),
        "refitted": lambda: refitted(chosen_cells),
        "private": lambda: private_thresholds(given.attacks, 2000, given.repetitions),
        "classes": lambda: (row for c in (100, 44, 20) for row in class_strata(c, 4000, given.repetitions)),
    }[given.only]
    print("| promise | scenario | measured | standard error | nominal |\n|---|---|---:|---:|---|")
    for row in chosen():
        print(
            f"| {row.promise} | {row.scenario} | {row.measured:.3f} | {row.standard_error:.3f} | {row.nominal} |",
            flush=True,
        )
