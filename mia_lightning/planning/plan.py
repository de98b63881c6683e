"""Plan of reference models: TPR at more of them, with hours and intervals, from the learning curve of a run.

A score with K references is that of infinitely many plus noise whose variance falls as 1 / K, so that each doubling
gains less than the one before. How much less depends on the spread of the records' vulnerability: in simulations and on
small targets the ratio of neighboring gains is 0.3 to 1.1, at most about 1 over several doublings, and up to 1.4 below
eight references at an FPR of 1%. The forecast continues the last gain with a ratio of 0.7; its interval includes 0.3 to
1 (1.4 times that below eight references) and the sampling error of the last gain. No curve is fitted: curves that fit a
few points equally well differ by more than what they forecast at 64 references.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import CurvePoint
from mia_lightning.metrics.intervals import TAILS

NORMAL = float(ndtri(TAILS[1]))

RATIO, RATIOS = 0.7, (0.3, 1.0)
"""Gain of a doubling in that of the one before: of the forecast, and at the ends of its interval."""

EARLY, EARLY_RATIO = 8, 1.4
"""References below which gains can still grow at low false-positive rates, and the factor on the upper end then."""

WORTH = 0.005
"""Gain of the TPR below which more references are not worth their training."""

SHARED = 1.3
"""Standard deviation of the difference of two points of a curve, in that of one of them, at most: they share their
records, but not the noise of their references."""

COUNTS = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Forecast:
    """Figure of a score with a number of references."""

    references: int
    tpr: float
    low: float
    """95% interval."""

    high: float
    gain: float
    """Over the present number."""

    gain_low: float
    gain_high: float

    hours: float | None
    """Of training the references that are still missing; None where their time is unknown."""


@dataclass(frozen=True)
class Plan:
    """Forecasts of one score."""

    score: str
    fpr: float
    present: int
    """References of the run."""

    tpr: float
    forecasts: tuple[Forecast, ...]

    @property
    def advice(self) -> str:
        """Advice in a sentence."""
        rate = f"TPR at FPR {100 * self.fpr:g}%"
        worth, gain = None, 0.0
        for row in self.forecasts:
            if row.gain - gain < WORTH:
                break
            worth, gain = row, row.gain
        if worth is not None:
            cost = "" if worth.hours is None else f" for {worth.hours:.2g} hours"
            ends = f"{worth.gain_low:+.3f} to {worth.gain_high:+.3f}"
            more = "up to " if self.present else ""
            return f"train {more}{worth.references} references: {gain:+.3f} ({ends}) of {rate}{cost}"
        sentence = f"stop: twice the references bring less than {WORTH:g} of {rate}"
        if self.forecasts and self.forecasts[0].gain_high >= WORTH:
            return f"{sentence} by the estimate, at most {self.forecasts[0].gain_high:.3f}"
        return sentence


def plan(score: str, curve: Sequence[CurvePoint], seconds: float | None = None) -> Plan:
    """Forecast a score at up to 64 references.

    Args:
        score: Its name.
        curve: At least two points, fewest references first.
        seconds: Wall time of training one more reference; None = unknown.

    Raises:
        MIAError: fewer than two points.
    """
    if len(curve) < 2:
        raise MIAError(
            f"the learning curve of {score} has {len(curve)} points; a plan needs --references.count 4 or more"
        )
    previous, last = curve[-2:]
    error = (last.tpr_high - last.tpr_low) / (2 * NORMAL)
    doublings = float(np.log2(last.references / previous.references))
    gain = max(0.0, last.tpr - previous.tpr) / doublings
    of_gain = NORMAL * SHARED * error / doublings
    rows = []
    for count in (count for count in COUNTS if count > last.references):
        further = float(np.log2(count / last.references))
        value = gain * _continued(RATIO, further)
        ends = [_continued(ratio, further) for ratio in RATIOS]
        ends[1] *= EARLY_RATIO if last.references < EARLY else 1
        spread, sampling = [gain * end - value for end in ends], [of_gain * end for end in ends]
        gain_low = max(0.0, value - float(np.hypot(spread[0], sampling[0])))
        gain_high = value + float(np.hypot(spread[1], sampling[1]))
        low = last.tpr + value - float(np.hypot(value - gain_low, NORMAL * error))
        high = last.tpr + value + float(np.hypot(gain_high - value, NORMAL * error))
        hours = None if seconds is None else seconds * (count - last.references) / 3600
        tpr = min(last.tpr + value, 1.0)
        rows.append(Forecast(count, tpr, max(0.0, low), min(1.0, high), value, gain_low, gain_high, hours))
    return Plan(score, last.fpr, last.references, last.tpr, tuple(rows))


def _continued(ratio: float, doublings: float) -> float:
    """Return the gain of a number of doublings, in that of the last one: a geometric sum."""
    return doublings if ratio == 1 else float(ratio * (1 - ratio**doublings) / (1 - ratio))
