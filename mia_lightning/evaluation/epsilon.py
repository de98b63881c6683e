"""Lower bounds on epsilon from an attack's success, each with what it takes to be a statement about privacy.

If training is (epsilon, delta)-differentially private, any test of membership obeys TPR <= e^epsilon FPR + delta and
TNR <= e^epsilon FNR + delta (Kairouz et al. 2015). Rates that break this with confidence refute every smaller epsilon.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from mia_lightning.evaluation.assessment import Bound
from mia_lightning.metrics.ranks import Array, count_above

SPLITS = 21
"""Of the multi-split bound; odd, so that the median is one of them."""


MANY_RUNS = (
    "The records count as independent trials. From one model on natural records this is an empirical epsilon, a "
    "measure of what the attack shows, and no statement about differential privacy."
)


def clopper_pearson(count: int | NDArray[np.integer], total: int, error: float) -> tuple[Array, Array]:
    """Return the one-sided exact lower and upper bound of a rate, each missed with probability `error` at most."""
    count = np.asarray(count)
    low = np.where(count > 0, betaincinv(np.maximum(count, 1), total - count + 1, error), 0.0)
    high = np.where(count < total, betaincinv(count + 1, np.maximum(total - count, 1), 1 - error), 1.0)
    return low, high


def epsilon_from_counts(
    true_positives: int | NDArray[np.integer],
    n_members: int,
    false_positives: int | NDArray[np.integer],
    n_non_members: int,
    *,
    delta: float = 0.0,
    error: float = 0.05,
) -> Array:
    """Return the lower bound on epsilon of a fixed threshold, by Clopper-Pearson at error / 2 for each rate.

    Args:
        true_positives: Members above the threshold; one number or one per threshold.
        n_members: How many there are.
        false_positives: Non-members above.
        n_non_members: How many there are.
        delta: In [0, 1).
        error: Probability that the bound is too high, at most.
    """
    tpr_low, _ = clopper_pearson(true_positives, n_members, error / 2)
    _, fpr_high = clopper_pearson(false_positives, n_non_members, error / 2)
    ratio = np.maximum((tpr_low - delta) / fpr_high, (1 - fpr_high - delta) / (1 - tpr_low))
    return np.log(np.maximum(ratio, 1.0))


def bonferroni_epsilon(members: Array, others: Array, *, delta: float, error: float) -> float:
    """Return the best bound over thresholds at fixed ranks of the non-members, each at error / (number of ranks).

    Ranks grow by doubling from both ends. A threshold at the (k+1)-th largest non-member has an FPR of law
    Beta(k + 1, n - k), whose upper quantile is Clopper-Pearson's of k in n, and members above it are binomial: the
    bound is exact although the scores chose the threshold. Ties lower the FPR.

    Args:
        members: (P,) ascending.
        others: (n,) ascending.
        delta: In [0, 1).
        error: Probability that the bound is too high, at most.
    """
    ranks = fixed_ranks(len(others))
    above = count_above(members, others[len(others) - 1 - ranks])
    return float(
        epsilon_from_counts(above, len(members), ranks, len(others), delta=delta, error=error / len(ranks)).max()
    )


def split_epsilon(members: Array, others: Array, *, delta: float, error: float, rng: np.random.Generator) -> float:
    """Return the bound at the threshold that was best on a random half, evaluated on the other half.

    Args:
        members: (P,) ascending, P >= 2.
        others: (n,) ascending, n >= 2.
        delta: In [0, 1).
        error: Probability that the bound is too high, at most.
        rng: Draws the half.
    """
    (choose_in, judge_in), (choose_out, judge_out) = (_halves(side, rng) for side in (members, others))
    levels = choose_out[len(choose_out) - 1 - fixed_ranks(len(choose_out))]
    chosen = epsilon_from_counts(
        count_above(choose_in, levels), len(choose_in), count_above(choose_out, levels), len(choose_out), delta=delta
    )
    level = float(levels[int(chosen.argmax())])
    above = [int(count_above(side, level)) for side in (judge_in, judge_out)]
    return float(epsilon_from_counts(above[0], len(judge_in), above[1], len(judge_out), delta=delta, error=error))


def multi_split_epsilon(
    members: Array, others: Array, *, delta: float, error: float, rng: np.random.Generator, splits: int = SPLITS
) -> float:
    """Return the median of bounds from many splits, each at error / 2.

    If each is too high with probability error / 2, half of them are with probability error at most (Markov).
    """
    found = [split_epsilon(members, others, delta=delta, error=error / 2, rng=rng) for _ in range(splits)]
    return float(np.median(found))


def fixed_ranks(count: int) -> NDArray[np.int64]:
    """Return 0, 1, 2, 4, ... false positives and the same from the other end, all below `count`."""
    steps = np.concatenate([[0], 2 ** np.arange(count.bit_length())])
    return np.unique(np.concatenate([steps[steps < count], count - 1 - steps[steps < count]]))


def _bonferroni(members: Array, others: Array, delta: float, error: float, rng: np.random.Generator) -> float:
    return bonferroni_epsilon(members, others, delta=delta, error=error)


def _split(members: Array, others: Array, delta: float, error: float, rng: np.random.Generator) -> float:
    return split_epsilon(members, others, delta=delta, error=error, rng=rng)


def _multi_split(members: Array, others: Array, delta: float, error: float, rng: np.random.Generator) -> float:
    return multi_split_epsilon(members, others, delta=delta, error=error, rng=rng)


_EMPIRICAL = {
    "Clopper-Pearson, Bonferroni": _bonferroni,
    "Clopper-Pearson, split": _split,
    f"Clopper-Pearson, median of {SPLITS} splits": _multi_split,
}


def _empirical(
    attack: str, members: Array, others: Array, name: str, delta: float, confidence: float, seed: int
) -> Bound:
    error = 1 - confidence
    half = min(len(members), len(others)) // 2
    perfect = float(epsilon_from_counts(half, half, 0, half, delta=delta, error=error / 2)) if half else 0.0
    epsilon = refusal = None
    if perfect > 0:
        epsilon = _EMPIRICAL[name](members, others, delta, error, np.random.default_rng(seed))
    else:
        refusal = (
            f"too few records: with {len(members)} members and {len(others)} non-members even an attack without a "
            "mistake would refute no epsilon"
        )
    return Bound(attack, name, epsilon, delta, confidence, MANY_RUNS, refusal)


def _halves(side: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    picked = np.zeros(len(side), dtype=bool)
    picked[rng.permutation(len(side))[: len(side) // 2]] = True
    return side[picked], side[~picked]
