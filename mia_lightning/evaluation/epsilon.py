"""Lower bounds on epsilon from counts above thresholds.

If training is (epsilon, delta)-differentially private, any test of membership obeys TPR <= e^epsilon FPR + delta and
TNR <= e^epsilon FNR + delta (Kairouz et al. 2015). Rates that break this with confidence refute every smaller epsilon.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, betaincinv

from mia_lightning.evaluation.assessment import Bound
from mia_lightning.metrics.ranks import Array, count_above

MANY_RUNS = (
    "Count-based bounds: the records are independent trials. From one model on natural records this is an empirical "
    "epsilon, a measure of the attack's success and not a statement about differential privacy."
)


def exact_epsilon(members: Array, non_members: Array, *, delta: float, error: float) -> float:
    """Return the best exact bound over thresholds at fixed ranks of the non-members, each at error / (number of ranks).

    A threshold at the (k+1)-th largest of n non-members has an FPR with the law Beta(k + 1, n - k), whatever their
    distribution, and members above it are binomial with a TPR of at most g(FPR), where g(q) is the smaller of
    e^epsilon q + delta and 1 - e^-epsilon (1 - q - delta). The probability of as many members above as observed is
    therefore at most the mean of a binomial tail over that law: one exact test without a nuisance parameter, where two
    Clopper-Pearson intervals would pay for each rate. Ties lower the FPR, so that the bound stays valid.

    Args:
        members: (P,) ascending.
        non_members: (n,) ascending.
        delta: In [0, 1).
        error: Probability that the bound is too high, at most.
    """
    ranks = fixed_ranks(len(non_members))
    above = count_above(members, non_members[len(non_members) - 1 - ranks])
    level = error / len(ranks)
    bounds = [
        _largest_refuted_at_rank(int(k), int(t), len(members), len(non_members), delta, level)
        for k, t in zip(ranks, above, strict=True)
        if t / len(members) > k / len(non_members)
    ]
    return max(bounds, default=0.0)


NODES = 60
"""Nodes of the mean over the law of the FPR."""


def _largest_refuted_at_rank(k: int, above: int, n_members: int, n_others: int, delta: float, level: float) -> float:
    shares, weights = _midpoints()
    fpr = betaincinv(k + 1, n_others - k, shares)

    def refuted(epsilon: float) -> bool:
        with np.errstate(over="ignore"):
            tpr = np.minimum(np.exp(epsilon) * fpr + delta, 1 - np.exp(-epsilon) * (1 - fpr - delta))
        tail = bdtrc(above - 1, n_members, np.clip(tpr, 0, 1)) if above > 0 else np.ones(len(fpr))
        return bool((weights * tail).sum() <= level)

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high) and high < 64:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _midpoints() -> tuple[Array, Array]:
    """Return quantile levels and weights of a law cut into intervals of growing fineness toward both ends.

    Each interval is represented by its upper end, so that a mean of a growing function is never too small.
    """
    fine = np.geomspace(1e-7, 0.5, NODES // 2)
    edges = np.concatenate([[0.0], fine, 1 - fine[-2::-1], [1.0]])
    upper = np.minimum(edges[1:], 1 - 1e-12)
    return upper, np.diff(edges)


def fixed_ranks(count: int) -> NDArray[np.int64]:
    """Return 0, 1, 2, 4, ... false positives and the same from the other end, all below `count`."""
    steps = np.concatenate([[0], 2 ** np.arange(count.bit_length())])
    return np.unique(np.concatenate([steps[steps < count], count - 1 - steps[steps < count]]))


EXACT = "exact test at fixed ranks"


def empirical_bound(attack: str, members: Array, non_members: Array, delta: float, confidence: float) -> Bound:
    """Return the bound of one attack, refused where even perfect scores would refute no epsilon.

    Args:
        attack: Its name.
        members: (P,) ascending.
        non_members: (n,) ascending.
        delta: In [0, 1).
        confidence: In (0, 1).
    """
    error = 1 - confidence
    perfect = exact_epsilon(np.ones(len(members)), np.zeros(len(non_members)), delta=delta, error=error)
    epsilon = refusal = None
    if perfect > 0:
        epsilon = exact_epsilon(members, non_members, delta=delta, error=error)
    else:
        refusal = (
            f"too few records: with {len(members)} members and {len(non_members)} non-members even perfect scores "
            "would refute no epsilon"
        )
    return Bound(attack, EXACT, epsilon, delta, confidence, MANY_RUNS, refusal)
