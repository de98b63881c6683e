"""Coverage of intervals, folds and thresholds by simulation: rows of promise, scenario, measured, error, nominal."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from hashlib import sha256

import numpy as np
from scipy.special import ndtr, ndtri

from benchmarks.honesty_parts import COVERED, COVERED_OR_WIDER, Row, share
from mia_lightning.attacks.base import Attack
from mia_lightning.attacks.fusion import Fusion
from mia_lightning.attacks.gaussian_ratio import GaussianLikelihoodRatio
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.mlp import MLP
from mia_lightning.attacks.random_forest import RandomForest
from mia_lightning.metrics.roc import PARTIAL, auc, evaluate, partial_auc, tpr_at_fpr
from mia_lightning.scores.crossfit import CrossFit, assign_folds, cross_fit, draw_holdout
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


def sample(name: str, n: int, target: float, seed: int) -> list[float]:
    """Return one sample's figures of a fit on new records, and the ends of the intervals of its out-of-fold figures.

    The last two numbers are the ends of the AUC's interval that ignores the fit.
    """
    fit, member, truth = fitted_sample(name, n, target, seed)
    e, fixed = evaluate(fit.scores, member, FPRS, stability=fit.stability), evaluate(fit.scores, member, ())
    ends = [(e.auc_low, e.auc_high), (e.partial_auc_low, e.partial_auc_high)]
    ends += [(point.low, point.high) for point in e.points] + [(fixed.auc_low, fixed.auc_high)]
    return [*truth.tolist(), *np.ravel(ends).tolist()]


def fitted_sample(name: str, n: int, target: float, seed: int) -> tuple[CrossFit, np.ndarray, np.ndarray]:
    """Return out-of-fold scores, membership, and the figures of one of the fits on new records."""
    rng = np.random.default_rng((23, n, round(1000 * target), seed))
    table, member = simulated(n, target, rng, max(n, FRESH))
    fold = assign_folds(np.where(np.arange(len(member)) < n, member, -1).astype(np.int8), folds=5, seed=seed)
    public = np.arange(n)
    fit = cross_fit(ATTACKS[name], table.rows(public), member[:n], fold[:n], seed=0, stability=True)["a"]
    return fit, member[:n], single_fit(name, table, member, fold, n, seed)


def coverage(samples: list[list[float]], name: str, n: int, target: float) -> Iterator[Row]:
    """Yield the share of intervals that hold the expected figure of a fit on other records, the mean over samples."""
    values = np.array(samples)
    figures = len(FIGURES)
    truth, ends = values[:, :figures].mean(axis=0), values[:, figures:].reshape(len(values), -1, 2)
    hits = (ends[:, :figures, 0] <= truth) & (truth <= ends[:, :figures, 1])
    scenario = f"{name}, {n:,} records, signal {target:g} (attack {truth[0]:.3f})"
    for figure, count, column in zip(FIGURES, positives(n), hits.T, strict=True):
        nominal = COVERED if count >= 10 else COVERED_OR_WIDER  # counts of few non-members are steps
        if count > 1:  # below, the interval is that of another figure; see `edges`
            yield share(f"{figure} of a refitted attack", scenario, column, *nominal)


def positives(n: int) -> list[float]:
    """Return the false positives that each figure rests on."""
    return [np.inf, PARTIAL * n / 2, *(fpr * n / 2 for fpr in FPRS)]


def behavior() -> str:
    """Return a digest of the intervals of fixed scores: rows of other intervals are not comparable."""
    rng, ends = np.random.default_rng(31), []
    for n, shift in ((400, 0.0), (400, 0.9), (4000, 0.2), (4000, 0.9)):
        member = np.arange(n) % 2
        scores = rng.normal(size=n) + shift * member
        for stability in (None, 0.0, 0.5, 0.95):
            e = evaluate(scores, member, FPRS, stability=stability)
            ends += [e.auc_low, e.auc_high, e.partial_auc_low, e.partial_auc_high]
            ends += [end for point in e.points for end in (point.low, point.high)]
    return sha256(np.round(ends, 4).tobytes()).hexdigest()[:8]


def edges(shift: float, repetitions: int) -> Iterator[Row]:
    """Coverage near AUC 1 and in lopsided samples; the TPR at unresolvable rates."""
    for members, non_members in ((40, 2000), (2000, 40), (10, 10), (5, 500), (400, 20_000), (20_000, 400)):
        member, hits, own = np.repeat([1, 0], (members, non_members)), [], []
        for seed in range(repetitions):
            scores = np.random.default_rng((3, seed)).normal(size=len(member)) + shift * member
            e = evaluate(scores, member, (0.0,))
            hits.append(e.auc_low <= ndtr(shift / np.sqrt(2)) <= e.auc_high)
            own.append(e.points[0].low <= ndtr(shift - e.points[0].threshold) <= e.points[0].high)
        scenario = f"normal scores {shift:g} apart, {members:,} + {non_members:,}"
        yield share("AUC interval", scenario, hits, *COVERED_OR_WIDER)
        yield share("TPR at the highest of n non-members", scenario, own, *COVERED_OR_WIDER)


def groups(repetitions: int, persons: int = 200, images: int = 5) -> Iterator[Row]:
    """AUC and its coverage for several images a person and membership by person, with and without the groups."""
    group = np.repeat(np.arange(persons), images)
    attack = {"a": LightGBM(["x*"], n_estimators=40, num_leaves=7, min_child_samples=10, n_jobs=1)}
    covered: dict[str, list[bool]] = {"by group": [], "by record, without the groups": []}
    aucs: dict[str, list[float]] = {name: [] for name in covered}
    for seed in range(repetitions):
        rng = np.random.default_rng((29, seed))
        member = rng.permutation(np.arange(persons) % 2).astype(np.int8)[group]
        person = rng.normal(size=(persons, 4))[group] + 0.3 * rng.normal(size=(len(group), 4))  # no word of membership
        table = SignalTable({f"x{k}": person[:, k] for k in range(4)}, np.zeros(len(group), np.int64), 1)
        for name, given in zip(covered, (group, None), strict=True):
            e = evaluate(person[:, 0], member, (), groups=given)
            covered[name].append(e.auc_low <= 0.5 <= e.auc_high)
            fold = assign_folds(member, folds=5, seed=seed, groups=given)
            aucs[name].append(float(auc(cross_fit(attack, table, member, fold, seed=0)["a"].scores, member)))
    for name, hits in covered.items():
        promise, scenario = name == "by group", f"{images} images of {persons} persons, {name}"
        yield share("AUC interval of fixed scores", scenario, hits, *(COVERED if promise else (0, 1, 0.95)))
        chance = float(np.sqrt(2 / persons / 3))  # of one AUC of persons, refitted on noise
        error = max(float(np.std(aucs[name], ddof=1)), chance) / float(np.sqrt(repetitions))
        mean = float(np.mean(aucs[name]))
        yield Row("AUC of LightGBM on noise", scenario, mean, error, *((0.5, 0.5) if promise else ()))


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
        chance = float(np.sqrt(factor * (part * records + 1) / 3) / (part * records))  # few vary less by luck
        error = max(float(values.std(ddof=1)), chance) / float(np.sqrt(len(values)))
        scenario = f"{classes} classes, {records:,} records"
        yield Row(f"AUC of noise, {name}", scenario, float(values.mean()), error, 0.5, 0.5)


def private_thresholds(name: str, n: int, repetitions: int) -> Iterator[Row]:
    """Whether the interval of a public threshold's FPR holds that on new records, by single models and by the mean."""
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
        yield share("FPR of a public threshold on new records, one model each", scenario, both[fpr], *COVERED_OR_WIDER)
        yield share("FPR of a public threshold on new records, mean of models, is at most fpr_high",
                    scenario, upper[fpr], 0.975, 1, 0.95)  # fmt: skip
