"""Figures, one function each, shared by TensorBoard, files and the report.

Attacks differ in dashes as well as by color (after Okabe & Ito), names are never rendered as formulas, and numbers
of points are bounded whatever the number of records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import Agreement, ClassMetrics, CurvePoint
from mia_lightning.metrics.intervals import tpr_interval
from mia_lightning.metrics.ranks import allowed, count_above, split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#24292f", "#8c959f"
"""Text and axes; grid and other elements of the background."""

SERIES = ("#0068a8", "#c04d00", "#007a5a", "#9c3d78", "#7a6400", "#5b5fc7")
"""Colors of attacks, in their order; contrast on white at least 4.5."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)), (0, (2, 2)))

SHOWN = len(SERIES)
"""Attacks drawn in color; any further ones are gray."""

STYLE: Any = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.3,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "mia_lightning",
}

LEGEND: Any = {"fontsize": 8.5, "frameon": False, "labelcolor": INK}

ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2, "borderaxespad": 0.2}
"""Position of a legend above the axes, where one inside would hide data."""


def style(**changes: Any) -> AbstractContextManager[None]:
    """Return the context to draw and save figures in, which no matplotlibrc changes.

    Args:
        changes: Further rcParams by name, with underscores in place of dots.
    """
    import matplotlib.style

    return matplotlib.style.context(["default", STYLE | {name.replace("_", "."): v for name, v in changes.items()}])


def plot_roc(
    scores: Mapping[str, NDArray[np.float64]], member: NDArray[np.int8], *, title: str = "", headline: str | None = None
) -> Figure:
    """Return the ROC of each attack on two log axes, which show low rates, and the headline's 95% band.

    Each curve is exact at some hundred false-positive rates, among them all that a few false positives make; the band
    is pointwise, `intervals.tpr_interval` at thirty of them. Further bands would hide the curves.

    Args:
        scores: Attack to (N,) finite scores.
        member: (N,) 1 or 0, both present.
        title: Title of the figure.
        headline: The attack drawn first and thickest; default: the first.
    """
    figure, axes = new_figure(5.0, 4.2)
    names = sorted(scores, key=lambda name: name != (headline or next(iter(scores))))
    n = int((member == 0).sum())
    lowest = min(1 / n, 0.1)  # axes of some length for a few non-members too
    rates = _rates(n)
    handles: list[Any] = []
    for number, name in reversed(list(enumerate(names))):
        members, non_members = split(scores[name], member)
        passed = np.array([allowed(n, min(float(rate), 1 - 1e-9)) for rate in rates])
        tpr = count_above(members, non_members[n - 1 - passed]) / len(members)
        width = 2.0 if number == 0 else 1.2
        color, dash = SERIES[number % SHOWN], DASHES[(number + number // SHOWN) % SHOWN]
        drawn = np.maximum(tpr, lowest / 10)
        (line,) = axes.step(rates, drawn, where="post", linewidth=width, color=color, linestyle=dash)
        handles.insert(0, line)
        if number == 0 and n > 1:
            points = np.geomspace(1 / n, 0.9, 30)
            bands = np.array([tpr_interval(members, non_members, float(rate)) for rate in points])
            axes.fill_between(points, *np.maximum(bands.T, lowest / 10), color=color, alpha=0.2, linewidth=0)
    (chance,) = axes.plot(rates, rates, linestyle=":", linewidth=1, color=INK)
    _log_rates(axes, lowest)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    axes.set_title(title)
    labels = [*(short_name(name) for name in names), "chance"]
    if len(names) <= SHOWN:
        axes.legend([*handles, chance], labels, loc="lower right", handlelength=3, **LEGEND)
    else:  # below the axes, where it hides no curve
        rows = -(-len(labels) // 2)
        figure.set_size_inches(5.0, 4.2 + 0.19 * rows)
        figure.legend([*handles, chance], labels, loc="outside lower center", ncols=2, handlelength=3, **LEGEND)
    return figure


def plot_histogram(scores: NDArray[np.float64], member: NDArray[np.int8]) -> Figure:
    """Return the histograms of members' and non-members' scores, between the 0.5th and the 99.5th percentile."""
    figure, axes = new_figure(5.0, 3.0)
    low, high = np.quantile(scores, (0.005, 0.995))
    edges = np.linspace(low, high, 61) if high > low else np.linspace(low - 0.5, low + 0.5, 61)
    for value, name, color, line in ((0, "non-members", SERIES[0], "-"), (1, "members", SERIES[1], "--")):
        side = scores[member == value]
        counts, _ = np.histogram(side, bins=edges)
        density = counts / (max(1, counts.sum()) * np.diff(edges))
        axes.stairs(density, edges, fill=True, color=color, alpha=0.25, linewidth=0)
        axes.stairs(density, edges, color=color, linewidth=1.4, linestyle=line, label=f"{name} (n = {len(side):,})")
    axes.set(xlabel="score", ylabel="density", ylim=(0, None))
    axes.legend(**LEGEND, **ABOVE)
    return figure


def plot_classes(classes: Sequence[ClassMetrics]) -> Figure:
    """Return each class's AUC with its 95% interval, in the order given, and the chance line."""
    figure, axes = new_figure(5.0, 3.0)
    rows = [row for row in classes if row.auc is not None]
    positions = np.arange(len(rows))
    values = np.array([row.auc for row in rows], dtype=np.float64)
    reach = np.array([(row.auc_low, row.auc_high) for row in rows], dtype=np.float64).reshape(-1, 2).T
    axes.axhline(0.5, linestyle=":", linewidth=1, color=INK)
    axes.errorbar(positions, values, np.abs(reach - values), fmt="o", markersize=4, linewidth=1.2, color=SERIES[0])
    step = max(1, len(rows) // 20)
    axes.set_xticks(positions[::step], [str(row.label) for row in rows][::step])
    axes.set(xlabel="class", ylabel="AUC, 95% interval")
    axes.grid(axis="y")
    return figure


def plot_agreement(agreement: Agreement) -> Figure:
    """Return the Jaccard indices of the records that attacks identify, as a shaded matrix with its numbers."""
    count = len(agreement.names)
    figure, axes = new_figure(min(5.4, max(3.6, 1.6 + 0.55 * count)), min(5.4, max(2.6, 1.0 + 0.42 * count)))
    axes.imshow(agreement.jaccard, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    names = [short_name(name, 18) for name in agreement.names]
    axes.set_xticks(range(count), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    if count <= 8:  # more numbers would be too small
        for (row, column), value in np.ndenumerate(agreement.jaccard):
            dark = "white" if value > 0.55 else "#111111"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=dark)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def plot_learning_curve(curves: Mapping[str, Sequence[CurvePoint]]) -> Figure:
    """Return each score's AUC, and its TPR at the curve's rate, over the number of references, with 95% intervals."""
    figure, (above, below) = new_figure(5.0, 5.2, rows=2)
    counts = sorted({point.references for curve in curves.values() for point in curve})
    for number, (name, curve) in enumerate(curves.items()):
        color = SERIES[number] if number < SHOWN else FAINT
        nudge = 1.03 ** (number - (len(curves) - 1) / 2)  # so that intervals do not hide each other
        x = [point.references * nudge for point in curve]
        for axes, part in ((above, "auc"), (below, "tpr")):
            value, low, high = (
                np.array([getattr(p, key) for p in curve]) for key in (part, f"{part}_low", f"{part}_high")
            )
            line: Any = {"marker": "o", "markersize": 3, "linewidth": 1.2, "linestyle": DASHES[number % len(DASHES)]}
            axes.errorbar(x, value, [value - low, high - value], color=color, label=short_name(name), **line)
    rate = next((point.fpr for curve in curves.values() for point in curve), 0.01)
    above.axhline(0.5, linestyle=":", linewidth=1, color=INK)
    below.axhline(rate, linestyle=":", linewidth=1, color=INK)
    for axes in (above, below):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.grid(axis="y")
    above.set(ylabel="AUC")
    below.set(ylabel=f"TPR at FPR {rate:.0%}", xlabel="reference models")
    above.legend(**LEGEND, **ABOVE)
    return figure


def plot_fidelity(accuracy_in: Sequence[float], accuracy_out: Sequence[float], target: tuple[float, float]) -> Figure:
    """Return the accuracy of each reference on its training records and on others; dashed: the target's.

    Args:
        accuracy_in: Per reference, on its training records, in [0, 1].
        accuracy_out: Per reference, on other records.
        target: On members, on non-members.
    """
    figure, axes = new_figure(5.0, 2.6)
    numbers = np.arange(1, len(accuracy_in) + 1)
    for values, level, color, marker, name in (
        (accuracy_in, target[0], SERIES[1], "^", "training records"),
        (accuracy_out, target[1], SERIES[0], "o", "other records"),
    ):
        axes.axhline(level, color=color, linestyle="--", linewidth=1)
        axes.plot(numbers, values, marker, color=color, markersize=4, label=name)
    axes.set_xticks(numbers[:: max(1, len(numbers) // 16)])
    axes.yaxis.set_major_formatter(percent_label)
    axes.set(xlabel="reference model", ylabel="accuracy")
    axes.grid(axis="y")
    axes.legend(**LEGEND, **ABOVE)
    return figure


def plot_losses(losses: Sequence[Sequence[float]]) -> Figure:
    """Return the mean training loss of each reference over the epochs; the median of them in color.

    Args:
        losses: Per reference, by epoch; of the last epochs where training was interrupted.
    """
    figure, axes = new_figure(5.0, 2.6)
    epochs = max(map(len, losses))
    values = np.full((len(losses), epochs), np.nan)
    for row, curve in zip(values, losses, strict=True):
        row[epochs - len(curve) :] = curve
        axes.plot(range(1, epochs + 1), row, color=FAINT, linewidth=0.8)
    marker = "o" if epochs == 1 else None
    median = np.nanmedian(values, axis=0)
    axes.plot(range(1, epochs + 1), median, marker=marker, color=SERIES[0], linewidth=1.6, label="median")
    axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    axes.grid(axis="y")
    axes.legend(**LEGEND, **ABOVE)
    return figure


def new_figure(width: float, height: float, rows: int = 1) -> tuple[Figure, Any]:
    """Return a figure of the common style, sizes in inches, and its axes."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, sharex=rows > 1)


def _rates(n: int) -> NDArray[np.float64]:
    """Return the rates at which a curve is drawn: every small number of false positives, then about 300 more."""
    few = np.arange(1, min(n, 30) + 1) / n
    return np.unique(np.concatenate([few, np.geomspace(1 / n, 1, 300)]))


def _log_rates(axes: Axes, lowest: float) -> None:
    axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent_label)
        axis.set_minor_formatter(lambda value, position: "")
    axes.grid(which="major")


def percent_label(value: float, _: float | None = None) -> str:
    """Return a rate in percent, as axes format their ticks."""
    return f"{100 * value:.6g}%"


def short_name(name: str, most: int = 28) -> str:
    """Return a name that fits, on one line, without formulas; a legend leaves out what starts with an underscore."""
    line = " ".join(name.split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return (f"\u200b{line}" if line.startswith("_") else line).replace("$", r"\$")
