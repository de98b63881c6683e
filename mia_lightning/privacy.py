"""Lower bounds on epsilon from an attack's success, each with what it takes to be a statement about privacy.

If training is (epsilon, delta)-differentially private, any test of membership obeys TPR <= e^epsilon FPR + delta and
TNR <= e^epsilon FNR + delta (Kairouz et al. 2015). Rates that break this with confidence refute every smaller epsilon.
"""

from collections.abc import Callable
from math import exp

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, log_ndtr, ndtr, ndtri

from mia_lightning.assessment import Bound
from mia_lightning.errors import MIAError
from mia_lightning.evaluation_config import OneRun
from mia_lightning.ranks import Array, Membership, count_above, split

SPLITS = 21
"""Of the multi-split bound; odd, so that the median is one of them."""

ONE_IN = 20
"""The one-run audit guesses a twentieth of the canaries in and a twentieth out, unless told otherwise beforehand."""

MANY_RUNS = (
    "The records count as independent trials. From one model on natural records this is an empirical epsilon, a "
    "measure of what the attack shows, and no statement about differential privacy."
)
FAIR_COINS = (
    "Each record was put into training by its own fair coin, the records and the numbers of guesses were fixed before "
    "any score was seen, and no score was made with the membership of these records."
)


def privacy_bounds(
    attack: str,
    scores: Array,
    member: Membership,
    *,
    delta: float,
    confidence: float = 0.95,
    seed: int = 0,
    one_run: OneRun | None = None,
) -> tuple[Bound, ...]:
    """Return every bound of one attack; one whose assumptions are violated says so and has no epsilon.

    Args:
        attack: Its name.
        scores: (N,) finite, higher = more likely a member.
        member: (N,) 1 or 0, both present.
        delta: In [0, 1).
        confidence: In (0, 1); of each bound on its own, not of all of them together.
        seed: Drives the splits and breaks ties among one-run guesses.
        one_run: What is declared about the records.

    Raises:
        MIAError: delta or confidence out of range, or as `metrics.evaluate`.
    """
    _check(delta, confidence)
    members, others = split(scores, member)
    bounds = [_empirical(attack, members, others, name, delta, confidence, seed) for name in _EMPIRICAL]
    return (*bounds, *_one_run(attack, scores, member, delta, confidence, seed, one_run or OneRun()))


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


def one_run_epsilon(canaries: int, guesses: int, correct: int, *, delta: float, error: float = 0.05) -> float:
    """Return the lower bound on epsilon of one training run (Steinke, Nasr & Jagielski 2023, theorem 5.2).

    Args:
        canaries: m, each put into training by its own fair coin.
        guesses: r <= m, the others abstained from.
        correct: v <= r.
        delta: In [0, 1).
        error: Probability that the bound is too high, at most.

    Raises:
        MIAError: counts out of order.
    """
    _check_counts(canaries, guesses, correct)
    return _largest_refuted(lambda epsilon: _one_run_p_value(canaries, guesses, correct, epsilon, delta) < error)


def one_run_f_dp_epsilon(canaries: int, guesses: int, correct: int, *, delta: float, error: float = 0.05) -> float:
    """Return the same from the hypothesis of Gaussian privacy (Mahloujifar, Melis & Chaudhuri 2024), at a delta > 0.

    Every mu-GDP with a smaller mu than the one returned as epsilon is refuted; see `one_run_epsilon`.

    Raises:
        MIAError: counts out of order, or delta is 0, where no Gaussian mechanism has a finite epsilon.
    """
    _check_counts(canaries, guesses, correct)
    if delta <= 0:
        raise MIAError("the f-DP audit needs a delta above 0; a Gaussian mechanism has no epsilon at delta 0")
    mu = _largest_refuted(lambda mu: _refutes_gdp(canaries, guesses, correct, mu, error))
    return gaussian_epsilon(mu, delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon at which mu-GDP has this delta (Dong, Roth & Su 2022), 0 where delta covers it all."""
    if mu == 0:
        return 0.0

    def too_small(epsilon: float) -> bool:
        # the second term as an exponent, because e^epsilon overflows where its factor vanishes
        spent = ndtr(-epsilon / mu + mu / 2) - exp(epsilon + float(log_ndtr(-epsilon / mu - mu / 2)))
        return bool(spent > delta)

    return _largest_refuted(too_small)


def _one_run_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Return the largest probability of v or more correct guesses in r under (epsilon, delta)-DP."""
    from scipy.stats import binom  # slow to import

    at_least = binom.sf(np.arange(v - 1, -2, -1), r, expit(epsilon))  # of v, v-1, ..., 0 correct guesses
    beta = float(at_least[0])
    if delta == 0 or v == 0:
        return beta
    return beta + 2 * m * delta * float(((at_least[1:] - beta) / np.arange(1, v + 1)).max())


def _refutes_gdp(m: int, r: int, v: int, mu: float, p: float) -> bool:
    a, b = p * v / m, p * (r - v) / m
    for i in range(v - 1, -1, -1):
        raised = max(b, float(ndtr(ndtri(a) - mu)))
        if raised == b:
            break
        a, b = (min(1.0, a + i / (r - i) * (raised - b)), raised)
    return a + b > r / m


def _largest_refuted(refuted: Callable[[float], bool]) -> float:
    """Return the supremum of the values from 0 up that are refuted, by doubling and bisection; at most 2^10."""
    if not refuted(0.0):
        return 0.0
    high = 1.0
    while refuted(high) and high < 2**10:
        high *= 2
    low = 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


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


def _one_run(
    attack: str,
    scores: Array,
    member: Membership,
    delta: float,
    confidence: float,
    seed: int,
    declared: OneRun,
) -> list[Bound]:
    methods = {
        "one run (Steinke et al. 2023)": one_run_epsilon,
        "one run, f-DP (Mahloujifar et al. 2024)": one_run_f_dp_epsilon,
    }
    guesses = [
        max(1, len(scores) // ONE_IN) if count is None else count
        for count in (declared.guesses_in, declared.guesses_out)
    ]
    refusal = _one_run_refusal(member, declared, guesses)
    bounds = []
    for name, method in methods.items():
        epsilon, why, assumptions = None, refusal, FAIR_COINS
        if method is one_run_f_dp_epsilon:
            assumptions += " The mechanism is Gaussian-private for some mu, as DP-SGD nearly is."
            why = why or (
                "a Gaussian mechanism has no epsilon at delta 0; name a delta above 0" if delta == 0 else None
            )
        if why is None:
            correct = _correct_guesses(scores, member, guesses[0], guesses[1], seed)
            epsilon = method(len(scores), sum(guesses), correct, delta=delta, error=1 - confidence)
        bounds.append(Bound(attack, name, epsilon, delta, confidence, assumptions, why))
    return bounds


def _one_run_refusal(member: Membership, declared: OneRun, guesses: list[int]) -> str | None:
    if not declared.fair_coins:
        return "it is not declared that fair coins put the records into training; see --one_run.fair_coins"
    if min(guesses) < 0 or not 1 <= sum(guesses) <= len(member):
        return f"{guesses[0]} guesses in and {guesses[1]} guesses out do not fit {len(member)} records"
    from scipy.stats import binomtest

    inside = int((np.asarray(member) == 1).sum())
    p_value = float(binomtest(inside, len(member)).pvalue)
    if p_value < 1e-3:
        return f"{inside} members of {len(member)} records do not look like fair coins (p = {p_value:.1g})"
    return None


def _correct_guesses(scores: Array, member: Membership, guesses_in: int, guesses_out: int, seed: int) -> int:
    """Count the right ones among the highest and lowest scores; ties are ranked by lot."""
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), scores))
    ranked = np.asarray(member)[order] == 1
    return int(ranked[len(ranked) - guesses_in :].sum()) + int((~ranked[:guesses_out]).sum())


def _halves(side: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    picked = np.zeros(len(side), dtype=bool)
    picked[rng.permutation(len(side))[: len(side) // 2]] = True
    return side[picked], side[~picked]


def _check(delta: float, confidence: float) -> None:
    if not 0 <= delta < 1:
        raise MIAError(f"delta must lie in [0, 1), got {delta}")
    if not 0 < confidence < 1:
        raise MIAError(f"confidence must lie in (0, 1), got {confidence}")


def _check_counts(canaries: int, guesses: int, correct: int) -> None:
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise MIAError(f"{correct} correct of {guesses} guesses on {canaries} canaries is impossible; check the counts")
