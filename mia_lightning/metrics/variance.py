"""Variance of AUC, partial AUC and TPR: DeLong's, by cluster, and of attacks that are refitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.metrics.intervals import ClassError, mean_interval
from mia_lightning.metrics.ranks import Array, count_above, count_at_least, share_below

Groups = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Group from 0 of each member and of each non-member."""


@dataclass(frozen=True, eq=False)
class Influence:
    """Each record's contribution to the error of a mean figure, centered; figures are sums of two class means."""

    members: Array
    """(P,) in ascending order of the scores; sums to 0."""

    non_members: Array
    """(n,) in ascending order of the scores; sums to 0."""

    value: float
    """The figure, in [0, 1]."""

    def variance(self) -> float:
        """Return the variance for independent records; a class of one record has the largest possible, v (1 - v)."""
        largest = self.value * (1 - self.value)
        sides = (self.members, self.non_members)
        return float(sum((side.var(ddof=1) if len(side) > 1 else largest) / len(side) for side in sides))

    def clustered(self, groups: Groups) -> float:
        """Return the variance where records of one group depend on each other (cluster-robust, CR1).

        Args:
            groups: (P,) and (n,) group from 0 of each member and non-member.
        """
        count = 1 + max(int(side.max()) for side in groups)
        total = np.zeros(count)
        for side, group in zip((self.members, self.non_members), groups, strict=True):
            total += np.bincount(group, weights=side, minlength=count) / len(side)
        used = len(np.unique(np.concatenate(groups)))
        return float((total**2).sum()) * used / max(used - 1, 1)


def auc_influence(members: Array, non_members: Array) -> Influence:
    """Return the AUC and each record's influence on it (DeLong et al. 1988): shares of the other class below, above."""
    below, above = share_below(members, non_members), 1 - share_below(non_members, members)
    value = float(below.mean())
    return Influence(below - value, above - value, value)


def mean_tpr_influence(members: Array, non_members: Array, fpr: float) -> Influence:
    """Return the mean TPR over FPRs from 0 to `fpr`, and each record's influence on it.

    A member whose score ties with non-members spans the FPRs a to b; it contributes the mean of (fpr - u)+ over that
    span, i.e. ties are crossed diagonally. Non-members enter through a and b (the derivative of that mean).
    """
    n = len(non_members)
    a, b = count_above(non_members, members) / n, count_at_least(non_members, members) / n
    within, crossing = b <= fpr, (a < fpr) & (fpr < b)
    span, reach = np.where(crossing, b - a, 1.0), np.clip(fpr - a, 0, None)
    shares = np.where(within, fpr - (a + b) / 2, np.where(crossing, reach**2 / (2 * span), 0.0)) / fpr
    slope_b = np.where(within, -0.5, np.where(crossing, -(reach**2) / (2 * span**2), 0.0)) / fpr
    slope_a = np.where(within, slope_b, np.where(crossing, -reach / (span * fpr) - slope_b, 0.0))
    sums_a, sums_b = (np.concatenate([[0.0], np.cumsum(slope)]) for slope in (slope_a, slope_b))
    lower, at_most = (np.searchsorted(members, non_members, side=side) for side in ("left", "right"))
    influence = (sums_a[lower] + sums_b[at_most]) / len(members)
    value = float(np.clip(shares.mean(), 0, 1))
    return Influence(shares - shares.mean(), influence - influence.mean(), value)


def count_factors(members: Array, non_members: Array, level: float, groups: Groups) -> tuple[float, float]:
    """Return the design effects of the counts of members and of non-members above a level, each at least 1."""
    factors = []
    for side, group in zip((members, non_members), groups, strict=True):
        share = (side > level).astype(np.float64)
        share -= share.mean()
        sums = np.bincount(group, weights=share)
        independent = float((share**2).sum())
        factors.append(max(float((sums**2).sum()) / independent, 1.0) if independent > 0 else mean_group_size(group))
    return factors[0], factors[1]


def mean_group_size(group: NDArray[np.intp]) -> float:
    """Return the design effect of fully dependent groups: sum of squared sizes over the number of records."""
    return float((np.bincount(group) ** 2.0).sum() / len(group))


def signal_share(stability: float, z: float) -> float:
    """Return the share of the variance of a fitted attack's scores that every fit of it would reproduce, in [0, 1].

    Args:
        stability: Correlation of the scores of two fits, each on all fitting rows, as estimated by `crossfit`.
        z: (AUC - 0.5) / standard error. One direction learned from noise has a stability of +1 or -1 by chance; the
            share of a signal with this z is at most the root of s^2 + s z^2 = z^2.
    """
    excess = max(z * z - NULL_VARIANCE, 0.0)
    return min(max(stability, 0.0), (float(np.sqrt(excess**2 + 4 * excess)) - excess) / 2)


NULL_VARIANCE = 1.9
"""Variance of the out-of-fold AUC of an attack without signal, in DeLong's."""


def fit_inflation(signal: float) -> tuple[float, float, float]:
    """Return the factors by which a refitted attack's variance exceeds that of fixed scores: AUC, partial AUC, TPR.

    Every pair of records in different folds counts twice in an out-of-fold figure: each is scored by a model that was
    fitted on the other. For scores linear in the memberships this doubles the variance where nothing is learned
    (signal 0), adds the variance of the fit in between, and leaves DeLong's where every fit gives the same scores
    (signal 1). For one learned direction of Gaussian scores that is signal (1 + noise)^2 + 2 noise, which the curve of
    the AUC follows. A TPR depends on which records are in the top few percent. Two fits agree on these far less than on
    the ranking of all records (correlation 0.3 to 0.7 where it is 0.75 to 0.9 over all), so that its curve has its
    maximum at a larger signal. The curves are fitted to simulations (`benchmarks/honesty_intervals.py`).
    """
    noise = 1 - signal
    tail = 1 + 0.25 * (1 - signal**4)
    return (
        1 + 1.2 * noise * (1 + 1.8 * signal),
        tail + 4 * signal**2 * noise,
        tail + signal * noise * (1.3 + 4.5 * signal**2),
    )


@dataclass(frozen=True, eq=False)
class Dependence:
    """Sources of dependence between records or scores: groups of records, and the fit of the attack."""

    groups: Groups | None
    auc_factor: float
    """Variance factor of the AUC for the fit, at least 1."""

    partial_factor: float
    """Of the partial AUC."""

    tail_factor: float
    """Of a TPR."""

    refitted: bool = False
    """Whether the scores are those of a fitted attack."""

    def variance(self, influence: Influence) -> float:
        """Return the variance of a figure before the fit's factor."""
        independent = influence.variance()
        return independent if self.groups is None else max(independent, influence.clustered(self.groups))

    def mean_interval(
        self, influence: Influence, unseen: Sequence[tuple[float, float]], factor: float
    ) -> tuple[float, float]:
        """Return the 95% interval of a mean figure.

        Args:
            influence: Of the figure.
            unseen: Influence of an unseen record at either end, of members and of non-members; see `ClassError`.
            factor: Variance factor of this figure for the fit.
        """
        independent = influence.variance()
        if independent > 0:
            factor *= self.variance(influence) / independent
        elif self.groups is not None:
            factor *= max(mean_group_size(side) for side in self.groups)
        sides = zip((influence.members, influence.non_members), unseen, strict=True)
        errors = [ClassError(len(side), float(side.var()), ends) for side, ends in sides]
        return mean_interval(influence.value, errors, factor)


INDEPENDENT = Dependence(None, 1.0, 1.0, 1.0)
