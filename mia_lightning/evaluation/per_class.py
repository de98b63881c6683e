"""Figures of one attack by class, at one threshold for all classes."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import ClassMetrics
from mia_lightning.metrics.intervals import rate_interval
from mia_lightning.metrics.ranks import Membership, Scores, split, threshold
from mia_lightning.metrics.roc import evaluate


def per_class_metrics(
    scores: Scores, member: Membership, labels: NDArray[np.int64], *, fpr: float
) -> tuple[ClassMetrics, ...]:
    """Return AUC, TPR and FPR within each class, classes ascending.

    Args:
        scores: (N,) finite, higher = more likely a member.
        member: (N,) 1 or 0, both present.
        labels: (N,) classes.
        fpr: In [0, 1); sets one threshold over all records, at which each class is evaluated.

    Raises:
        MIAError: as `metrics.evaluate`.
    """
    scores, sides = np.asarray(scores, dtype=np.float64), np.asarray(member, dtype=np.int8)
    level = threshold(split(scores, sides)[1], fpr)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return tuple(_one_class(int(labels[rows[0]]), scores[rows], sides[rows], level) for rows in np.split(order, starts))


def _one_class(label: int, scores: Scores, member: Membership, level: float) -> ClassMetrics:
    members, non_members = int((member == 1).sum()), int((member == 0).sum())
    evaluation = evaluate(scores, member, ()) if members and non_members else None
    above = int((scores[member == 1] > level).sum())
    reach = rate_interval(above, members) if members else (None, None)
    return ClassMetrics(
        label=label,
        members=members,
        non_members=non_members,
        auc=evaluation.auc if evaluation else None,
        auc_low=evaluation.auc_low if evaluation else None,
        auc_high=evaluation.auc_high if evaluation else None,
        tpr=above / members if members else None,
        tpr_low=reach[0],
        tpr_high=reach[1],
        fpr=float((scores[member == 0] > level).mean()) if non_members else None,
    )
