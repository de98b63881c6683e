"""95% confidence intervals of AUC, TPR and FPR, in closed form or by a short Monte-Carlo sum."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtri

from mia_lightning.metrics.ranks import Array, allowed, count_above, count_at_least, threshold

TAILS = np.array([0.025, 0.975])
"""Lower and upper tail probability of every interval."""

DRAWS = 4000
"""Draws of the Monte-Carlo sum; the ends of an interval vary by about 2% of its width between seeds."""


@dataclass(frozen=True)
class ClassError:
    """Sampling error that one class contributes to the mean of values in [0, 1]."""

    count: int
    """Number of records k, at least 1."""

    variance: float
    """Variance of the records' influences, divided by k."""

    unseen: tuple[float, float]
    """Influence of a record of a kind that is not in the sample: at most 0 for the lower end, at least 0 for the
    upper."""


def mean_interval(value: float, classes: Sequence[ClassError], factor: float = 1.0) -> tuple[float, float]:
    """Return the 95% interval of a mean of values in [0, 1], of few records or many.

    Each class gets one more record, of a kind that is not in the sample, and the records' weights are drawn from
    Dirichlet(1, ..., 1), as in the Bayesian bootstrap. The ends are the quantiles of the Beta distribution with the
    mean and the variance of that draw. For values 0 and 1 and an unseen value of 0 (lower end) or 1 (upper end) this is
    Clopper and Pearson's interval; for other values it is an approximation of Gaffke's (2005) bound.

    Args:
        value: The figure, in [0, 1].
        classes: Members and non-members.
        factor: Variance of the figure over that of independent records; the classes count k / factor records.
    """
    ends = []
    for end, tail in enumerate(TAILS):
        mean, variance = value, 0.0
        for side in classes:
            count, unseen = side.count / factor, side.unseen[end]
            mean += unseen / (count + 1)
            variance += (count * side.variance + unseen**2 * count / (count + 1)) / (count + 1) / (count + 2)
        mean = float(np.clip(mean, 0, 1))
        pairs = mean * (1 - mean) / variance - 1 if variance > 0 else 0.0
        ends.append(float(betaincinv(mean * pairs, (1 - mean) * pairs, tail)) if pairs > 0 else float(end))
    return min(ends[0], value), max(ends[1], value)


def fpr_interval(false_positives: int, n_non_members: int, *, tied: bool = False) -> tuple[float, float]:
    """Return the 95% interval of the FPR in the population of a threshold set by the (k+1)-th largest score.

    Without ties that FPR has the distribution Beta(k + 1, n - k), whatever the scores' distribution is. Where the
    threshold is a tied value, k is the number of non-members strictly above it, and the lower end is Clopper-Pearson's.
    """
    k = false_positives
    low = betaincinv(k + 1 - tied, n_non_members - k + tied, TAILS[0]) if k or not tied else 0.0
    return float(low), float(betaincinv(k + 1, n_non_members - k, TAILS[1]))


def tpr_interval(
    members: Array, non_members: Array, fpr: float, inflation: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float]:
    """Return a 95% interval of the TPR at the threshold that a share `fpr` of the *population* of non-members exceeds.

    The population's threshold has K ~ Binomial(n, fpr) of the n non-members above it (exact), hence between c(K) and
    c(K+1) members, taken as equally likely; the rate given that count has Jeffreys' Beta(c + 1/2, P - c + 1/2). This is
    the dual of the stratified bootstrap, which is degenerate at 0 members above the threshold and covers too rarely
    where few non-members are above it. The ends are widened to include the estimate. Coverage for independent scores:
    0.945-0.983 for fpr * n >= 10 and 0.98-1.00 for fpr * n <= 1, where counts are small.

    If fpr * n < 1, the n non-members cannot resolve the rate. The estimate is then the TPR at the highest of the n
    non-members (whose FPR is below 3 / n with 95% confidence), and the interval is Clopper-Pearson's of exactly that:
    given the threshold, the members above it are binomial.

    Args:
        members: (P,) ascending scores.
        non_members: (n,) ascending scores.
        fpr: In [0, 1).
        inflation: Variance factors of member and of non-member counts (dependence between records, refitted attacks).
    """
    total, (member_factor, non_member_factor) = len(members), inflation
    above = int(count_above(members, threshold(non_members, fpr)))
    rate = above / total
    if allowed(len(non_members), fpr) == 0:
        low, high = rate_interval_exact(above, total, member_factor)
        return min(low, rate), max(high, rate)
    rng = np.random.default_rng(0)
    edges = np.concatenate([[-np.inf], non_members, [np.inf]])
    drawn = rng.binomial(len(non_members), fpr, DRAWS)
    mean = fpr * len(non_members)
    drawn = np.rint(mean + np.sqrt(non_member_factor) * (drawn - mean)).clip(0, len(non_members)).astype(np.intp)
    most = count_above(members, edges[len(non_members) - drawn])
    least = count_above(members, edges[len(non_members) + 1 - drawn])
    count = rng.integers(least, most, endpoint=True) / member_factor
    low, high = np.quantile(rng.beta(count + 0.5, total / member_factor - count + 0.5), TAILS)
    return (0.0 if above == 0 else min(float(low), rate)), (1.0 if above == total else max(float(high), rate))


def mean_tpr_interval(
    members: Array, non_members: Array, fpr: float, variance: float, inflation: float = 1.0
) -> tuple[float, float]:
    """Return a 95% interval of the mean TPR over FPRs from 0 to `fpr`, for few non-members in that range.

    The FPRs of the n non-members' scores in the population are uniform order statistics (exact without ties). Between
    two of them the TPR lies between the counts at either end; each draw takes one position between the two. The
    sampling error of the members is a Beta distribution of the given variance.

    Args:
        members: (P,) ascending scores.
        non_members: (n,) ascending scores.
        fpr: In (0, 1).
        variance: Variance of the mean TPR over samples of members.
        inflation: Factor of the variances from members and from non-members (refitted attacks).
    """
    n, rng = len(non_members), np.random.default_rng(0)
    depth = min(n, int(fpr * n + 6 * np.sqrt(fpr * n) + 6))
    highest = non_members[::-1][:depth]
    above, at_least = count_above(members, highest), count_at_least(members, highest)
    size, first = count_at_least(non_members, highest) - count_above(non_members, highest), np.arange(depth)
    position = first - count_above(non_members, highest)
    counts = np.concatenate([[0.0], above + (at_least - above) * (position + 0.5) / size])  # ties crossed diagonally
    counts = np.append(np.maximum.accumulate(counts), float(len(members)) if depth == n else counts[-1]) / len(members)
    spacings = rng.exponential(size=(MEAN_DRAWS, depth))
    rates = np.cumsum(spacings, axis=1)
    rates /= rates[:, -1:] + rng.gamma(n + 1 - depth, size=(MEAN_DRAWS, 1))
    edges = np.minimum(np.pad(rates, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1))), fpr)
    between = counts[:-1] + rng.random((MEAN_DRAWS, 1)) * np.diff(counts)
    means = (np.diff(edges, axis=1) * between).sum(axis=1) / fpr
    center = float(np.clip(means.mean(), 0, 1))
    means = (center + np.sqrt(inflation) * (means - center)).clip(0, 1)
    pairs = max(center * (1 - center) / (inflation * variance), 1.0) if variance > 0 else float(len(members))
    low, high = np.quantile(rng.beta(means * pairs + 0.5, (1 - means) * pairs + 0.5), TAILS)
    return float(low), float(high)


MEAN_DRAWS = 1000
"""Draws of `mean_tpr_interval`."""


def rate_interval_exact(count: int, total: int, inflation: float = 1.0) -> tuple[float, float]:
    """Return Clopper-Pearson's 95% interval of a rate, `count` of `total`, both divided by a variance factor."""
    count_, total_ = count / inflation, total / inflation
    low = betaincinv(count_, total_ - count_ + 1, TAILS[0]) if count else 0.0
    high = betaincinv(count_ + 1, total_ - count_, TAILS[1]) if count < total else 1.0
    return float(low), float(high)


def rate_interval(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a rate, `count` of `total`."""
    z = float(ndtri(TAILS[1]))
    rate = count / total
    middle = (rate + z**2 / (2 * total)) / (1 + z**2 / total)
    half_width = z / (1 + z**2 / total) * float(np.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2))
    return max(0.0, middle - half_width), min(1.0, middle + half_width)
