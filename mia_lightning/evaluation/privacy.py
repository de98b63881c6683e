"""Lower bounds on epsilon from an attack's success, each with its assumptions.

If training is (epsilon, delta)-differentially private, any test of membership obeys TPR <= e^epsilon FPR + delta and
TNR <= e^epsilon FNR + delta (Kairouz et al. 2015). Rates that break this with confidence refute every smaller epsilon.
"""

from collections.abc import Mapping
from dataclasses import replace

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Bound
from mia_lightning.evaluation.config import BoundName, OneRun
from mia_lightning.evaluation.epsilon import EXACT, empirical_bound
from mia_lightning.evaluation.one_run import F_DP, GAUSSIAN, STEINKE, one_run_bounds
from mia_lightning.metrics.ranks import Array, Membership, split, without_ties


def privacy_bounds(
    attack: str,
    scores: Array,
    member: Membership,
    *,
    delta: float,
    confidence: float = 0.95,
    seed: int = 0,
    one_run: OneRun | None = None,
    reported: BoundName = "counts",
) -> tuple[Bound, ...]:
    """Return every bound of one attack; a bound whose assumptions are violated has a refusal and no epsilon.

    Args:
        attack: Its name.
        scores: (N,) finite, higher = more likely a member.
        member: (N,) 1 or 0, both present.
        delta: In [0, 1).
        confidence: In (0, 1); of each bound alone, not of all of them together.
        seed: Random seed that breaks ties.
        one_run: Declarations about the records.
        reported: Bound declared beforehand.

    Raises:
        MIAError: delta or confidence out of range, or as `metrics.evaluate`.
    """
    _check(delta, confidence)
    split(scores, member)  # checks
    members, non_members = split(without_ties(scores, seed), member)  # valid, and coarse scores inform like fine ones
    counted = empirical_bound(attack, members, non_members, delta, confidence)
    bounds = (counted, *one_run_bounds(attack, scores, member, delta, confidence, seed, one_run or OneRun()))
    return tuple(replace(bound, reported=bound.method == METHODS[reported]) for bound in bounds)


METHODS: Mapping[BoundName, str] = {
    "counts": EXACT,
    "one_run": STEINKE,
    "one_run_f_dp": F_DP,
    "one_run_gaussian": GAUSSIAN,
}
"""Name of a bound as an option, and in a report."""


def _check(delta: float, confidence: float) -> None:
    if not 0 <= delta < 1:
        raise MIAError(f"delta must lie in [0, 1), got {delta}")
    if not 0 < confidence < 1:
        raise MIAError(f"confidence must lie in (0, 1), got {confidence}")
