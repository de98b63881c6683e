"""Lower bounds on epsilon from an attack's success, each with what it takes to be a statement about privacy.

If training is (epsilon, delta)-differentially private, any test of membership obeys TPR <= e^epsilon FPR + delta and
TNR <= e^epsilon FNR + delta (Kairouz et al. 2015). Rates that break this with confidence refute every smaller epsilon.
"""

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Bound
from mia_lightning.evaluation.config import OneRun
from mia_lightning.evaluation.epsilon import _EMPIRICAL, _empirical
from mia_lightning.evaluation.one_run import _one_run
from mia_lightning.metrics.ranks import Array, Membership, split


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


def _check(delta: float, confidence: float) -> None:
    if not 0 <= delta < 1:
        raise MIAError(f"delta must lie in [0, 1), got {delta}")
    if not 0 < confidence < 1:
        raise MIAError(f"confidence must lie in (0, 1), got {confidence}")
