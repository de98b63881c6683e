"""Sanity checks of pixels and accuracy.

A check that warns does not change a figure; its sentence names what else could have caused it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import SanityCheck
from mia_lightning.evaluation.pixel_features import Images, pixel_features
from mia_lightning.metrics.intervals import rate_interval
from mia_lightning.metrics.ranks import Array

PIXELS = "pixel distribution check"

GAP = "generalization gap"


def pixel_distribution(
    images: Images, member: NDArray[np.int8], features: Mapping[str, Array] | None = None
) -> SanityCheck:
    """Compare pixel features of members and non-members, which another resize, range, crop or source changes.

    Each feature has a two-sample Kolmogorov-Smirnov test; it warns where one has a p-value below 0.01 after Holm and
    the distributions are at least 0.05 apart.

    Args:
        images: (N, C, H, W), read in blocks; all of one dtype and shape.
        member: (N,) 1, 0, or -1 = left out.
        features: `pixel_features(images)`, where they are computed already.
    """
    from scipy.stats import ks_2samp  # slow to import

    from mia_lightning.evaluation.comparison import holm

    features = pixel_features(images) if features is None else features
    sides = [np.flatnonzero(member == value) for value in (1, 0)]
    tests = {name: ks_2samp(*(values[side] for side in sides), method="asymp") for name, values in features.items()}
    adjusted = dict(zip(tests, holm(np.array([test.pvalue for test in tests.values()])), strict=True))
    details: dict[str, float | int | str] = {"dtype": str(images.dtype), "shape": str(tuple(images.shape[1:]))}
    for name, values in features.items():
        members, non_members = (values[side] for side in sides)
        details |= {f"{name}, members": float(members.mean()), f"{name}, non-members": float(non_members.mean())}
        details |= {f"{name}, effect size": _effect_size(members, non_members), f"{name}, p": float(adjusted[name])}
    apart = [name for name in features if adjusted[name] < 0.01 and tests[name].statistic >= 0.05]
    apart.sort(key=lambda name: -tests[name].statistic)
    counts = f"{len(sides[0]):,} members, {len(sides[1]):,} non-members"
    if not apart:
        sentence = (
            f"Members and non-members have the same distribution of {len(features)} pixel features ({counts}; smallest "
            f"p = {min(adjusted.values()):.2g} after Holm), dtype {images.dtype} and shape {tuple(images.shape[1:])}."
        )
        return SanityCheck(PIXELS, "pass", sentence, details)
    worst = apart[0]
    p_value = f"= {adjusted[worst]:.1g}" if adjusted[worst] >= 1e-10 else "< 1e-10"
    shown = ", ".join(apart[:MOST_NAMED]) + (f" and {len(apart) - MOST_NAMED} more" if len(apart) > MOST_NAMED else "")
    sentence = (
        f"Members and non-members differ in {shown} ({counts}; {worst}: {details[f'{worst}, members']:.4g} "
        f"against {details[f'{worst}, non-members']:.4g}, effect size {details[f'{worst}, effect size']:.2f}, "
        f"p {p_value}); they may come from another source or preprocessing."
    )
    return SanityCheck(PIXELS, "warn", sentence, details)


MOST_NAMED = 3
"""Features named in a sentence; `details` has all of them."""


def generalization_gap(correct: tuple[int, int], totals: tuple[int, int]) -> SanityCheck:
    """Compare the accuracy of the target on members and non-members; most attacks exploit the difference.

    The interval is Newcombe's of a difference of two rates (1998, method 10). It warns where the interval is
    below 0, which swapped memberships look like.

    Args:
        correct: Correct predictions on members and on non-members.
        totals: Number of members and of non-members.
    """
    members, non_members = (right / total for right, total in zip(correct, totals, strict=True))
    (low_in, high_in), (low_out, high_out) = (rate_interval(*pair) for pair in zip(correct, totals, strict=True))
    gap = members - non_members
    low = gap - float(np.hypot(members - low_in, high_out - non_members))
    high = gap + float(np.hypot(high_in - members, non_members - low_out))
    sentence = (
        f"Accuracy of the target: {members:.1%} on {totals[0]:,} members, {non_members:.1%} on {totals[1]:,} "
        f"non-members, a gap of {100 * gap:.1f} points [{100 * low:.1f} to {100 * high:.1f}]."
    )
    if high < 0:
        sentence += " It is higher on non-members; check whether the memberships are swapped."
    details: dict[str, float | int | str] = {
        "accuracy on members": members,
        "accuracy on non-members": non_members,
        "gap": gap,
        "gap_low": low,
        "gap_high": high,
    }
    return SanityCheck(GAP, "warn" if high < 0 else "pass", sentence, details)


def skipped(name: str, why: str) -> SanityCheck:
    """Return a check that could not be run, with the reason as a sentence."""
    return SanityCheck(name, "skipped", why, {})


def _effect_size(first: Array, second: Array) -> float:
    """Return Cohen's d, 0 where neither side varies and they agree, +-100 where neither varies."""
    spread = float(np.sqrt((first.var() + second.var()) / 2))
    gap = float(first.mean() - second.mean())
    return float(np.clip(gap / spread, -100, 100)) if spread > 0 else float(np.sign(gap) * 100)
