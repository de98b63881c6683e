"""Leaderboard of a challenge: submissions by TPR, with simultaneous intervals of their ranks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.comparison import Bootstrap, paired_bootstrap
from mia_lightning.metrics.ranks import Array, Membership
from mia_lightning.metrics.roc import Evaluation, evaluate


@dataclass(frozen=True)
class Place:
    """Place of one submission."""

    name: str

    rank: int
    """1 = best by TPR, then AUC; equal ranks for equal figures."""

    rank_low: int
    """Best rank that is compatible with the records, at 95% for all submissions together."""

    rank_high: int
    """Worst such rank."""

    tied: tuple[str, ...]
    """Submissions with exactly the same TPR and AUC."""

    evaluation: Evaluation
    """Figures, with the TPR as their only point."""

    gap_to_next: float | None
    """TPR of this submission minus that of the next one in rank; None for the last."""

    gap_low: float | None
    """95% interval of that gap alone (paired bootstrap); None where the rate allows no false positive."""

    gap_high: float | None


def rank_submissions(
    scores: Mapping[str, Array], member: Membership, fpr: float, *, resamples: int = 1000, seed: int = 0
) -> tuple[Place, ...]:
    """Rank submissions by TPR at one FPR, then by AUC.

    Intervals of ranks follow from simultaneous intervals of all paired differences (Mogstad, Romano, Shaikh & Wilhelm
    2024): a submission's best rank is 1 + the number of submissions that are better for certain, its worst rank the
    number of submissions minus those that are worse for certain. Where the rate allows no false positive, the bootstrap
    of the highest non-member is inconsistent (six equal submissions were separated in 30% of samples): no submission is
    then better for certain, and gaps have no interval. Results do not depend on the order of the records.

    Args:
        scores: Submission to (N,) finite scores on the same records.
        member: (N,) 1 or 0.
        fpr: In [0, 1).
        resamples: Paired bootstrap resamples, at least 100.
        seed: Random seed of the resamples.

    Raises:
        MIAError: no submissions, too few resamples, or as `metrics.evaluate`.
    """
    if not scores:
        raise MIAError("there are no submissions to rank; name one or more files of ids and score")
    if resamples < 100:
        raise MIAError(f"{resamples} resamples are too few for an interval; give --resamples 100 or more")
    evaluations = {name: evaluate(values, member, (fpr,)) for name, values in scores.items()}
    figures = {name: (value.at(float(fpr)).tpr, value.auc) for name, value in evaluations.items()}
    ranked = sorted(scores, key=lambda name: (*(-figure for figure in figures[name]), name))
    order = np.lexsort([np.asarray(member), *(scores[name] for name in ranked)])
    bootstrap = paired_bootstrap(
        {name: scores[name][order] for name in ranked},
        np.asarray(member, dtype=np.int8)[order],
        (fpr,),
        resamples=resamples,
        seed=seed,
    )
    resolvable = evaluations[ranked[0]].points[0].resolvable
    better = _better(bootstrap) & resolvable
    gaps = [_gap(bootstrap, index) for index in range(len(ranked))]
    if not resolvable:
        gaps = [(gap, None, None) for gap, _, _ in gaps]
    return tuple(
        Place(
            name=name,
            rank=1 + sum(figures[other] > figures[name] for other in ranked),
            rank_low=1 + int(better[:, index].sum()),
            rank_high=len(ranked) - int(better[index].sum()),
            tied=tuple(other for other in ranked if other != name and figures[other] == figures[name]),
            evaluation=evaluations[name],
            gap_to_next=gaps[index][0],
            gap_low=gaps[index][1],
            gap_high=gaps[index][2],
        )
        for index, name in enumerate(ranked)
    )


def _better(bootstrap: Bootstrap) -> NDArray[np.bool_]:
    """Return (A, A) True where the first submission's TPR is above the second's, at 95% for all pairs together.

    The critical value is the 95% quantile of the largest studentized deviation over all pairs (max-T bootstrap).
    """
    tprs, resampled = bootstrap.estimates[:, 1], bootstrap.resampled[:, :, 1]
    differences = tprs[:, None] - tprs[None]
    count = len(tprs)
    spread = np.zeros((count, count))
    largest = np.zeros(len(resampled))
    for first in range(count):  # one submission against all at a time, so that memory stays small
        deviations = (resampled[:, first, None] - resampled) - differences[first]
        spread[first] = deviations.std(axis=0, ddof=1)
        moves = spread[first] > 0
        if moves.any():
            largest = np.maximum(largest, np.abs(deviations[:, moves] / spread[first, moves]).max(axis=1))
    critical = float(np.quantile(largest, 0.95))
    result: NDArray[np.bool_] = differences > critical * spread
    return result


def _gap(bootstrap: Bootstrap, index: int) -> tuple[float | None, float | None, float | None]:
    if index + 1 == len(bootstrap.names):
        return None, None, None
    tprs, resampled = bootstrap.estimates[:, 1], bootstrap.resampled[:, :, 1]
    low, high = np.quantile(resampled[:, index] - resampled[:, index + 1], (0.025, 0.975))
    return float(tprs[index] - tprs[index + 1]), float(low), float(high)
