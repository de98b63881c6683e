"""How sure one figure is: 95% intervals of AUC, TPR and FPR, in closed form or by a short Monte-Carlo sum."""

import numpy as np
from scipy.special import betaincinv, expit, logit, ndtri

from mia_lightning.metrics.ranks import Array, count_above, threshold

TAILS = np.array([0.025, 0.975])
"""Of every interval."""

DRAWS = 4000
"""Of the interval's Monte-Carlo sum; its ends then move by about 2% of the interval's width from seed to seed."""


def auc_interval(value: float, standard_error: float, smaller_side: int) -> tuple[float, float]:
    """Return the 95% interval of an AUC from DeLong's standard error, on the logit scale, so that it stays in [0, 1].

    At perfect separation the standard error is 0; the interval is then the exact binomial one (Clopper-Pearson) of as
    many disjoint pairs as the smaller side has records, all in the same order.
    """
    if standard_error == 0 or value in (0, 1):
        edge = float(TAILS[0] ** (1 / smaller_side))
        return (min(edge, value), 1.0) if value >= 0.5 else (0.0, max(1 - edge, value))
    low, high = expit(logit(value) + ndtri(TAILS) * standard_error / (value * (1 - value)))
    return float(low), float(high)


def fpr_interval(false_positives: int, n_non_members: int) -> tuple[float, float]:
    """Return the 95% interval of a threshold's FPR in the population, given that the (k+1)-th largest score set it.

    For scores without ties that FPR has the law Beta(k + 1, n - k), whatever their distribution; ties lower it.
    """
    low, high = betaincinv(false_positives + 1, n_non_members - false_positives, TAILS)
    return float(low), float(high)


def tpr_interval(members: Array, others: Array, fpr: float) -> tuple[float, float]:
    """Return a 95% interval of the TPR at the threshold that exactly fpr of the *population* of non-members exceed.

    The stratified bootstrap of TPR at FPR has a closed law: the resampled threshold is an order statistic of Beta rank,
    and the members above it are binomial. It is degenerate at 0 members above, and covers too seldom where few
    non-members lie above the threshold. This is its dual, which needs no resampling either: the population's threshold
    has K ~ Binomial(n, fpr) of the n non-members above it (exact), hence between c(K) and c(K+1) members, taken as
    equally likely; the rate given that count has Jeffreys' Beta(c + 1/2, P - c + 1/2). The ends are widened to the
    estimate where they miss it. As wide as the bootstrap at n = 10,000. Coverage in 600 draws of each of four pairs of
    normal distributions: 0.945-0.983 for fpr * n >= 10 (bootstrap 0.92-0.98), 0.98-1.00 for fpr * n <= 1 (bootstrap
    0.37-0.96). Where fewer than about ten members or non-members are above it covers more, because counts are whole.

    Args:
        members: (P,) ascending.
        others: (n,) ascending.
        fpr: In [0, 1).
    """
    rng = np.random.default_rng(0)
    edges = np.concatenate([[-np.inf], others, [np.inf]])
    above = rng.binomial(len(others), fpr, DRAWS)
    most = count_above(members, edges[len(others) - above])
    least = count_above(members, edges[len(others) + 1 - above])
    count = rng.integers(least, most, endpoint=True)
    low, high = np.quantile(rng.beta(count + 0.5, len(members) - count + 0.5), TAILS)
    found = int(count_above(members, threshold(others, fpr)))
    rate = found / len(members)
    return (0.0 if found == 0 else min(float(low), rate)), (1.0 if found == len(members) else max(float(high), rate))


def rate_interval(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a rate, `count` of `total`."""
    z = float(ndtri(TAILS[1]))
    rate = count / total
    middle = (rate + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * float(np.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2))
    return max(0.0, middle - reach), min(1.0, middle + reach)
