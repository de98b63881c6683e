"""Lower bounds on epsilon from an attack's success, each with what it takes to be a statement about privacy.

If training is (epsilon, delta)-differentially private, any test of membership obeys TPR <= e^epsilon FPR + delta and
TNR <= e^epsilon FNR + delta (Kairouz et al. 2015). Rates that break this with confidence refute every smaller epsilon.
"""

from collections.abc import Callable
from math import exp

import numpy as np
from scipy.special import expit, log_ndtr, ndtr, ndtri

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Bound
from mia_lightning.evaluation.config import OneRun
from mia_lightning.metrics.ranks import Array, Membership

ONE_IN = 20
"""The one-run audit guesses a twentieth of the canaries in and a twentieth out, unless told otherwise beforehand."""


FAIR_COINS = (
    "Each record was put into training by its own fair coin, the records and the numbers of guesses were fixed before "
    "any score was seen, and no score was made with the membership of these records."
)


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
    if not declared.random_inclusion:
        return "it is not declared that fair coins put the records into training; see --one_run.random_inclusion"
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


def _check_counts(canaries: int, guesses: int, correct: int) -> None:
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise MIAError(f"{correct} correct of {guesses} guesses on {canaries} canaries is impossible; check the counts")
