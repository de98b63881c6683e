"""Forecast of four reference models from a run without any.

What references add is measured, not derived: nine targets were attacked without references and with four of their own
recipe, by the same learners. None of their TPR, gap and accuracy predicted the rise of the TPR, on the scale of normal
quantiles, better than its mean did. The interval is that of a new target.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from mia_lightning.metrics.intervals import TAILS
from mia_lightning.planning.plan import Forecast, Plan

REFERENCES, TARGETS = 4, 9
"""References of each measured target, and how many targets."""

SHIFTS = {0.05: (0.521, 0.215), 0.01: (0.598, 0.306)}
"""False-positive rate to mean and standard deviation, over targets, of the rise of the normal quantile of the TPR."""

BASIS = (
    f"measured on {TARGETS} targets (eight kinds of small networks on 2,000 to 3,000 records, one resnet18 on 40,000) "
    f"with {REFERENCES} references of the target's own recipe; the interval is that of a new target"
)


def plans_without_references(attack: str, evaluation: Mapping[str, Any]) -> tuple[Plan, ...]:
    """Return a plan for each measured false-positive rate that the run resolves.

    Args:
        attack: Name of the attack whose figures are forecast.
        evaluation: Its figures as in metrics.json.

    Raises:
        KeyError, TypeError, ValueError: these are not figures of an attack.
    """
    half = 0.5 / float(evaluation["n_members"])
    points = [point for point in evaluation["points"] if point["fpr"] in SHIFTS and point["resolvable"]]
    return tuple(
        _plan(attack, point["fpr"], *(float(np.clip(point[name], half, 1 - half)) for name in ("tpr", "low", "high")))
        for point in points
    )


def _plan(attack: str, fpr: float, tpr: float, tpr_low: float, tpr_high: float) -> Plan:
    mean, deviation = SHIFTS[fpr]
    width = float(stdtrit(TARGETS - 1, TAILS[1])) * deviation * np.sqrt(1 + 1 / TARGETS)
    level = float(ndtri(tpr))
    low, high = (np.hypot(width, ndtri(end) - level) for end in (tpr_low, tpr_high))
    value, gain_low, gain_high = (float(ndtr(level + shift)) - tpr for shift in (mean, mean - width, mean + width))
    row = Forecast(
        references=REFERENCES,
        tpr=tpr + value,
        low=float(ndtr(level + mean - low)),
        high=float(ndtr(level + mean + high)),
        gain=value,
        gain_low=gain_low,
        gain_high=gain_high,
        hours=None,
    )
    return Plan(attack, fpr, 0, tpr, (row,))
