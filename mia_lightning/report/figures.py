"""Figures of a report by name, for the page and for TensorBoard, and their conversion to inline SVG."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from mia_lightning.metrics.roc import Evaluation
from mia_lightning.report import explanation_plots, plots
from mia_lightning.report.contents import Report
from mia_lightning.report.evidence import deciding_point
from mia_lightning.report.wording import between, percent

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

VARIABLES = {plots.INK: "currentColor", plots.FAINT: "var(--faint)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(plots.SERIES)
}
"""Colors of the figures to variables of the page, which change in dark mode."""

XLINK = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@dataclass(frozen=True, eq=False)
class Drawn:
    """One figure and its description."""

    name: str
    """As TensorBoard's tag; the part before a slash is its section."""

    figure: Figure

    alternative: str
    """Text alternative."""


def draw(report: Report) -> Iterator[Drawn]:
    """Yield every figure that the report has data for."""
    assessment, headline = report.assessment, report.headline
    records = assessment.records
    roc = plots.plot_roc(records.scores, records.membership, headline=headline)
    yield Drawn("ROC, out-of-fold", roc, _roc_description(report))
    for name, scores in records.scores.items():
        histogram = plots.plot_histogram(scores, records.membership)
        yield Drawn(f"scores/{name}", histogram, _histogram_description(name, assessment.attacks[name]))
    yield from _of_ladder(report)
    yield from _of_explanation(report)
    if assessment.classes:
        classes = [row for row in assessment.classes[headline] if row.auc is not None]
        if classes:
            values = [row.auc for row in classes if row.auc is not None]
            words = (
                f"AUC of {headline} by class: from {min(values):.3f} to {max(values):.3f}; the table has all of them."
            )
            yield Drawn("classes", plots.plot_classes(classes), words)
    if assessment.agreement is not None:
        words = "Jaccard indices of the records that two attacks identify; the table below has the numbers."
        yield Drawn("agreement", plots.plot_agreement(assessment.agreement), words)
    if report.run is not None:
        yield from _of_references(report)


def inline_svg(drawn: Iterable[Drawn]) -> dict[str, Markup]:
    """Return figures by name as SVG elements that take their colors and fonts from the page; texts are escaped."""
    from markupsafe import Markup

    return {figure.name: Markup(_svg(figure, number)) for number, figure in enumerate(drawn)}


def _svg(drawn: Drawn, number: int) -> str:
    """Return a figure with ids of its number, so that those of two figures do not clash on a page."""
    from markupsafe import escape

    text = StringIO()
    with plots.style(svg_hashsalt=f"figure {number}"):
        drawn.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn.figure.set_layout_engine("none")  # TensorBoard's copy keeps the layout, half of its cost
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    name = (
        f'role="img" aria-labelledby="figure-{number}" style="max-width: {float(width[1]) * 1.55:.0f}px"'
        if width
        else ""
    )
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda match: f"<svg {match[1]} {name} {XLINK}>", svg, count=1)
    for color, variable in VARIABLES.items():
        svg = svg.replace(f": {color}", f": {variable}")
    return svg.replace(">", f'><title id="figure-{number}">{escape(drawn.alternative)}</title>', 1)


def _of_ladder(report: Report) -> Iterator[Drawn]:
    ladder = None if report.run is None else report.run.ladder
    if ladder is None or not ladder.rungs:
        return
    points = {rung.name: rung.evaluation.points[-1] for rung in ladder.rungs}
    reached = ", ".join(f"{name} {percent(point.tpr)}" for name, point in points.items())
    words = f"True-positive rate at {percent(next(iter(points.values())).fpr)} FPR by access: {reached}."
    yield Drawn("access", explanation_plots.plot_ladder(points), words)


def _of_explanation(report: Report) -> Iterator[Drawn]:
    """Yield the figures of the reasons for the attack's success."""
    attacks, headline = report.decisive, report.headline
    point = deciding_point(attacks[headline])
    at_rate = {name: evaluation.at(point.fpr) for name, evaluation in attacks.items()}
    if len(attacks) > 1:
        ends = ", ".join(f"{name} {percent(at.tpr)} {between(at.low, at.high)}" for name, at in at_rate.items())
        words = f"TPR at {100 * point.fpr:g}% FPR with 95% intervals: {ends}."
        yield Drawn("attacks", explanation_plots.plot_forest(at_rate, headline), words)
    if point.resolvable and point.tpr > 0:
        words = f"Precision of the records that {headline} identifies over the share of members among all records."
        yield Drawn("precision", explanation_plots.plot_precision(point), words)
    if report.run is None:
        return
    explanation = report.run.explanation
    if explanation.columns:
        best, evaluation = next(iter(explanation.columns.items()))
        words = f"AUC of each column alone; the best is {best} with {evaluation.auc:.3f}."
        yield Drawn("columns", explanation_plots.plot_columns(explanation.columns), words)
    for name, importance in explanation.importance.items():
        words = f"Loss of AUC of {name} by permuting a column: most for {next(iter(importance))}."
        yield Drawn(f"importance/{name}", explanation_plots.plot_importance(importance), words)
    if headline in explanation.reliability:
        bins = explanation.reliability[headline]
        words = f"Share of members over the calibrated probability of {headline}, in {len(bins)} bins."
        yield Drawn("reliability", explanation_plots.plot_reliability(bins), words)
    if explanation.raw is not None:
        name, values = explanation.raw
        figure = plots.plot_histogram(values, report.assessment.records.membership)
        words = f"Histogram of {name}, as computed, for members and non-members."
        yield Drawn("column", figure, words)
    if explanation.phi:
        words = "phi of some records under the reference models, trained on the record or not, and under the target."
        yield Drawn("references/phi", explanation_plots.plot_phi(explanation.phi), words)


def _of_references(report: Report) -> Iterator[Drawn]:
    run = report.run
    assert run is not None
    trained = [
        reference
        for reference in run.references
        if reference.status == "trained" and reference.set == run.references[0].set  # others are not like the target
    ]
    if trained and "accuracy_on_members" in run.target:  # absent where records have no label
        accuracy_in = [reference.accuracy_in for reference in trained]
        accuracy_out = [reference.accuracy_out for reference in trained]
        target = (float(run.target["accuracy_on_members"]), float(run.target["accuracy_on_non_members"]))
        words = (
            f"Accuracy of {len(trained)} reference models: {percent(min(accuracy_in))} to {percent(max(accuracy_in))} "
            f"on their training records (the target {percent(target[0])}), {percent(min(accuracy_out))} to "
            f"{percent(max(accuracy_out))} on others (the target {percent(target[1])})."
        )
        yield Drawn("references/fidelity", plots.plot_fidelity(accuracy_in, accuracy_out, target), words)
    if losses := [reference.losses for reference in trained if reference.losses]:
        last = [curve[-1] for curve in losses]
        words = (
            f"Training loss of {len(losses)} reference models; in the last epoch {min(last):.3f} to {max(last):.3f}."
        )
        yield Drawn("references/loss", plots.plot_losses(losses), words)
    if run.learning_curve:
        ends = "; ".join(
            f"{name} {curve[0].auc:.3f} with {curve[0].references} and {curve[-1].auc:.3f} with {curve[-1].references}"
            for name, curve in run.learning_curve.items()
        )
        figure = plots.plot_learning_curve(run.learning_curve)
        yield Drawn("references/learning curve", figure, f"AUC of each score by number of references: {ends}.")


def _roc_description(report: Report) -> str:
    evaluation = report.assessment.attacks[report.headline]
    points = ", ".join(
        f"{percent(point.tpr)} {between(point.low, point.high)} at {100 * point.fpr:g}%"
        for point in evaluation.points
        if point.resolvable and point.fpr > 0
    )
    count = len(report.assessment.attacks)
    drawn = f"ROC curves of {count} attack{'s' * (count > 1)} on log axes."
    return f"{drawn} True-positive rate of {report.headline}: {points}."


def _histogram_description(name: str, evaluation: Evaluation) -> str:
    return (
        f"Histogram of the scores of {name} for {evaluation.n_members:,} members and "
        f"{evaluation.n_non_members:,} non-members; "
        f"a random member is ranked above a random non-member {percent(evaluation.auc)} of the time."
    )
