"""Paired differences of every figure between two targets, and the change of each record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mia_lightning.evaluation.assessment import Difference
from mia_lightning.evaluation.comparison import comparable_rates, differences, paired_bootstrap
from mia_lightning.metrics.intervals import TAILS
from mia_lightning.metrics.ranks import Array, share_below, split, threshold
from mia_lightning.metrics.roc import Evaluation, evaluate

BEFORE, AFTER = "before", "after"

POWER = 0.9
"""Probability at which a change is found."""


@dataclass(frozen=True, eq=False)
class Identified:
    """Members identified before and after at one false-positive rate, each at its own threshold."""

    fpr: float
    both: int
    only_before: int
    only_after: int
    p_value: float
    """Exact McNemar test that as many were gained as lost, two-sided."""


@dataclass(frozen=True, eq=False)
class Change:
    """One attack on two targets."""

    attack: str
    against_references: bool
    """Whether the scores compare the target with reference models, half of which were trained without the record."""

    before: Evaluation
    after: Evaluation
    differences: tuple[Difference, ...]
    """After minus before, by figure; the interval is of these two targets on other records."""

    identified: Identified
    share_before: Array
    """(N,) share of the non-members below each record, ties counting half."""

    share_after: Array

    @property
    def moved(self) -> Array:
        """(N,) change of that share."""
        return self.share_after - self.share_before


def detectable(difference: Difference) -> float:
    """Return the true change whose 95% interval excludes 0 with a probability of 90%, from the interval's width."""
    tail = float(ndtri(TAILS[1]))
    return (difference.high - difference.low) / (2 * tail) * (tail + float(ndtri(POWER)))


def compare(
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    member: NDArray[np.int8],
    *,
    fprs: Sequence[float],
    resamples: int,
    seed: int,
    against_references: Sequence[str] = (),
) -> tuple[Change, ...]:
    """Compare two targets on the same records.

    The bootstrap draws members and non-members; one draw serves both targets, so that what is common to a record in
    both cancels. p-values are adjusted over all attacks and figures (Holm).

    Args:
        before: Attack to (N,) finite scores of the first target.
        after: The same attacks of the second.
        member: (N,) 1 or 0, both present.
        fprs: False-positive rates in [0, 1); compared are those that allow ten false positives.
        resamples: Of the paired bootstrap.
        seed: Random seed of the resamples.
        against_references: Attacks whose scores compare the target with reference models.

    Raises:
        MIAError: as `metrics.evaluate`.
    """
    rates = comparable_rates(fprs, int((member == 0).sum()))
    scores = {(side, name): values[name] for side, values in ((BEFORE, before), (AFTER, after)) for name in before}
    named = {f"{side}: {name}": column for (side, name), column in scores.items()}
    resampled = paired_bootstrap(named, member, rates, resamples=resamples, seed=seed)
    between = differences(resampled, [(f"{AFTER}: {name}", f"{BEFORE}: {name}") for name in before])
    shared = min((rate for rate in rates if rate >= 0.01), default=0.05)
    return tuple(
        Change(
            attack=name,
            against_references=name in against_references,
            before=evaluate(before[name], member, fprs),
            after=evaluate(after[name], member, fprs),
            differences=tuple(row for row in between if row.first == f"{AFTER}: {name}"),
            identified=_identified(before[name], after[name], member, shared),
            share_before=_shares(before[name], member),
            share_after=_shares(after[name], member),
        )
        for name in before
    )


def _identified(before: Array, after: Array, member: NDArray[np.int8], fpr: float) -> Identified:
    from scipy.stats import binomtest  # slow to import

    first, second = (scores[member == 1] > threshold(split(scores, member)[1], fpr) for scores in (before, after))
    lost, gained = int((first & ~second).sum()), int((~first & second).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Identified(fpr, int((first & second).sum()), lost, gained, p_value)


def _shares(scores: Array, member: NDArray[np.int8]) -> Array:
    return share_below(scores, split(scores, member)[1])
