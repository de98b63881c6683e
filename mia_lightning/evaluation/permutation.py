"""Checks that the figures mean what they seem to mean: run beside every assessment, none of them asks the target.

A guard that warns does not change a figure; it says what else could have made it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack
from mia_lightning.evaluation.assessment import SanityCheck
from mia_lightning.evaluation.comparison import comparable_rates
from mia_lightning.evaluation.guards import Array, not_run
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.scores.crossfit import assign_folds, cross_fit
from mia_lightning.signals.table import SignalTable

REFITTED = "permuted labels, refitted"


REFITS, REFIT_ROWS, REFIT_SECONDS = 5, 2_000, 5.0
"""How often attacks are fitted on memberships dealt out by lot, on how many records, and how long that may take."""


NULL_ROWS = 10_000
"""Most records of the permuted-label test; its intervals have the same coverage at any number."""


def permuted_labels(
    scores: Mapping[str, Array], member: NDArray[np.int8], fprs: Sequence[float], *, times: int = 100, seed: int
) -> SanityCheck:
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
        return SanityCheck("permuted labels", "not run", "Too few records of one side for a permutation test.", {})
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
) -> SanityCheck:
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
        fold = assign_folds(dealt, folds=2, seed=seed + again)
        for name, found in cross_fit(fitted, rows, dealt, fold, seed=seed + again).items():
            claimed[name] += _claims_success(evaluate(found.scores, dealt, rates))
    also = f" Left out, as too slow for a check on every run: {', '.join(left)}." if left else ""
    guard = _null_guard(claimed, REFITS, 1 + len(rates), f"attacks fitted anew on {len(known):,} records", REFITTED)
    return replace(guard, sentence=f"{guard.sentence}{also}")


def _affordable(attacks: Mapping[str, Attack], seconds: Mapping[str, float]) -> tuple[dict[str, Attack], list[str]]:
    """Return the attacks to be refitted within the budget, in their order, and the names of those left out."""
    wanted: dict[str, set[str]] = {}  # attacks that learn or read one that does, each with all that it reads
    for name, attack in attacks.items():
        needs = {name}.union(*(wanted.get(read, {read}) for read in attack.required_columns() if read in attacks))
        if attack.is_trainable or any(attacks[need].is_trainable for need in needs):
            wanted[name] = needs
    chosen: set[str] = set()
    for name in sorted(wanted, key=lambda name: sum(seconds[need] for need in wanted[name])):
        if sum(seconds[need] for need in chosen | wanted[name]) <= REFIT_SECONDS:
            chosen |= wanted[name]
    return {name: attack for name, attack in attacks.items() if name in chosen}, [
        name for name in wanted if name not in chosen
    ]


def _null_guard(
    claimed: Mapping[str, int], times: int, figures: int, what: str, guard: str = "permuted labels"
) -> SanityCheck:
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
        return SanityCheck(guard, "warn", sentence, details)
    sentence = (
        f"With memberships dealt out by lot {times} times, {what} seem to succeed at most {worst} times ({expected})."
    )
    return SanityCheck(guard, "pass", sentence, details)


def _claims_success(found: Evaluation) -> bool:
    return found.auc_low > 0.5 or any(point.low > point.fpr for point in found.points)
