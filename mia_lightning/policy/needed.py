"""Records that would decide a criterion with power 80%, were its figure as estimated."""

from math import ceil, hypot

import numpy as np
from scipy.special import ndtri

from mia_lightning.metrics.intervals import TAILS, tpr_interval
from mia_lightning.metrics.ranks import Array, allowed, count_above, threshold

POWER = 0.8
"""Probability of a decision at the size named."""

REPEATS = 150
"""Simulated audits of each size."""

LARGEST_SIMULATED = 200_000
"""Records of a class up to which audits are simulated; beyond, the normal approximation suffices."""

NEVER = 1e4
"""Largest factor on the present size; above it no size is named, since the figure lies at its margin."""


def growth(value: float, low: float, high: float, margin: float) -> float | None:
    """Return the factor on the number of records at which a normal interval decides, None where none does.

    Args:
        value: The estimate.
        low: 95% interval.
        high: Its upper end.
        margin: Limit of the figure.
    """
    distance = margin - value
    side = high - value if distance > 0 else value - low
    if distance == 0 or side <= 0:
        return None
    factor = (side / distance * (1 + float(ndtri(POWER)) / float(ndtri(TAILS[1])))) ** 2
    return factor if factor <= NEVER else None


def tpr_growth(members: Array, non_members: Array, fpr: float, margin: float, inflation: float = 1.0) -> float | None:
    """Return the factor on the number of records at which `tpr_interval` decides a limit of the TPR, None if none does.

    Audits of a few sizes around the normal approximation's are simulated from the observed scores (a smooth bootstrap:
    ranks are drawn and scores interpolated), decided by the rule itself, and the power is interpolated on probit scale.

    Args:
        members: (P,) ascending.
        non_members: (n,) ascending.
        fpr: In (0, 1).
        margin: Limit of the TPR.
        inflation: Variance factor of the counts, for groups and fit.
    """
    rng, n = np.random.default_rng(0), len(non_members)
    level = threshold(non_members, fpr)
    value = int(count_above(members, level)) / len(members)
    of_members = np.sqrt(max(value * (1 - value), 0.5 / len(members)) / len(members))
    spread = hypot(of_members, _slope(members, non_members, fpr) * np.sqrt(fpr * (1 - fpr) / n))
    half = float(ndtri(TAILS[1])) * spread * np.sqrt(inflation)
    normal = growth(value, value - half, value + half, margin)
    if normal is None:
        return None
    normal = max(normal, 1 / (fpr * n))
    if normal * max(n, len(members)) > LARGEST_SIMULATED:
        return normal
    factors = normal * np.array([0.7, 1.0, 1.5, 2.2])

    def decides(factor: float) -> bool:
        """Whether a simulated audit decides on the side of the estimate."""
        sizes = (max(2, round(len(side) * factor)) for side in (members, non_members))
        drawn = [np.sort(_smooth(rng, side, size)) for side, size in zip((members, non_members), sizes, strict=True)]
        low, high = tpr_interval(drawn[0], drawn[1], fpr, (inflation, inflation))
        return high < margin if value < margin else low > margin

    power = np.array([np.mean([decides(float(factor)) for _ in range(REPEATS)]) for factor in factors])
    slope, intercept = np.polyfit(np.log(factors), ndtri(power.clip(0.005, 0.995)), 1)
    if slope <= 0.05:
        return normal
    return float(np.exp(((ndtri(POWER) - intercept) / slope).clip(np.log(normal / 4), np.log(normal * 4))))


def records_needed(count: int, factor: float | None) -> int | None:
    """Return the size in two significant digits, rounded up; None where no size decides."""
    if factor is None:
        return None
    size = max(count * factor, 1.0)
    step = 10 ** max(0, int(np.floor(np.log10(size))) - 1)
    return int(ceil(size / step) * step)


def _slope(members: Array, non_members: Array, fpr: float) -> float:
    """Return the slope of the ROC around a rate, from the TPR at half and at one and a half times it."""
    n = len(non_members)
    low, high = (allowed(n, rate) for rate in (fpr / 2, min(1.5 * fpr, 0.999)))
    if high == low:
        return 1.0
    above = len(members) - np.searchsorted(members, non_members[[n - 1 - low, n - 1 - high]], side="right")
    return max(0.0, float(above[1] - above[0]) / len(members) / ((high - low) / n))


def _smooth(rng: np.random.Generator, ascending: Array, size: int) -> Array:
    return np.interp(rng.random(size) * (len(ascending) - 1), np.arange(len(ascending)), ascending)
