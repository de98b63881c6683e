"""Null tests with permuted memberships.

`intervals_at_chance` permutes memberships against fixed scores: it tests the confidence intervals, and cannot see a
leak. `refitted_permutation_test` fits attacks again on permuted memberships: whatever they find there is made by the
procedure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack
from mia_lightning.evaluation.assessment import SanityCheck
from mia_lightning.evaluation.comparison import comparable_rates
from mia_lightning.evaluation.fit_cost import fit_seconds
from mia_lightning.evaluation.sanity_checks import skipped
from mia_lightning.metrics.ranks import Array
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.scores.crossfit import assign_folds, cross_fit
from mia_lightning.signals.table import SignalTable

INTERVALS = "intervals at chance"

REFITTED = "permutation test (refitted)"

NULL_ROWS = 10_000
"""Most records of the test of intervals; they have the same coverage at any number."""

REFIT_ROWS = (2_000, 200)
"""Most and fewest records that attacks are refitted on."""

REFITS = (19, 5)
"""Most and fewest permutations with attacks refitted; with B of them a p-value has a resolution of 1 / (B + 1)."""

REFIT_SECONDS = 4.0
"""Seconds of fitting by the cost model of `fit_cost`, on one core; a slower machine takes longer for the same test."""

LEVEL = 0.001
"""Probability of a warning, over all attacks, where the procedure is sound."""


def intervals_at_chance(
    scores: Mapping[str, Array], member: NDArray[np.int8], fprs: list[float], *, times: int = 100, seed: int
) -> SanityCheck:
    """Permute the memberships against fixed scores: intervals of AUC and TPR must then cover chance.

    It warns where they exclude chance more often than 95% intervals do (probability below 0.001 over all attacks).

    Args:
        scores: Attack to (N,) finite scores.
        member: (N,) 1 or 0.
        fprs: Rates at which the TPR is evaluated; those that allow fewer than ten false positives are left out.
        times: Number of permutations.
        seed: Random seed of the permutations.
    """
    from scipy.special import bdtrc

    rng = np.random.default_rng(seed)
    rows = np.arange(len(member))
    if len(rows) > NULL_ROWS:
        rows = rng.choice(rows, NULL_ROWS, replace=False)
    drawn = np.asarray(member)[rows]
    if len(np.unique(drawn)) < 2:
        return skipped(INTERVALS, "Too few members or non-members for a permutation test.")
    rates = comparable_rates(fprs, int((drawn == 0).sum()))
    above = dict.fromkeys(scores, 0)
    for _ in range(times):
        permuted = rng.permutation(drawn)
        for name, values in scores.items():
            above[name] += _beats_chance(evaluate(values[rows], permuted, rates))
    level = 0.025 * (1 + len(rates))  # each figure's interval is above chance in 2.5%, their union at most this often
    p_values = {name: float(bdtrc(count - 1, times, level)) if count else 1.0 for name, count in above.items()}
    worst = min(p_values, key=lambda name: (p_values[name], -above[name]))
    adjusted = min(1.0, p_values[worst] * len(p_values))
    details: dict[str, float | int | str] = {f"{name}, successes in {times}": count for name, count in above.items()}
    details |= {"p": adjusted, "permutations": times}
    counts = f"in {above[worst]} of {times} permutations (expected: at most {level * times:.3g}; p = {adjusted:.2g})"
    subject = "the attack" if len(scores) == 1 else "the worst attack"
    if adjusted < LEVEL:
        failed = ", ".join(name for name, p in p_values.items() if p * len(p_values) < LEVEL)
        sentence = (
            f"With shuffled membership labels, {subject} beat chance {counts}; do not trust the confidence "
            f"intervals of {failed}."
        )
        return SanityCheck(INTERVALS, "warn", sentence, details)
    sentence = f"With shuffled membership labels and fixed scores, {subject} beat chance {counts}."
    return SanityCheck(INTERVALS, "pass", sentence, details)


@dataclass(frozen=True)
class RefitPlan:
    """Size of a refitted permutation test."""

    rows: int
    permutations: int
    seconds: float
    """Expected, by the cost model."""


def plan_refits(attacks: Mapping[str, Attack], rows: int, columns: int) -> RefitPlan:
    """Return the largest sample and number of permutations within `REFIT_SECONDS`, or the smallest there are.

    The plan depends on the attacks, records and columns only, never on the speed or load of a machine.

    Args:
        attacks: Attacks to be refitted.
        rows: Number of records of known membership.
        columns: Number of columns of the table.
    """

    def seconds(sample: int, permutations: int) -> float:
        fits = 2 * (permutations + 1)  # two folds; one more on the true memberships
        return fits * sum(fit_seconds(attack, sample // 2, columns) for attack in attacks.values())

    most, fewest = min(rows, REFIT_ROWS[0]), min(rows, REFIT_ROWS[1])
    samples = sorted({most, fewest, *(size for size in (1_500, 1_000, 700, 500, 300) if fewest < size < most)})
    for permutations in (REFITS[0], 9, REFITS[1]):
        for sample in reversed(samples):
            if seconds(sample, permutations) <= REFIT_SECONDS and (
                sample >= min(most, 400) or permutations == REFITS[1]
            ):
                return RefitPlan(sample, permutations, seconds(sample, permutations))
    return RefitPlan(fewest, REFITS[1], seconds(fewest, REFITS[1]))


def refitted_permutation_test(
    attacks: Mapping[str, Attack],
    table: SignalTable,
    member: NDArray[np.int8],
    *,
    seed: int,
    groups: NDArray[np.generic] | None = None,
) -> SanityCheck:
    """Refit attacks, cross-fitted in two folds, on permuted memberships, where an honest procedure is at chance.

    A leak raises the mean AUC over the permutations; its p-value is normal, one-sided and adjusted for the number of
    attacks, from twice DeLong's variance (scores of different folds depend on each other). It warns below 0.001. The
    permutation p-value of each attack's own AUC on the same sample is in the details: (1 + permutations at or above) /
    (1 + permutations) (Phipson & Smyth 2010). Nothing depends on the order of the rows.

    Args:
        attacks: Name to attack, as for `crossfit.cross_fit`; those that learn, and those that read them, are refitted.
        table: (N,) rows.
        member: (N,) 1, 0 or -1 = left out.
        seed: Random seed of sample, permutations and attacks.
        groups: (N,) group of each record; a group is sampled completely, stays in one fold, and has its membership
            exchanged with another group's.
    """
    from scipy.special import ndtr

    fitted = _refittable(attacks)
    if not fitted:
        return skipped(REFITTED, "No attack is fitted on memberships.")
    order = table.content_order()
    labeled = order[np.asarray(member)[order] >= 0]
    plan = plan_refits(fitted, len(labeled), len(table.columns))
    rng = np.random.default_rng(seed)
    units = np.arange(len(labeled)) if groups is None else _by_appearance(np.asarray(groups)[labeled])
    if len(labeled) > plan.rows:
        shuffled = rng.permutation(int(units.max()) + 1)[units]
        rank = np.argsort(shuffled, kind="stable")[: plan.rows]
        chosen = np.sort(rank[shuffled[rank] < shuffled[rank[-1]]] if groups is not None else rank)
        labeled, units = labeled[chosen], _by_appearance(units[chosen])
    rows, true = table.rows(labeled), np.asarray(member)[labeled]
    if min(len(np.unique(units[true == side])) for side in (1, 0)) < 10:
        unit = "" if groups is None else "groups of "
        return skipped(REFITTED, f"Fewer than 10 {unit}members or 10 {unit}non-members.")
    people = None if groups is None else units
    actual = {name: evaluation.auc for name, evaluation in _refit(fitted, rows, true, people, seed).items()}
    areas: dict[str, list[float]] = {name: [] for name in fitted}
    deviations: dict[str, list[float]] = {name: [] for name in fitted}
    for index in range(plan.permutations):
        permuted = rng.permutation(true) if people is None else permuted_by_group(true, people, rng)
        for name, evaluation in _refit(fitted, rows, permuted, people, seed + 1 + index).items():
            areas[name].append(evaluation.auc)
            deviations[name].append((evaluation.auc - 0.5) / max(evaluation.auc_standard_error, 1e-12))
    scale = np.sqrt(plan.permutations / 2)
    leaks = {name: float(ndtr(-np.mean(values) * scale)) for name, values in deviations.items()}
    p_values = {
        name: (1 + sum(value >= actual[name] for value in values)) / (1 + len(values)) for name, values in areas.items()
    }
    return _summary(
        plan, len(labeled), leaks, p_values, {name: float(np.mean(values)) for name, values in areas.items()}
    )


def permuted_by_group(member: NDArray[np.int8], units: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.int8]:
    """Return memberships, (N,), in which each group has those of another: repeated or cut to its own size.

    A group of members only stays a group of one side, so that what its records share goes with membership as before.

    Args:
        member: (N,) 1 or 0.
        units: (N,) group from 0 of each record.
        rng: Draws the permutation.
    """
    rows = np.split(np.argsort(units, kind="stable"), np.cumsum(np.bincount(units))[:-1])
    result = np.empty_like(member)
    for group, donor in zip(rows, rng.permutation(len(rows)), strict=True):
        result[group] = np.resize(rng.permutation(member[rows[donor]]), len(group))
    return result


def _by_appearance(groups: NDArray[np.generic]) -> NDArray[np.intp]:
    """Return groups from 0, (N,), numbered as they appear, whatever their names are."""
    _, first, index = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[index]


def _refit(
    attacks: Mapping[str, Attack],
    rows: SignalTable,
    member: NDArray[np.int8],
    units: NDArray[np.intp] | None,
    seed: int,
) -> dict[str, Evaluation]:
    fold = assign_folds(member, folds=2, seed=seed, groups=units)
    fits = cross_fit(attacks, rows, member, fold, seed=seed)
    return {name: evaluate(fit.scores, member, (), groups=units) for name, fit in fits.items()}


def _refittable(attacks: Mapping[str, Attack]) -> dict[str, Attack]:
    """Return the attacks that learn or read one that does, and all that they read, in their order."""
    needs: dict[str, set[str]] = {}
    for name, attack in attacks.items():
        read = {column for column in attack.required_columns() if column in attacks}
        needs[name] = {name}.union(*(needs.get(column, {column}) for column in read))
    learning = {name for name, reads in needs.items() if any(attacks[read].is_trainable for read in reads)}
    chosen = set().union(*(needs[name] for name in learning)) if learning else set()
    return {name: attack for name, attack in attacks.items() if name in chosen}


def _summary(
    plan: RefitPlan, rows: int, leaks: Mapping[str, float], p_values: Mapping[str, float], means: Mapping[str, float]
) -> SanityCheck:
    worst = min(leaks, key=lambda name: leaks[name])
    adjusted = min(1.0, leaks[worst] * len(leaks))
    details: dict[str, float | int | str] = {"p": adjusted, "permutations": plan.permutations, "records": rows}
    details |= {f"{name}, mean AUC of permutations": value for name, value in means.items()}
    details |= {f"{name}, permutation p-value": value for name, value in p_values.items()}
    design = f"{plan.permutations} permutations, attacks refitted on {rows:,} records"
    result = f"mean AUC of at most {max(means.values()):.3f} (chance: 0.5; p = {adjusted:.2g})"
    if adjusted < LEVEL:
        failed = ", ".join(name for name, p in leaks.items() if p * len(leaks) < LEVEL)
        sentence = (
            f"With shuffled membership labels ({design}), {failed} still beat chance: {result}. Memberships leak into "
            "the scores; do not trust the figures."
        )
        return SanityCheck(REFITTED, "warn", sentence, details)
    best = min(p_values, key=lambda name: p_values[name])
    sentence = (
        f"With shuffled membership labels ({design}), no attack beat chance: {result}. With the true labels on the "
        f"same records, {best} has p = {p_values[best]:.2g} (resolution {1 / (plan.permutations + 1):.2g})."
    )
    return SanityCheck(REFITTED, "pass", sentence, details)


def _beats_chance(evaluation: Evaluation) -> bool:
    return evaluation.auc_low > 0.5 or any(point.low > point.fpr for point in evaluation.points)
