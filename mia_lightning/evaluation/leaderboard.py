"""A challenge's ranking: who is better than whom, as far as the records can tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.comparison import differences, paired_bootstrap
from mia_lightning.metrics.ranks import Array, Membership
from mia_lightning.metrics.roc import Evaluation, evaluate


@dataclass(frozen=True)
class Place:
    """One submission's place."""

    name: str
    rank: int
    """1 = best by TPR, then AUC; equal in both figures, equal in rank."""

    group: int
    """1 = best; neighbors whose difference in TPR has an interval that includes 0 share a group."""

    tied: tuple[str, ...]
    """Submissions with exactly the same TPR and AUC."""

    found: Evaluation
    """Figures, with the TPR as their only point."""

    behind: float | None
    """TPR of the next better submission minus this one's; None for the first."""

    behind_low: float | None
    """95% interval of the paired bootstrap."""

    behind_high: float | None


def rank_submissions(
    scores: Mapping[str, Array], member: Membership, fpr: float, *, resamples: int = 1000, seed: int = 0
) -> tuple[Place, ...]:
    """Rank submissions by TPR at one FPR, then by AUC.

    A group ends where two neighbors surely differ; within one, the order may be chance.

    Args:
        scores: Submission to (N,) finite scores on the same records.
        member: (N,) 1 or 0.
        fpr: In [0, 1).
        resamples: Paired, at least 100.
        seed: Drives the resamples.

    Raises:
        MIAError: no submissions, too few resamples, or as `metrics.evaluate`.
    """
    if not scores:
        raise MIAError("there are no submissions to rank; name one or more files of ids and score")
    if resamples < 100:
        raise MIAError(f"{resamples} resamples are too few for an interval; give --resamples 100 or more")
    found = {name: evaluate(values, member, (fpr,)) for name, values in scores.items()}
    figures = {name: (value.at(float(fpr)).tpr, value.auc) for name, value in found.items()}
    ordered = sorted(scores, key=lambda name: (*(-figure for figure in figures[name]), name))
    pairs = list(pairwise(ordered))
    resampled = paired_bootstrap(scores, member, (fpr,), resamples=resamples, seed=seed)
    gaps = [gap for gap in differences(resampled, pairs) if gap.figure != "auc"]
    places: list[Place] = []
    for index, name in enumerate(ordered):
        gap = gaps[index - 1] if index else None
        same = bool(places) and figures[places[-1].name] == figures[name]
        apart = gap is not None and gap.low > 0
        places.append(
            Place(
                name=name,
                rank=places[-1].rank if same else index + 1,
                group=places[-1].group + int(apart and not same) if places else 1,
                tied=tuple(other for other in ordered if other != name and figures[other] == figures[name]),
                found=found[name],
                behind=None if gap is None else gap.value,
                behind_low=None if gap is None else gap.low,
                behind_high=None if gap is None else gap.high,
            )
        )
    return tuple(places)
