"""Mean ROC curves of a benchmark, with logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mia_lightning.benchmarking.figures import GRID
from mia_lightning.benchmarking.tables import TableRow
from mia_lightning.report.plots import DASHES, FAINT, SERIES, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_curves(rows: Sequence[TableRow], non_members: int) -> Figure:
    """Return the mean ROC over targets of each attack with its most references, the best at 0.1% FPR first.

    Colors repeat with other dashes, so that many attacks stay distinct; names stand next to the axes in that order.

    Args:
        rows: Rows of the table.
        non_members: Of one target; no lower FPR than one of these is drawn.
    """
    from matplotlib.figure import Figure

    most = {row.attack: row for row in sorted(rows, key=lambda row: row.references)}
    at = int(np.searchsorted(GRID, 1e-3))
    ordered = sorted(most.values(), key=lambda row: -row.roc[at])
    lowest = 10 ** np.floor(np.log10(1 / non_members))
    with style():
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([lowest, 1], [lowest, 1], color=FAINT, linewidth=0.8)
        shown = 1 / non_members <= GRID
        for number, row in enumerate(ordered):
            axes.plot(
                GRID[shown],
                np.maximum(np.array(row.roc)[shown], lowest / 10),
                color=SERIES[number % len(SERIES)],
                linestyle=DASHES[(number // len(SERIES) + number) % len(DASHES)],
                linewidth=1.3,
                label=f"{row.attack}" + (f", K = {row.references}" if row.references else ""),
            )
        axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1.05))
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate, mean over targets")
        axes.grid(which="major")
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure
