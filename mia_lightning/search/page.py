"""report.html of a search: what was compared, what it gained on held-out records, and every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_lightning.report.explanation_plots import MOST_BARS
from mia_lightning.report.figures import Drawn, inline_svg
from mia_lightning.report.page import render
from mia_lightning.report.plots import INK, SERIES, new_figure, short_name, style
from mia_lightning.report.wording import decimals
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mia_lightning.config.search import TuneConfig
    from mia_lightning.pipeline.run_folder import RunFolder
    from mia_lightning.search.selection import Comparison

MOST_PARAMETERS = 8
"""Parameters that are drawn."""


def sweep_page(
    config: TuneConfig,
    trials: Sequence[Trial],
    ranked: Sequence[Trial],
    space: Space,
    metric: str,
    sentences: Sequence[str],
    comparison: Comparison | None = None,
) -> str:
    """Return the page.

    Args:
        config: Of the search.
        trials: All trials by number, the run's own configuration first.
        ranked: Finished trials, best first.
        space: Searched fields.
        metric: Figure by which trials were compared.
        sentences: Result in words.
        comparison: Winner and default on held-out records; None for a search over the training of references.
    """
    values = {trial.number: space.values(trial.params) for trial in trials}
    drawn = [Drawn("trials", _plot_trials(trials, ranked, metric), f"{metric} of each trial, and the best so far.")]
    names = list(space.distributions)
    if len(ranked) > 1:
        figure = _plot_parameters(ranked, values, names[:MOST_PARAMETERS], metric)
        drawn.append(Drawn("parameters", figure, f"{metric} of each finished trial over each parameter."))
    return render(
        "sweep.html.jinja",
        title=f"Search for {config.search.goal.replace('_', ' ')} by {metric}",
        sentences=sentences,
        metric=metric,
        trials=trials,
        names=names,
        rows=[(trial, [_text(values[trial.number].get(name, "")) for name in names]) for trial in ranked[:MOST_BARS]],
        estimates=_estimates(comparison) if comparison else (),
        figures=inline_svg(drawn),
    )


def write_page(folder: RunFolder, page: str) -> None:
    """Write report.html."""
    with folder.atomic_write("report.html") as file:
        file.write(page)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _estimates(comparison: Comparison) -> list[tuple[str, str, str]]:
    from mia_lightning.search.selection import interval_of

    rows = []
    for name, estimate in (("default", comparison.default), ("winner", comparison.winner)):
        intervals = [interval_of(part, comparison.metric) for part in (estimate.inner, estimate.outer)]
        inner, outer = (decimals(part.value, part.low, part.high) for part in intervals)
        rows.append((f"{name}, trial {estimate.trial}", inner, outer))
    return rows


def _plot_trials(trials: Sequence[Trial], ranked: Sequence[Trial], metric: str) -> Figure:
    """Return the figure of each finished trial by number, and the best so far as a line."""
    finished = sorted(ranked, key=lambda trial: trial.number)
    numbers = np.array([trial.number for trial in finished])
    figures = np.array([trial.figures[metric] for trial in finished])
    figure, axes = new_figure(5.0, 3.2)
    best = np.maximum if ranked[0].figures[metric] >= figures.max() else np.minimum
    axes.step(numbers, best.accumulate(figures), where="post", color=SERIES[1], linewidth=1.6, label="best so far")
    axes.plot(numbers, figures, "o", color=SERIES[0], markersize=3.5, label="trial")
    axes.axhline(figures[0], linestyle=":", linewidth=1, color=INK, label="the run's own configuration")
    axes.set(xlabel="trial", ylabel=metric, xlim=(-0.5, max(trial.number for trial in trials) + 0.5))
    axes.grid(axis="y")
    axes.legend(fontsize=8.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _plot_parameters(
    ranked: Sequence[Trial], values: Mapping[int, Mapping[str, Any]], names: Sequence[str], metric: str
) -> Figure:
    """Return the metric of each finished trial over each parameter, the winner in color."""
    from matplotlib.figure import Figure

    rows = -(-len(names) // 2)
    with style():
        figure = Figure(figsize=(7.0, 2.2 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        tried = [(values[trial.number][name], trial) for trial in reversed(ranked) if name in values[trial.number]]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in tried)
        texts = list(dict.fromkeys(_text(value) for value, _ in tried))
        x = [value if numeric else texts.index(_text(value)) for value, _ in tried]
        y = [trial.figures[metric] for _, trial in tried]
        colors = [SERIES[1] if trial is ranked[0] else SERIES[0] for _, trial in tried]
        axes.scatter(x, y, s=12, c=colors)
        if not numeric:
            axes.set_xticks(range(len(texts)), [short_name(text, 14) for text in texts])
        elif min(x) > 0 and max(x) > 30 * min(x):
            axes.set_xscale("log")
        axes.set(xlabel=short_name(name, 40), ylabel=metric)
    for axes in panels[len(names) :]:
        axes.remove()
    return figure
