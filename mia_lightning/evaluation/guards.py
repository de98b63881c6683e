"""Checks that the figures mean what they seem to mean: run beside every assessment, none of them asks the target.

A guard that warns does not change a figure; it says what else could have made it.
"""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import SanityCheck
from mia_lightning.metrics.intervals import rate_interval
from mia_lightning.records.pixel_statistics import pixel_statistics

Array = NDArray[np.float64]


def preprocessing_parity(images: NDArray[np.uint8] | NDArray[np.float32], member: NDArray[np.int8]) -> SanityCheck:
    """Compare pixel statistics of members and non-members: another resize, range or source shows in them.

    Each statistic has a two-sample Kolmogorov-Smirnov test; it warns where one has a p-value below 0.01 after Holm and
    the distributions are at least 0.05 apart.

    Args:
        images: (N, C, H, W), read in blocks; all of one dtype and shape.
        member: (N,) 1, 0, or -1 = left out.
    """
    from scipy.stats import ks_2samp  # slow to import

    from mia_lightning.evaluation.comparison import holm

    statistics = pixel_statistics(images)
    sides = [np.flatnonzero(member == value) for value in (1, 0)]
    tests = {name: ks_2samp(*(values[side] for side in sides)) for name, values in statistics.items()}
    adjusted = dict(zip(tests, holm(np.array([test.pvalue for test in tests.values()])), strict=True))
    details: dict[str, float | int | str] = {"dtype": str(images.dtype), "shape": str(tuple(images.shape[1:]))}
    for name, values in statistics.items():
        inside, outside = (values[side] for side in sides)
        details |= {f"{name}, members": float(inside.mean()), f"{name}, non-members": float(outside.mean())}
        details |= {f"{name}, effect size": _effect_size(inside, outside), f"{name}, p": float(adjusted[name])}
    apart = [name for name in statistics if adjusted[name] < 0.01 and tests[name].statistic >= 0.05]
    counts = f"{len(sides[0]):,} members, {len(sides[1]):,} non-members"
    if not apart:
        sentence = (
            f"Members and non-members have the same pixel statistics ({', '.join(statistics)}; {counts}), dtype "
            f"{images.dtype} and shape {tuple(images.shape[1:])}."
        )
        return SanityCheck("preprocessing parity", "pass", sentence, details)
    worst = max(apart, key=lambda name: abs(float(details[f"{name}, effect size"])))
    sentence = (
        f"Members and non-members differ in {', '.join(apart)} ({counts}; {worst}: {details[f'{worst}, members']:.4g} "
        f"against {details[f'{worst}, non-members']:.4g}, effect size {details[f'{worst}, effect size']:.2f}, "
        f"p = {adjusted[worst]:.1g}); they may come from another source or preprocessing."
    )
    return SanityCheck("preprocessing parity", "warn", sentence, details)


def generalisation_gap(correct: tuple[int, int], totals: tuple[int, int]) -> SanityCheck:
    """Say how much more often the target is right on members than on non-members; most attacks live on it.

    The interval is Newcombe's of a difference of two rates (1998, method 10). It warns where the target is surely
    better on non-members, which is what swapped memberships look like.

    Args:
        correct: Right predictions on members and on non-members.
        totals: How many members and non-members.
    """
    inside, outside = (right / total for right, total in zip(correct, totals, strict=True))
    (low_in, high_in), (low_out, high_out) = (rate_interval(*pair) for pair in zip(correct, totals, strict=True))
    gap = inside - outside
    low = gap - float(np.hypot(inside - low_in, high_out - outside))
    high = gap + float(np.hypot(high_in - inside, outside - low_out))
    sentence = (
        f"The target is right on {inside:.1%} of {totals[0]:,} members and {outside:.1%} of {totals[1]:,} non-members: "
        f"a gap of {100 * gap:.1f} points ({100 * low:.1f} to {100 * high:.1f})."
    )
    if high < 0:
        sentence += " It is better on non-members; are the memberships swapped?"
    details: dict[str, float | int | str] = {
        "accuracy on members": inside,
        "accuracy on non-members": outside,
        "gap": gap,
        "gap_low": low,
        "gap_high": high,
    }
    return SanityCheck("generalization gap", "warn" if high < 0 else "pass", sentence, details)


def not_run(name: str, why: str) -> SanityCheck:
    """Return a guard that could not be run, with the reason as a sentence."""
    return SanityCheck(name, "not run", why, {})


def _effect_size(first: Array, second: Array) -> float:
    """Return Cohen's d, 0 where neither side varies and they agree, +-100 where neither varies."""
    spread = float(np.sqrt((first.var() + second.var()) / 2))
    gap = float(first.mean() - second.mean())
    return float(np.clip(gap / spread, -100, 100)) if spread > 0 else float(np.sign(gap) * 100)
