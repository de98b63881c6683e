"""Mean ROC curves of a benchmark with their intervals over targets, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mia_lightning.benchmarking.figures import GRID, mean_interval
from mia_lightning.benchmarking.tables import TableRow
from mia_lightning.report.plots import DASHES, FAINT, INK, LEGEND, SERIES, short_name, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_PANEL = 5
"""Attacks in color in one panel."""

RANKED_AT = 0.01
"""False-positive rate at which attacks are ranked, where a target has a hundred non-members."""


def plot_curves(rows: Sequence[TableRow], non_members: int) -> Figure:
    """Return the mean ROC over targets of each attack with its most references, the best at 1% FPR first.

    Attacks are split into panels of at most five in the order of their rank. Each panel draws its own attacks in color
    with pointwise 95% intervals over targets (Student's t), and all others in gray.

    Args:
        rows: Rows of the table.
        non_members: Of one target; no lower FPR than one of these is drawn.
    """
    from matplotlib.figure import Figure

    most = {row.attack: row for row in sorted(rows, key=lambda row: row.references)}
    at = int(np.searchsorted(GRID, max(RANKED_AT, 1 / non_members)))
    ordered = sorted(most.values(), key=lambda row: -np.mean([curve[at] for curve in row.roc]))
    panels = -(-len(ordered) // PER_PANEL)
    cuts = [len(ordered) * panel // panels for panel in range(panels + 1)]  # of nearly equal size
    columns = min(panels, 2)
    lines = -(-panels // columns)
    targets = max(len(row.values) for row in ordered)
    with style():
        figure = Figure(figsize=(1.2 + 3.4 * columns, 0.8 + 3.2 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for panel, axes in enumerate(grid.flat):
            if panel >= panels:
                axes.set_visible(False)
                grid[-2, -1].tick_params(labelbottom=True)  # the panel above is the last of its column
                continue
            _draw(axes, ordered, range(cuts[panel], cuts[panel + 1]), non_members)
        figure.supxlabel(f"false-positive rate ({non_members:,} non-members of a target)", fontsize=9.5)
        shaded = ", shaded: 95% interval" if targets > 1 else ""
        of_targets = f"mean over {targets} targets" if targets > 1 else "one target"
        figure.supylabel(f"true-positive rate\n{of_targets}{shaded}", fontsize=9.5)
    return figure


def _draw(axes: Axes, rows: list[TableRow], colored: range, non_members: int) -> None:
    """Draw the attacks with these ranks in color, and all others in gray."""
    lowest = min(1 / non_members, 0.1)
    bottom = 10 ** np.floor(np.log10(lowest))
    shown = 1 / non_members <= GRID
    rates = GRID[shown]
    axes.plot([bottom, 1], [bottom, 1], color=INK, linewidth=0.8, linestyle=":")
    for row in rows[: colored.start] + rows[colored.stop :]:
        mean = np.mean(row.roc, axis=0)[shown]
        axes.plot(rates, np.maximum(mean, bottom / 10), color=FAINT, linewidth=0.6, alpha=0.6)
    for number, row in enumerate(rows[rank] for rank in colored):
        mean, half = mean_interval(row.roc)
        band = np.clip([mean - half, mean + half], bottom / 10, 1)[:, shown]
        axes.fill_between(rates, *band, color=SERIES[number], alpha=0.12, linewidth=0)
        axes.plot(
            rates,
            np.maximum(mean[shown], bottom / 10),
            color=SERIES[number],
            linestyle=DASHES[number],
            linewidth=1.5,
            label=short_name(row.attack, 30) + (f", K = {row.references}" if row.references else ""),
        )
    axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(bottom, 1.05))
    axes.grid(which="major")
    axes.legend(loc="lower right", handlelength=2.6, **(LEGEND | {"fontsize": 7.5, "labelspacing": 0.3}))
