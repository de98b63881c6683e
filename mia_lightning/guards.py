"""Checks that the figures mean what they seem to mean: run beside every assessment, none of them asks the target.

A guard that warns does not change a figure; it says what else could have made it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mia_lightning.assessment import Difference, Guard, ScoredRecords
from mia_lightning.attacks.base import Attack
from mia_lightning.comparison import comparable_rates
from mia_lightning.crossfit import assign_folds, cross_fit
from mia_lightning.intervals import rate_interval
from mia_lightning.metrics import Evaluation, evaluate
from mia_lightning.pixels import pixel_statistics
from mia_lightning.tables import SignalTable

BLIND = "blind baseline"

BLIND_ROWS = 50_000
"""Most rows that a blind model is fitted on; more change its figures little."""

BLIND_LEVEL = 0.01
"""Probability, over all its figures, at which the blind baseline warns: a banner on every tenth run is not read."""

REFITTED = "permuted labels, refitted"

REFITS, REFIT_ROWS, REFIT_SECONDS = 5, 2_000, 5.0
"""How often attacks are fitted on memberships dealt out by lot, on how many records, and how long that may take."""

NULL_ROWS = 10_000
"""Most records of the permuted-label test; its intervals have the same coverage at any number."""

Array = NDArray[np.float64]
Groups = Mapping[str, Array]


def blind_features(
    records: ScoredRecords,
    *,
    pixels: NDArray[np.uint8] | NDArray[np.float32] | None = None,
    columns: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return what is known of the records without the target, by source: (N, F) each.

    Args:
        records: Gives ids, order and labels.
        pixels: (N, C, H, W), or None.
        columns: Further columns by name, (N,) each.
    """
    groups = {"row order": np.linspace(0, 1, len(records.ids))[:, None], "id": _id_features(records.ids)}
    if records.labels is not None:
        _, place, count = np.unique(records.labels, return_inverse=True, return_counts=True)
        groups["label"] = np.stack([records.labels.astype(np.float64), count[place].astype(np.float64)], axis=1)
    if pixels is not None:
        groups["pixels"] = np.stack(list(pixel_statistics(pixels).values()), axis=1)
    return groups | {name: np.asarray(values, dtype=np.float64)[:, None] for name, values in (columns or {}).items()}


def blind_scores(features: Array, member: NDArray[np.int8], *, folds: int, seed: int) -> Array:
    """Return (N,) log-odds of membership from features alone, each row by a model that never saw it.

    The folds are stratified by membership as those of the attacks are; the model is LightGBM with few small trees.

    Args:
        features: (N, F) finite.
        member: (N,) 1 or 0.
        folds: At least 2.
        seed: Drives the folds, and which rows are fitted on where there are more than enough.

    Raises:
        MIAError: fewer members or non-members than folds.
    """
    from lightgbm import LGBMClassifier  # slow to import

    rng = np.random.default_rng(seed)
    fold = assign_folds(np.zeros(len(member), dtype=np.int64), member, folds=folds, seed=seed)
    scores = np.empty(len(member))
    for held_out in range(folds):
        rows = np.flatnonzero(fold != held_out)
        if len(rows) > BLIND_ROWS:
            rows = np.sort(rng.choice(rows, BLIND_ROWS, replace=False))
        model = LGBMClassifier(
            n_estimators=60,
            num_leaves=8,
            learning_rate=0.1,
            min_child_samples=max(5, min(100, len(rows) // 50)),
            reg_lambda=1.0,
            subsample_for_bin=BLIND_ROWS,
            random_state=seed,
            deterministic=True,
            n_jobs=1,  # so few rows lose more by waiting for threads than they gain
            force_row_wise=True,
            verbose=-1,
        )
        model.fit(features[rows], member[rows])
        scores[fold == held_out] = model.booster_.predict(features[fold == held_out], raw_score=True)
    return scores


def blind_baseline(
    records: ScoredRecords, groups: Groups, scores: Array, *, folds: int, seed: int, increments: Sequence[Difference]
) -> Guard:
    """Say whether membership can be told without the target, from what, and what attacks add to it.

    It warns where chance would reach the AUC, or one of the TPRs (at rates that allow at least ten false positives), in
    fewer than 1% of cases, all figures together (Bonferroni). Scores of a model fitted across folds depend on each
    other: the score of one record grows with the membership of another, and that one's score with the first's. Every
    such pair counts twice, so that the variance is up to twice that of independent scores; the p-values are of half
    the squared deviation. Of 400 data sets without a difference it warned in 1% (300 records) and 0.25% (1,500), where
    p-values for independent scores would have in 3.5% and 2.5% (`benchmarks/blind.py`).

    Args:
        records: N records.
        groups: From `blind_features`.
        scores: (N,) from `blind_scores` on all of them.
        folds: For the sources on their own.
        seed: Likewise.
        increments: Attack minus blind baseline, from `comparison.differences`.
    """
    found = evaluate(scores, records.membership, comparable_rates((0.01, 0.05), int((records.membership == 0).sum())))
    p_values = [_of_doubled_variance(p) for p in _chance_p_values(found)]
    beats = min(p_values) * len(p_values) < BLIND_LEVEL
    raised = [point for point, p in zip(found.points, p_values[1:], strict=True) if p * len(p_values) < BLIND_LEVEL]
    details: dict[str, float | int | str] = {"auc": found.auc, "auc_low": found.auc_low, "auc_high": found.auc_high}
    details |= {f"tpr@{point.fpr:g}": point.tpr for point in found.points}
    for gain in increments:
        details[f"{gain.first} over blind, {gain.figure}"] = gain.value
        details[f"{gain.first} over blind, {gain.figure}, 95%"] = f"{gain.low:.4f} to {gain.high:.4f}"
    sources = ", ".join(groups)
    figure = f"AUC {found.auc:.3f} ({found.auc_low:.3f}-{found.auc_high:.3f}, n = {len(scores):,})"
    if not beats:
        sentence = f"Without the target, {sources} do not tell members from non-members: {figure}."
        return Guard(BLIND, "pass", sentence, details)
    alone = _sources_alone(records.membership, groups, folds, seed)
    details |= {f"auc of {name} alone": value.auc for name, value in alone.items()}
    best = max(alone, key=lambda name: alone[name].auc)
    rates = "".join(f", TPR {p.tpr:.2%} at FPR {p.fpr:.0%}" for p in raised)
    sentence = (
        f"Members differ from non-members without the target: a model of {sources} reaches {figure}{rates}, most of it "
        f"from {best} (AUC {alone[best].auc:.3f} alone). Only what an attack adds to this says anything of the target."
    )
    return Guard(BLIND, "warn", sentence, details)


def preprocessing_parity(images: NDArray[np.uint8] | NDArray[np.float32], member: NDArray[np.int8]) -> Guard:
    """Compare pixel statistics of members and non-members: another resize, range or source shows in them.

    Each statistic has a two-sample Kolmogorov-Smirnov test; it warns where one has a p-value below 0.01 after Holm and
    the distributions are at least 0.05 apart.

    Args:
        images: (N, C, H, W), read in blocks; all of one dtype and shape.
        member: (N,) 1, 0, or -1 = left out.
    """
    from scipy.stats import ks_2samp  # slow to import

    from mia_lightning.comparison import holm

    statistics = pixel_statistics(images)
    sides = [np.flatnonzero(member == value) for value in (1, 0)]
    tests = {name: ks_2samp(*(values[side] for side in sides)) for name, values in statistics.items()}
    adjusted = dict(zip(tests, holm(np.array([test.pvalue for test in tests.values()])), strict=True))
    details: dict[str, float | int | str] = {"dtype": str(images.dtype), "shape": str(tuple(images.shape[1:]))}
    for name, values in statistics.items():
        inside, outside = (values[side] for side in sides)
        details |= {f"{name}, members": float(inside.mean()), f"{name}, non-members": float(outside.mean())}
        details |= {f"{name}, effect size": _effect_size(inside, outside), f"{name}, p": float(adjusted[name])}
    apart = [name for name in statistics if adjusted[name] < 0.01 and tests[name].statistic >= 0.05]
    counts = f"{len(sides[0]):,} members, {len(sides[1]):,} non-members"
    if not apart:
        sentence = (
            f"Members and non-members have the same pixel statistics ({', '.join(statistics)}; {counts}), dtype "
            f"{images.dtype} and shape {tuple(images.shape[1:])}."
        )
        return Guard("preprocessing parity", "pass", sentence, details)
    worst = max(apart, key=lambda name: abs(float(details[f"{name}, effect size"])))
    sentence = (
        f"Members and non-members differ in {', '.join(apart)} ({counts}; {worst}: {details[f'{worst}, members']:.4g} "
        f"against {details[f'{worst}, non-members']:.4g}, effect size {details[f'{worst}, effect size']:.2f}, "
        f"p = {adjusted[worst]:.1g}); they may come from another source or preprocessing."
    )
    return Guard("preprocessing parity", "warn", sentence, details)


def permuted_labels(
    scores: Mapping[str, Array], member: NDArray[np.int8], fprs: Sequence[float], *, times: int = 100, seed: int
) -> Guard:
    """Deal the memberships out anew many times: the intervals of AUC and TPR must then cover chance.

    It warns where they claim success more often than chance allows (probability below 0.001 over all attacks).

    Args:
        scores: Attack to (N,) finite scores.
        member: (N,) 1 or 0.
        fprs: Rates at which the TPR is looked at; those that allow fewer than ten false positives are left out.
        times: How often.
        seed: Drives the permutations.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(len(member))
    if len(rows) > NULL_ROWS:
        rows = rng.choice(rows, NULL_ROWS, replace=False)
    drawn = np.asarray(member)[rows]
    if len(np.unique(drawn)) < 2:
        return Guard("permuted labels", "not run", "Too few records of one side for a permutation test.", {})
    rates = comparable_rates(fprs, int((drawn == 0).sum()))
    claimed = dict.fromkeys(scores, 0)
    for _ in range(times):
        dealt = rng.permutation(drawn)
        for name, values in scores.items():
            claimed[name] += _claims_success(evaluate(values[rows], dealt, rates))
    return _null_guard(claimed, times, 1 + len(rates), "their scores")


def refitted_null(
    attacks: Mapping[str, Attack],
    table: SignalTable,
    member: NDArray[np.int8],
    *,
    seconds: Mapping[str, float],
    folds: int,
    seed: int,
) -> Guard:
    """Fit attacks anew, cross-fitted, on memberships dealt out by lot: what they find then is made by the procedure.

    Five times, in two folds, on 2,000 records at most. Attacks that learn, and those that read them, are fitted, the
    quick ones first, as long as all of it should take no more than some seconds. It warns as `permuted_labels`.

    Args:
        attacks: Name to attack, as for `crossfit.cross_fit`.
        table: (N,) rows.
        member: (N,) 1, 0 or -1 = left out.
        seconds: Attack to the time of its cross-fit on the table.
        folds: Of that cross-fit.
        seed: Drives permutations and attacks.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(np.asarray(member) >= 0)
    if len(known) > REFIT_ROWS:
        known = np.sort(rng.choice(known, REFIT_ROWS, replace=False))
    rows, dealt = table.rows(known), np.asarray(member)[known]
    per_second = REFITS * len(known) / ((folds - 1) * len(table))
    fitted, left = _affordable(attacks, {name: value * per_second for name, value in seconds.items()})
    if not fitted or min(int((dealt == 1).sum()), int((dealt == 0).sum())) < 10:
        why = f"{', '.join(left)} would take too long." if left else "No attack learns, or there are too few records."
        return not_run(REFITTED, why)
    claimed = dict.fromkeys(fitted, 0)
    rates = comparable_rates((0.01, 0.05), int((dealt == 0).sum()))
    for again in range(REFITS):
        dealt = rng.permutation(dealt)
        fold = assign_folds(rows.labels, dealt, folds=2, seed=seed + again)
        for name, found in cross_fit(fitted, rows, dealt, fold, seed=seed + again).items():
            claimed[name] += _claims_success(evaluate(found.scores, dealt, rates))
    also = f" Left out, as too slow for a check on every run: {', '.join(left)}." if left else ""
    guard = _null_guard(claimed, REFITS, 1 + len(rates), f"attacks fitted anew on {len(known):,} records", REFITTED)
    return replace(guard, sentence=f"{guard.sentence}{also}")


def _affordable(attacks: Mapping[str, Attack], seconds: Mapping[str, float]) -> tuple[dict[str, Attack], list[str]]:
    """Return the attacks to be refitted within the budget, in their order, and the names of those left out."""
    wanted: dict[str, set[str]] = {}  # attacks that learn or read one that does, each with all that it reads
    for name, attack in attacks.items():
        needs = {name}.union(*(wanted.get(read, {read}) for read in attack.reads() if read in attacks))
        if attack.learns or any(attacks[need].learns for need in needs):
            wanted[name] = needs
    chosen: set[str] = set()
    for name in sorted(wanted, key=lambda name: sum(seconds[need] for need in wanted[name])):
        if sum(seconds[need] for need in chosen | wanted[name]) <= REFIT_SECONDS:
            chosen |= wanted[name]
    return {name: attack for name, attack in attacks.items() if name in chosen}, [
        name for name in wanted if name not in chosen
    ]


def generalisation_gap(correct: tuple[int, int], totals: tuple[int, int]) -> Guard:
    """Say how much more often the target is right on members than on non-members; most attacks live on it.

    The interval is Newcombe's of a difference of two rates (1998, method 10). It warns where the target is surely
    better on non-members, which is what swapped memberships look like.

    Args:
        correct: Right predictions on members and on non-members.
        totals: How many members and non-members.
    """
    inside, outside = (right / total for right, total in zip(correct, totals, strict=True))
    (low_in, high_in), (low_out, high_out) = (rate_interval(*pair) for pair in zip(correct, totals, strict=True))
    gap = inside - outside
    low = gap - float(np.hypot(inside - low_in, high_out - outside))
    high = gap + float(np.hypot(high_in - inside, outside - low_out))
    sentence = (
        f"The target is right on {inside:.1%} of {totals[0]:,} members and {outside:.1%} of {totals[1]:,} non-members: "
        f"a gap of {100 * gap:.1f} points ({100 * low:.1f} to {100 * high:.1f})."
    )
    if high < 0:
        sentence += " It is better on non-members; are the memberships swapped?"
    details: dict[str, float | int | str] = {
        "accuracy on members": inside,
        "accuracy on non-members": outside,
        "gap": gap,
        "gap_low": low,
        "gap_high": high,
    }
    return Guard("generalisation gap", "warn" if high < 0 else "pass", sentence, details)


def not_run(name: str, why: str) -> Guard:
    """Return a guard that could not be run, with the reason as a sentence."""
    return Guard(name, "not run", why, {})


def _null_guard(
    claimed: Mapping[str, int], times: int, figures: int, what: str, guard: str = "permuted labels"
) -> Guard:
    """Each figure's 95% interval lies above chance in 2.5% of permutations; their union at most `figures` as often."""
    from scipy.special import bdtrc

    level = 0.025 * figures
    p_values = {name: float(bdtrc(count - 1, times, level)) if count else 1.0 for name, count in claimed.items()}
    failed = [name for name, p in p_values.items() if p < 0.001 / len(claimed)]
    details: dict[str, float | int | str] = {f"{name}, successes in {times}": count for name, count in claimed.items()}
    worst = max(claimed.values())
    expected = f"at most {level:.1%} are expected"
    if failed:
        sentence = (
            f"With memberships dealt out by lot, {', '.join(failed)} still seem to succeed, up to {worst} times in "
            f"{times} ({expected}); the intervals of {what} are not to be trusted."
        )
        return Guard(guard, "warn", sentence, details)
    sentence = (
        f"With memberships dealt out by lot {times} times, {what} seem to succeed at most {worst} times ({expected})."
    )
    return Guard(guard, "pass", sentence, details)


def _claims_success(found: Evaluation) -> bool:
    return found.auc_low > 0.5 or any(point.low > point.fpr for point in found.points)


def _chance_p_values(found: Evaluation) -> list[float]:
    """Return one-sided p-values of the AUC (normal, DeLong's error) and of each TPR against a ranking by lot.

    Under a random order at least m members stand above the (k+1)-th highest non-member exactly if the highest m + k
    records hold at most k non-members, which is hypergeometric.
    """
    from scipy.special import ndtr
    from scipy.stats import hypergeom

    total = found.n_members + found.n_non_members
    error = max(found.auc_standard_error, 1e-12)
    p_values = [float(ndtr((0.5 - found.auc) / error))]
    for point in found.points:
        above, allowed = round(point.tpr * found.n_members), point.false_positives
        p_values.append(float(hypergeom.cdf(allowed, total, found.n_non_members, above + allowed)))
    return p_values


def _of_doubled_variance(p_value: float) -> float:
    """Return the p-value of the same deviation, were its variance twice as large; see `blind_baseline`."""
    from scipy.special import ndtr, ndtri

    return float(ndtr(ndtri(p_value) / np.sqrt(2)))


def _sources_alone(member: NDArray[np.int8], groups: Groups, folds: int, seed: int) -> dict[str, Evaluation]:
    rng = np.random.default_rng(seed)
    rows = np.arange(len(member))
    if len(rows) > BLIND_ROWS:
        rows = np.sort(rng.choice(rows, BLIND_ROWS, replace=False))
    member = member[rows]
    return {
        name: evaluate(blind_scores(group[rows], member, folds=folds, seed=seed), member, ())
        for name, group in groups.items()
    }


def _id_features(ids: NDArray[np.int64] | NDArray[np.str_]) -> Array:
    """Return (N, 1) the number, or (N, 3) rank in alphabetical order, length and last number of a text."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.float64)[:, None]
    rank = np.empty(len(ids))
    rank[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    numbers = [re.findall(r"\d+", text)[-1:] for text in ids.tolist()]
    last = [float(found[0][:15]) if found else -1.0 for found in numbers]
    return np.stack([rank, np.array([len(text) for text in ids.tolist()], dtype=np.float64), np.array(last)], axis=1)


def _effect_size(first: Array, second: Array) -> float:
    """Return Cohen's d, 0 where neither side varies and they agree, +-100 where neither varies."""
    spread = float(np.sqrt((first.var() + second.var()) / 2))
    gap = float(first.mean() - second.mean())
    return float(np.clip(gap / spread, -100, 100)) if spread > 0 else float(np.sign(gap) * 100)
