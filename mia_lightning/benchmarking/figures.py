"""Figures of one attack on one target, and their means over targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_lightning.metrics.ranks import allowed

FPRS = (0.05, 0.01, 0.001, 0.0001, 0.0)
"""False-positive rates of the table."""

NAMES = ("AUC", "balanced accuracy", *(f"TPR@{100 * fpr:g}%" for fpr in FPRS))
"""Figures of the table, in its order."""

GRID = np.concatenate([[0.0], np.logspace(-5, 0, 101)])
"""False-positive rates at which ROC curves are averaged over targets."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """Figures of one attack on one target."""

    values: tuple[float, ...]
    """One for each of `NAMES`, in [0, 1]."""

    roc: tuple[float, ...]
    """TPR at each FPR of `GRID`."""


def figures(scores: NDArray[np.floating], member: NDArray[np.bool_]) -> Figures:
    """Return AUC (ties count half), the best balanced accuracy over thresholds, and TPRs at conservative thresholds.

    The TPR at an FPR is the share of members strictly above the (floor(FPR n) + 1)-th highest of n non-members.

    Args:
        scores: (N,) finite, higher = more likely a member.
        member: (N,), at least one of each.
    """
    members, non_members = np.sort(scores[member]), np.sort(scores[~member])
    below, not_above = (np.searchsorted(non_members, members, side=side) for side in ("left", "right"))
    area = float((below + not_above).sum()) / (2 * len(members) * len(non_members))
    above = 1 - np.arange(len(members)) / len(members)  # TPR of the threshold at each member
    balanced = float((above + below / len(non_members)).max()) / 2
    rates = _tprs(members, non_members, (*FPRS, *GRID))
    return Figures((area, max(balanced, 0.5), *rates[: len(FPRS)]), tuple(rates[len(FPRS) :]))


def _tprs(members: Array, non_members: Array, fprs: Sequence[float]) -> list[float]:
    n = len(non_members)
    ranks = np.array([min(allowed(n, fpr), n - 1) if fpr < 1 else n for fpr in fprs])
    levels = np.where(ranks < n, non_members[np.maximum(n - 1 - ranks, 0)], -np.inf)
    above = len(members) - np.searchsorted(members, levels, side="right")
    return [float(value) for value in above / len(members)]


def mean_interval(values: ArrayLike) -> tuple[Array, Array]:
    """Return means over targets and half widths of their 95% intervals (Student's t; NaN for one target).

    Args:
        values: (T, ...) of T targets.
    """
    from scipy.stats import t

    array = np.asarray(values, np.float64)
    count = len(array)
    if count < 2:
        return array.mean(axis=0), np.full(array.shape[1:], np.nan)
    return array.mean(axis=0), t.ppf(0.975, count - 1) * array.std(axis=0, ddof=1) / np.sqrt(count)
