"""Lower bounds on epsilon from one training run with random inclusion of the records."""

from collections.abc import Callable
from math import exp

import numpy as np
from scipy.special import expit, log_ndtr, ndtr, ndtri

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Bound
from mia_lightning.evaluation.config import OneRun
from mia_lightning.metrics.ranks import Array, Membership

PRESETS = (1 / 20, 1 / 6, 9 / 20)
"""The one-run audit guesses these shares of the records in and as many out, each at a third of the error, unless the
numbers are given. The largest leaves room for coins that come out uneven."""


RANDOM_INCLUSION = (
    "One run: each record was put into training independently with probability 1/2, the records and the "
    "numbers of guesses were fixed before any score was seen, and no score was "
    "made with the membership of these records."
)


def one_run_epsilon(canaries: int, guesses: int, correct: int, *, delta: float, error: float = 0.05) -> float:
    """Return the lower bound on epsilon of one training run (Steinke, Nasr & Jagielski 2023, theorem 5.2).

    Args:
        canaries: m, each put into training independently with probability 1/2.
        guesses: r <= m, the others abstained from.
        correct: v <= r.
        delta: In [0, 1).
        error: Probability that the bound is too high, at most.

    Raises:
        MIAError: counts out of order.
    """
    _check_counts(canaries, guesses, correct)
    return _largest_refuted(lambda epsilon: _one_run_p_value(canaries, guesses, correct, epsilon, delta) < error)


def one_run_gaussian_epsilon(canaries: int, guesses: int, correct: int, *, delta: float, error: float = 0.05) -> float:
    """Return epsilon at delta of the smallest Gaussian mechanism not refuted (Mahloujifar, Melis & Chaudhuri 2024).

    A bound for mechanisms that are mu-GDP for some mu only: randomized response and other mechanisms can have a smaller
    epsilon. `one_run_f_dp_epsilon` holds for all.

    Args:
        canaries: m, each put into training independently with probability 1/2.
        guesses: r <= m, the others abstained from.
        correct: v <= r.
        delta: In (0, 1).
        error: Probability that the bound is too high, at most.

    Raises:
        MIAError: counts out of order, or delta is 0, where no Gaussian mechanism has a finite epsilon.
    """
    _check_counts(canaries, guesses, correct)
    if delta <= 0:
        raise MIAError("the Gaussian audit needs a delta above 0; a Gaussian mechanism has no epsilon at delta 0")

    def refuted(mu: float) -> bool:
        return _refutes(canaries, guesses, correct, lambda a: float(ndtr(ndtri(a) - mu)), error)

    return gaussian_epsilon(_largest_refuted(refuted), delta)


def one_run_f_dp_epsilon(canaries: int, guesses: int, correct: int, *, delta: float, error: float = 0.05) -> float:
    """Return the smallest epsilon whose (epsilon, delta) trade-off function is not refuted.

    The test of Mahloujifar, Melis & Chaudhuri (2024, theorem 3.2 and algorithm 3) with f(a) = max(0, 1 - delta -
    e^epsilon a, e^-epsilon (1 - delta - a)), the trade-off function of (epsilon, delta)-DP: every such mechanism is
    f-DP for it, so that the bound holds for any mechanism.

    Args:
        canaries: m, each put into training independently with probability 1/2.
        guesses: r <= m, the others abstained from.
        correct: v <= r.
        delta: In [0, 1).
        error: Probability that the bound is too high, at most.

    Raises:
        MIAError: counts out of order.
    """
    _check_counts(canaries, guesses, correct)

    def refuted(epsilon: float) -> bool:
        def least(a: float) -> float:  # f(1 - a)
            steep = -np.inf if a == 0 and epsilon > 700 else 1 - delta - exp(min(epsilon, 700)) * (1 - a)
            return max(0.0, steep, exp(-epsilon) * (a - delta))

        return _refutes(canaries, guesses, correct, least, error)

    return _largest_refuted(refuted)


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


def _refutes(m: int, r: int, v: int, least: Callable[[float], float], p: float) -> bool:
    """Return whether v or more correct guesses have a probability below p under f-DP, `least(a)` being f(1 - a)."""
    a, b = p * v / m, p * (r - v) / m
    for i in range(v - 1, -1, -1):
        raised = max(b, least(a))
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


STEINKE = "one run (Steinke et al. 2023)"
F_DP = "one run, any f-DP mechanism (Mahloujifar et al. 2024)"
GAUSSIAN = "one run, if the mechanism is Gaussian (Mahloujifar et al. 2024)"


def one_run_bounds(
    attack: str, scores: Array, member: Membership, delta: float, confidence: float, seed: int, declared: OneRun
) -> list[Bound]:
    """Return the bounds of one training run, refused where its assumptions are not declared or do not hold."""
    methods = {STEINKE: one_run_epsilon, F_DP: one_run_f_dp_epsilon, GAUSSIAN: one_run_gaussian_epsilon}
    presets = _guesses(len(scores), declared)
    refusal = next((why for preset in presets if (why := _one_run_refusal(member, declared, preset))), None)
    bounds = []
    for name, method in methods.items():
        epsilon, why, assumptions = None, refusal, RANDOM_INCLUSION
        if name == GAUSSIAN:
            assumptions += (
                " One run, if the mechanism is Gaussian: it is mu-GDP for some mu, as DP-SGD nearly is; for any other "
                "mechanism this figure is not a bound on epsilon."
            )
            why = why or (
                "a Gaussian mechanism has no epsilon at delta 0; give --delta above 0" if delta == 0 else None
            )
        if why is None:
            error = (1 - confidence) / len(presets)
            epsilon = max(
                method(len(scores), sum(g), _correct_guesses(scores, member, *g, seed), delta=delta, error=error)
                for g in presets
            )
        bounds.append(Bound(attack, name, epsilon, delta, confidence, assumptions, why))
    return bounds


def _guesses(records: int, declared: OneRun) -> list[tuple[int, int]]:
    """Return the numbers of guesses in and out: those declared, or every preset."""
    given = (declared.guesses_in, declared.guesses_out)
    shares = PRESETS if given == (None, None) else PRESETS[:1]
    filled = ([max(1, int(records * share)) if count is None else count for count in given] for share in shares)
    return list(dict.fromkeys((in_, out) for in_, out in filled))


def _one_run_refusal(member: Membership, declared: OneRun, guesses: tuple[int, int]) -> str | None:
    if not declared.random_inclusion:
        return (
            "independent random inclusion of the records is not declared; give --one_run.random_inclusion true if it "
            "holds"
        )
    if min(guesses) < 0 or not 1 <= sum(guesses) <= len(member):
        return f"{guesses[0]} guesses in and {guesses[1]} guesses out do not fit {len(member)} records"
    from scipy.stats import binomtest

    members = int((np.asarray(member) == 1).sum())
    p_value = float(binomtest(members, len(member)).pvalue)
    if p_value < 1e-3:
        return f"{members} members of {len(member)} records are unlikely under random inclusion (p = {p_value:.1g})"
    return None


def _correct_guesses(scores: Array, member: Membership, guesses_in: int, guesses_out: int, seed: int) -> int:
    """Count the right ones among the highest and lowest scores; ties in random order."""
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), scores))
    ranked = np.asarray(member)[order] == 1
    return int(ranked[len(ranked) - guesses_in :].sum()) + int((~ranked[:guesses_out]).sum())


def _check_counts(canaries: int, guesses: int, correct: int) -> None:
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise MIAError(f"{correct} correct of {guesses} guesses on {canaries} canaries is impossible; check the counts")
