"""Figures of the reasons for an attack's success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_lightning.evaluation.explanation import RecordPhi, ReliabilityBin
from mia_lightning.metrics.evaluation import Evaluation, OperatingPoint
from mia_lightning.report.plots import ABOVE, FAINT, INK, LEGEND, SERIES, new_figure, percent_label, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 20
"""Most rows of a figure."""


def plot_forest(points: Mapping[str, OperatingPoint], headline: str) -> Figure:
    """Return the TPR of each attack at one FPR with its 95% interval, the headline in color, chance dotted."""
    fpr = next(iter(points.values())).fpr
    figure, axes = _rows(list(points), fpr, f"true-positive rate at {percent_label(fpr)} FPR", height=0.28)
    for position, (name, point) in zip(reversed(range(len(points))), points.items(), strict=True):
        color = SERIES[1] if name == headline else SERIES[0]
        axes.plot([point.low, point.high], [position, position], color=color, linewidth=1.6)
        axes.plot([point.tpr], [position], "o", color=color, markersize=4.5)
    axes.xaxis.set_major_formatter(percent_label)
    return figure


def _rows(names: Sequence[str], chance: float, label: str, height: float = 0.26) -> tuple[Figure, Any]:
    """Return a figure with a row for each name, the first one above, and a vertical line at chance."""
    figure, axes = new_figure(5.0, 0.9 + height * len(names))
    axes.axvline(chance, linestyle=":", linewidth=1, color=INK)
    axes.set_yticks(range(len(names))[::-1], [short_name(name) for name in names])
    axes.set(xlabel=label, ylim=(-0.6, len(names) - 0.4))
    axes.grid(axis="x")
    return figure, axes


def plot_ladder(rungs: Mapping[str, OperatingPoint]) -> Figure:
    """Return the TPR of each level of access at one FPR with its 95% interval, least access above, chance dotted."""
    names = {name: name.removeprefix("probabilities, ") if "decimals" in name else name for name in rungs}
    return plot_forest({names[name]: point for name, point in rungs.items()}, names[list(rungs)[-1]])


def plot_columns(columns: Mapping[str, Evaluation]) -> Figure:
    """Return the AUC of the best columns alone, with 95% intervals, chance dotted."""
    names = list(columns)[:MOST_BARS]
    figure, axes = _rows(names, 0.5, "AUC, 95% interval")
    values = np.array([columns[name].auc for name in names])
    reach = np.array([(columns[name].auc_low, columns[name].auc_high) for name in names]).T
    line: Any = {"fmt": "o", "markersize": 4, "linewidth": 1.4, "color": SERIES[0]}
    axes.errorbar(values, range(len(names))[::-1], xerr=np.abs(reach - values), **line)
    return figure


def plot_importance(importance: Mapping[str, float]) -> Figure:
    """Return the largest losses of AUC by permuting a column."""
    names = list(importance)[:MOST_BARS]
    figure, axes = _rows(names, 0, "loss of AUC")
    axes.barh(range(len(names))[::-1], [importance[name] for name in names], height=0.6, color=SERIES[0])
    return figure


def plot_reliability(bins: Sequence[ReliabilityBin]) -> Figure:
    """Return the share of members over the calibrated probability, with 95% intervals; dotted: perfect calibration."""
    figure, axes = new_figure(5.0, 3.2)
    predicted, observed, low, high = (
        np.array([getattr(part, name) for part in bins]) for name in ("predicted", "observed", "low", "high")
    )
    axes.plot([0, 1], [0, 1], linestyle=":", linewidth=1, color=INK)
    reach = [np.maximum(observed - low, 0), np.maximum(high - observed, 0)]
    axes.errorbar(predicted, observed, reach, fmt="o", markersize=4, linewidth=1.4, color=SERIES[0])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent_label)
    axes.set(xlabel="calibrated probability of membership", ylabel="share of members", xlim=(0, 1), ylim=(0, 1))
    axes.grid()
    return figure


def plot_precision(point: OperatingPoint) -> Figure:
    """Return the precision of the identified records over the share of members among all records, log scale.

    The band runs from the low end of the TPR's interval with the high end of the threshold's FPR to the converse.
    """
    figure, axes = new_figure(5.0, 3.2)
    prior = np.geomspace(1e-4, 0.5, 100)
    curves = [
        prior * tpr / np.maximum(prior * tpr + (1 - prior) * fpr, 1e-300)
        for tpr, fpr in ((point.tpr, point.fpr), (point.low, point.fpr_high), (point.high, point.fpr_low))
    ]
    axes.fill_between(prior, curves[1], curves[2], alpha=0.2, linewidth=0, color=SERIES[0])
    axes.plot(prior, curves[0], color=SERIES[0], linewidth=2)
    axes.plot(prior, prior, linestyle=":", linewidth=1, color=INK)
    axes.set(xscale="log", xlim=(prior[0], prior[-1]), ylim=(0, 1))
    axes.set(xlabel="share of members among all records", ylabel="precision of the identified records")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent_label)
    axes.grid(which="major")
    return figure


def plot_phi(records: Sequence[RecordPhi]) -> Figure:
    """Return phi of some records: reference models with and without the record, and the target as a line."""
    figure, axes = new_figure(5.0, 0.9 + 0.5 * len(records))
    for position, record in zip(range(len(records) - 1, -1, -1), records, strict=True):
        for values, color, offset, marker in ((record.in_, SERIES[1], 0.14, "^"), (record.out_, SERIES[0], -0.14, "o")):
            axes.plot(values, np.full(len(values), position + offset), marker, color=color, markersize=4, alpha=0.8)
        axes.plot([record.target] * 2, [position - 0.32, position + 0.32], color=INK, linewidth=2)
    for number, (label, color, marker) in enumerate((("trained on it", SERIES[1], "^"), ("not", SERIES[0], "o"))):
        axes.plot([], [], marker, color=color, label=f"references {label}" if number == 0 else label)
    axes.plot([], [], color=INK, linewidth=2, label="target")
    names = [f"{short_name(row.id, 14)} ({'member' if row.member else 'non-member'})" for row in records]
    axes.set_yticks(range(len(records) - 1, -1, -1), names)
    axes.set_ylim(-0.6, len(records) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="logit-scaled confidence in the label (phi)")
    axes.grid(axis="x", color=FAINT)
    axes.legend(**LEGEND | {"fontsize": 8.5}, **ABOVE | {"ncols": 3})
    return figure
