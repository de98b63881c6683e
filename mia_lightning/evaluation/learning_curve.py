"""Learning curve: figures of each score by number of reference models."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import CurvePoint
from mia_lightning.metrics.roc import evaluate
from mia_lightning.references.columns import score_columns
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores import ReferenceScore


def learning_curve(
    scores: Mapping[str, ReferenceScore],
    reference_outputs: ReferenceOutputs,
    member: NDArray[np.int8],
    *,
    fpr: float = 0.01,
    full_scores: Mapping[str, NDArray[np.floating]] | None = None,
    groups: NDArray[np.generic] | None = None,
) -> dict[str, tuple[CurvePoint, ...]]:
    """Evaluate scores of the first 2, 4, 8, ... references and of all, on records of known membership.

    References are drawn in complementary pairs, so that an even number of them has every record IN half of them. A
    number that a score cannot work with is left out of its curve. Nothing is fitted on membership; the points of a
    curve share their records and most of their references, so their intervals must not be compared as if independent.

    Args:
        scores: Name to score.
        reference_outputs: phi of N records under K references.
        member: (M,) 1, 0 or -1 = unknown, of the first M <= N records.
        fpr: In [0, 1).
        full_scores: Name to the (N,) score of all K references, where that was computed before.
        groups: (M,) group of each record; None = independent records.

    Returns:
        Name to points, fewest references first; a score without any point is left out.
    """
    total = len(reference_outputs.references)
    counts = sorted({2**power for power in range(1, total.bit_length()) if 2**power <= total} | {total})
    rows = np.flatnonzero(member >= 0)
    curves: dict[str, list[CurvePoint]] = {name: [] for name in scores}
    for count in counts:
        first = reference_outputs.models(slice(count))
        for name, score in scores.items():
            try:
                values = (
                    full_scores[name]
                    if full_scores and count == total and name in full_scores
                    else score_columns(score, first)[""]
                )
            except MIAError:  # too few references for this score
                continue
            people = None if groups is None else groups[rows]
            curves[name].append(_point(np.asarray(values[rows], np.float64), member[rows], people, count, fpr))
    return {name: tuple(curve) for name, curve in curves.items() if curve}


def _point(
    scores: NDArray[np.float64], member: NDArray[np.int8], groups: NDArray[np.generic] | None, count: int, fpr: float
) -> CurvePoint:
    evaluation = evaluate(scores, member, (fpr,), groups=groups)  # nothing is fitted on membership
    point = evaluation.points[0]
    return CurvePoint(
        references=count,
        auc=evaluation.auc,
        auc_low=evaluation.auc_low,
        auc_high=evaluation.auc_high,
        fpr=fpr,
        tpr=point.tpr,
        tpr_low=point.low,
        tpr_high=point.high,
    )
