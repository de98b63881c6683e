"""AUC, partial AUC and TPR at fixed FPR with confidence intervals.

Pure functions of scores (N,), higher = more likely a member, and membership (N,) of 1 or 0.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mia_lightning.metrics.evaluation import PRIORS, Evaluation, OperatingPoint
from mia_lightning.metrics.intervals import fpr_interval, mean_interval, mean_tpr_interval, tpr_interval
from mia_lightning.metrics.ranks import (
    Array,
    Membership,
    Scores,
    allowed,
    count_above,
    count_at_least,
    split,
    split_groups,
    threshold,
)
from mia_lightning.metrics.variance import (
    INDEPENDENT,
    Dependence,
    Influence,
    auc_influence,
    count_factors,
    fit_inflation,
    mean_tpr_influence,
    signal_share,
)

__all__ = [
    "PARTIAL",
    "PRIORS",
    "Evaluation",
    "OperatingPoint",
    "auc",
    "evaluate",
    "fpr_interval",
    "mean_interval",
    "partial_auc",
    "roc_curve",
    "tpr_at_fpr",
    "tpr_interval",
]

PARTIAL = 0.05
"""The false-positive rate up to which the partial AUC is taken."""

FEW = 200
"""Non-members in the range of the partial AUC below which its interval is simulated from order statistics."""

POOLING = 1.2
"""Factor of the upper half of the interval of a refitted attack's partial AUC: ranking the scores of several fits
together lowers it, by a third of its standard error where the signal is weak."""

UNSTABLE_TOP = 0.4
"""Least excess of the variance of a refitted attack's TPR at an FPR of 1% or less, in that of fixed scores, less at
higher rates: fits of trees differ in their highest records even where they agree on all others (correlation 0.99)."""


def evaluate(
    scores: Scores,
    member: Membership,
    fprs: Sequence[float] = (0.001, 0.01, 0.05),
    *,
    groups: NDArray[np.generic] | None = None,
    stability: float | None = None,
) -> Evaluation:
    """Return all figures with 95% confidence intervals.

    Args:
        scores: (N,) finite, higher = more likely a member.
        member: (N,) 1 or 0, both present.
        fprs: False-positive rates in [0, 1).
        groups: (N,) group of each record (a person, near duplicates); records of one group may depend on each other.
        stability: For out-of-fold scores of a trainable attack, `CrossFit.stability` (0 is the safe choice): the
            intervals then cover other records and another fit of the attack. None: the scores are a fixed function of
            the record, and the intervals cover other records.

    Raises:
        MIAError: lengths differ, a score is NaN or infinite, membership is not 0 and 1, an fpr is out of range.

    >>> import numpy as np
    >>> figures = evaluate(np.array([0.9, 0.8, 0.7, 0.3, 0.2]), np.array([1, 1, 0, 1, 0]), fprs=(0.5,))
    >>> round(figures.auc, 3), figures.at(0.5).tpr, figures.at(0.5).threshold, figures.n_members
    (0.833, 1.0, 0.2, 3)
    """
    members, non_members = split(scores, member)
    influence = auc_influence(members, non_members)
    independent = influence.variance()
    factors = (1.0, 1.0, 1.0)
    if stability is not None:
        z = (influence.value - 0.5) / np.sqrt(independent) if independent > 0 else np.inf
        factors = fit_inflation(signal_share(stability, float(z)))
    dependence = Dependence(
        None if groups is None else split_groups(np.asarray(scores), member, groups), *factors, stability is not None
    )
    error = float(np.sqrt(dependence.auc_factor * dependence.variance(influence)))
    low, high = _auc_interval(members, non_members, influence, dependence)
    partial = _partial_auc(members, non_members, PARTIAL, dependence)
    distinct, largest_tie = _ties(np.concatenate([members, non_members]))
    return Evaluation(
        n_members=len(members),
        n_non_members=len(non_members),
        auc=influence.value,
        auc_low=low,
        auc_high=high,
        auc_standard_error=error,
        partial_auc=partial[0],
        partial_auc_low=partial[1],
        partial_auc_high=partial[2],
        points=tuple(_point(members, non_members, fpr, dependence) for fpr in fprs),
        distinct=distinct,
        largest_tie=largest_tie,
        population="records" if stability is None else "records and the fit of the attack",
        variance_inflation=error**2 / independent if independent > 0 else 1.0,
    )


def _auc_interval(
    members: Array, non_members: Array, influence: Influence, dependence: Dependence
) -> tuple[float, float]:
    """Return the interval of the AUC; equal scores give 0.5 in every sample.

    An unseen kind of record differs from the AUC by 0.5 in the smaller class: near 1, for example, a member that ranks
    as a non-member would. In the larger class of k records it differs by 5 / k of that: both at once are less likely.
    """
    if _constant(members, non_members):
        return 0.5, 0.5
    value = influence.value
    unseen = max(-0.5, -value), min(0.5, 1 - value)
    share = min(1.0, 5 / max(len(members), len(non_members)))
    larger = share * unseen[0], share * unseen[1]
    sides = (unseen, larger) if len(members) <= len(non_members) else (larger, unseen)
    return dependence.mean_interval(influence, sides, dependence.auc_factor)


def _constant(members: Array, non_members: Array) -> bool:
    return bool(members[0] == members[-1] == non_members[0] == non_members[-1])


def tpr_at_fpr(scores: Scores, member: Membership, fpr: float) -> float:
    """Return the share of members strictly above the threshold that at most fpr of the non-members exceed.

    The threshold is the (k+1)-th largest non-member score, k = floor(fpr * n_non_members): no interpolation, no nearest
    point of the ROC. Below fpr = 1 / n_non_members this is the TPR at zero false positives.

    Raises:
        MIAError: as `evaluate`.

    >>> import numpy as np
    >>> tpr_at_fpr(np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 1, 0]), fpr=0.0)
    0.5
    """
    members, non_members = split(scores, member)
    return int(count_above(members, threshold(non_members, fpr))) / len(members)


def auc(scores: Scores, member: Membership) -> float:
    """Return the area under the ROC by midranks, in [0, 1] (the Mann-Whitney statistic; ties count half).

    Raises:
        MIAError: as `evaluate`.

    >>> import numpy as np
    >>> auc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([1, 1, 0, 0]))
    0.875
    """
    return auc_influence(*split(scores, member)).value


def roc_curve(scores: Scores, member: Membership) -> tuple[Array, Array]:
    """Return the corners (fpr, tpr) of the exact ROC from (0, 0) to (1, 1), both (M,) and never falling.

    Records that share a score cannot be separated, so a tie is drawn as the unfavorable step: first to the right, then
    up. The highest tpr at fpr <= a is then `tpr_at_fpr` at a, and no line runs diagonally.

    Raises:
        MIAError: as `evaluate`.
    """
    members, non_members = split(scores, member)
    levels = np.unique(np.concatenate([members, non_members]))[::-1]
    rates = [np.append(0.0, count_at_least(side, levels) / len(side)) for side in (non_members, members)]
    fpr, tpr = np.repeat(rates[0], 2)[1:], np.repeat(rates[1], 2)[:-1]
    right, up = np.diff(fpr) > 0, np.diff(tpr) > 0
    moves = np.flatnonzero(right | up)
    turns = np.flatnonzero(np.diff(right[moves].astype(np.int8)) != 0)
    corners = np.concatenate([[0], moves[turns] + 1, [len(fpr) - 1]])
    return fpr[corners], tpr[corners]


def partial_auc(scores: Scores, member: Membership, fpr: float = PARTIAL) -> tuple[float, float, float]:
    """Return the standardized partial AUC up to an FPR in (0, 1), and its 95% interval.

    McClish's scale: 0.5 where the ROC runs along chance, 1 where it is perfect; ties are crossed diagonally, as in
    scikit-learn's `roc_auc_score(max_fpr=...)`. The variance is that of the partial Mann-Whitney statistic with an
    estimated quantile (Dodd & Pepe 2003), ties included. With few non-members in the range the interval is simulated
    from the order statistics of their scores (`mean_tpr_interval`).

    Raises:
        MIAError: as `evaluate`.
    """
    return _partial_auc(*split(scores, member), fpr, INDEPENDENT)


def _partial_auc(members: Array, non_members: Array, fpr: float, dependence: Dependence) -> tuple[float, float, float]:
    if _constant(members, non_members):
        return 0.5, 0.5, 0.5
    influence, n = mean_tpr_influence(members, non_members, fpr), len(non_members)
    mean_tpr, factor = influence.value, dependence.partial_factor
    variance = factor * dependence.variance(influence)
    largest = float(np.abs(influence.non_members).max())
    low, high = dependence.mean_interval(influence, ((-mean_tpr, 1 - mean_tpr), (-largest, largest)), factor)
    ties = count_at_least(non_members, non_members) - count_above(non_members, non_members)
    if fpr * n < FEW and (ties[-ceil(fpr * n) :].max() <= 1 + 0.1 * fpr * n or fpr * n < 1):
        spread = float(influence.members.var(ddof=1)) if len(members) > 1 else mean_tpr * (1 - mean_tpr)
        independent = influence.variance()
        inflation = variance / independent if independent > 0 else factor
        simulated = mean_tpr_interval(members, non_members, fpr, spread / len(members), inflation)
        wider = mean_tpr > 0.8 or dependence.groups is not None
        low, high = (min(simulated[0], low), max(simulated[1], high)) if wider else simulated
        low, high = min(low, mean_tpr), max(high, mean_tpr)
    if factor > 1:
        high = min(mean_tpr + POOLING * (high - mean_tpr), 1.0)
    value, low, high = (0.5 * (1 + (tpr - fpr / 2) / (1 - fpr / 2)) for tpr in (mean_tpr, low, high))
    return value, low, high


def _point(members: Array, non_members: Array, fpr: float, dependence: Dependence) -> OperatingPoint:
    level, n = threshold(non_members, fpr), len(non_members)
    groups, tail = dependence.groups, dependence.tail_factor
    if dependence.refitted:
        tail = max(tail, 1 + UNSTABLE_TOP * min(1.0, 0.01 / fpr if fpr > 0 else 1.0))
    factors = (1.0, 1.0) if groups is None else count_factors(members, non_members, level, groups)
    low, high = tpr_interval(members, non_members, fpr, (tail * factors[0], tail * factors[1]))
    above, at_least = int(count_above(non_members, level)), int(count_at_least(non_members, level))
    fpr_low, fpr_high = fpr_interval(above, n, tied=at_least > above + 1)
    tpr = int(count_above(members, level)) / len(members)
    return OperatingPoint(
        fpr=float(fpr),
        tpr=tpr,
        low=low,
        high=high,
        threshold=level,
        false_positives=above,
        fpr_low=fpr_low,
        fpr_high=fpr_high,
        resolvable=allowed(n, fpr) >= 1,
        precision=tuple(_precision(tpr, above / n, prior) for prior in PRIORS),
        precision_low=tuple(_precision(low, fpr_high, prior) or 0.0 for prior in PRIORS),
    )


def _precision(tpr: float, fpr: float, prior: float) -> float | None:
    positives = prior * tpr + (1 - prior) * fpr
    return prior * tpr / positives if positives else None


def _ties(scores: Array) -> tuple[int, int]:
    """Return the number of distinct scores, and the most records that share a score that reaches the highest 5%."""
    _, counts = np.unique(scores, return_counts=True)
    ranked = counts[::-1]
    first_rank = np.cumsum(ranked) - ranked
    return len(counts), int(ranked[first_rank < ceil(0.05 * len(scores))].max())
