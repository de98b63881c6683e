"""Figures, one function each; TensorBoard and files show the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.metrics import roc_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_roc(scores: Mapping[str, NDArray[np.float64]], member: NDArray[np.int8], *, title: str) -> Figure:
    """Return the ROC of each attack on two log axes, where the low false-positive rates can be seen.

    Args:
        scores: Attack to (N,) scores.
        member: (N,) 1 or 0.
        title: Says which records.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    lowest = 1 / max(int((member == 0).sum()), 1)
    chance = np.geomspace(lowest, 1, 50)
    axes.plot(chance, chance, linestyle=":", color="0.5", label="chance")
    for name, values in scores.items():
        fpr, tpr = roc_curve(values, member)
        axes.step(np.maximum(fpr, lowest), np.maximum(tpr, lowest / 10), where="post", linewidth=1.4, label=name)
    axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1))
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title=title)
    axes.grid(which="both", linewidth=0.3, alpha=0.5)
    axes.legend(loc="lower right", fontsize="small")
    return figure


def plot_histogram(scores: NDArray[np.float64], member: NDArray[np.int8], *, title: str) -> Figure:
    """Return the histograms of members' and non-members' scores, between the 0.5th and the 99.5th percentile."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(scores, (0.005, 0.995))
    edges = np.linspace(low, high if high > low else low + 1, 61)
    for value, name, colour in ((0, "non-members", "#0072b2"), (1, "members", "#d55e00")):
        inside = np.clip(scores[member == value], edges[0], edges[-1])
        axes.hist(
            inside, bins=edges.tolist(), density=True, alpha=0.55, color=colour, label=f"{name} (n={len(inside):,})"
        )
    axes.set(xlabel="score", ylabel="density", title=title)
    axes.legend(fontsize="small")
    return figure
