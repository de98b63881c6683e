"""report.html and audit_card.md: a report laid out by two templates.

Everything in a report may come from a hostile file. The page escapes every text; its policy forbids scripts and all
that comes from elsewhere. The card escapes what Markdown would read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from mia_lightning.evaluation.assessment import Assessment, Difference
from mia_lightning.metrics.roc import PRIORS, Evaluation, OperatingPoint
from mia_lightning.report import wording
from mia_lightning.report.contents import Report, RunFacts
from mia_lightning.report.evidence import deciding_point
from mia_lightning.report.exposed import most_exposed
from mia_lightning.report.figures import Drawn, inline_svg
from mia_lightning.report.filing import CROSSWALK, filing_rows
from mia_lightning.report.levels import RULES
from mia_lightning.report.limits import limits
from mia_lightning.report.verdict import verdict

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_ROWS = 30
"""Most rows of the table of differences; metrics.json has all of them."""

MOST_CLASSES = 100
"""Most rows of the table of classes."""


def html(report: Report, drawn: Iterable[Drawn]) -> str:
    """Return the page.

    Args:
        report: Its content.
        drawn: From `figures.draw`.
    """
    return render("report.html.jinja", **_context(report), figures=inline_svg(drawn))


def render(template: str, **context: Any) -> str:
    """Return a page of one of the package's templates; every text in the context is escaped."""
    return _environment().get_template(template).render(**context)


def card(report: Report) -> str:
    """Return the audit card in Markdown."""
    text = _environment(plain_markdown).get_template("audit_card.md.jinja").render(**_context(report))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain_markdown(value: Any) -> Any:
    """Return a text on one line in which Markdown finds no markup; anything else as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(value.split())) if isinstance(value, str) else value


@cache
def _environment(finalize: Callable[[Any], Any] | None = None) -> Environment:
    """Return the templates, compiled once, of pages, or of texts whose values go through `finalize`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mia_lightning.report"),
        autoescape=finalize is None,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "p_value": wording.p_value,
        "seconds": wording.seconds,
        "count": lambda value: f"{value:,}",
    }
    return environment


def _context(report: Report) -> dict[str, Any]:
    assessment, run = report.assessment, report.run
    evaluation = report.decisive[report.headline]
    classes = assessment.classes.get(report.headline, ())
    return {
        "title": report.filing.title or f"Membership audit of {_audited(report)}",
        "filing": filing_rows(report.filing),
        "history": _history(report),
        "crosswalk": CROSSWALK,
        "source": assessment.records.source,
        "date": datetime.now(UTC).strftime("%d %B %Y").lstrip("0"),
        "report": report,
        "run": run,
        "verdict": verdict(report),
        "rules": RULES,
        "evaluation": evaluation,
        "point": deciding_point(evaluation),
        "point_rate": wording.rate_name(deciding_point(evaluation).fpr),
        "tiles": _tiles(evaluation, run, "held-out members" if report.on_held_out else "members"),
        "notes": [*report.notes, *assessment.notes],
        "figures_table": _figures_table(assessment.attacks, report.headline),
        "held_out_table": _figures_table(run.held_out, report.headline) if run and run.held_out else None,
        "private_table": _figures_table(run.private, report.headline) if run and run.private else None,
        "details": [(name, _points(result)) for name, result in assessment.attacks.items()],
        "priors": [f"{100 * prior:g}%" for prior in PRIORS],
        "differences": _differences(assessment.differences),
        "differences_left": max(0, len(assessment.differences) - MOST_ROWS),
        "agreement": _agreement(assessment),
        "classes": classes[:MOST_CLASSES],
        "classes_left": max(0, len(classes) - MOST_CLASSES),
        "class_fpr": wording.rate_name(assessment.class_fpr),
        "exposed": most_exposed(report),
        "claimed": _claimed(assessment),
        "levels": [f"{level:.0%}" for level in next(iter(assessment.claims.values())).claimed],
        "increments": _differences(tuple(gain for gain in assessment.increments if gain.first == report.headline)),
        "bounds": [bound for bound in assessment.bounds if bound.epsilon is not None],
        "methods": list(dict.fromkeys(bound.method for bound in assessment.bounds if bound.epsilon is not None)),
        "fraction_sentence": wording.fraction_sentence(report),
        "reported": [bound.method for bound in assessment.bounds if bound.reported],
        "epsilons": _epsilons(assessment),
        "assumptions": list(dict.fromkeys(b.assumptions for b in assessment.bounds if b.epsilon is not None)),
        "refusals": list(dict.fromkeys((b.method, b.refusal) for b in assessment.bounds if b.refusal)),
        "limits": limits(report),
        "decimals": wording.decimals,
        "between": wording.between,
    }


def _history(report: Report) -> list[tuple[str, str, str]]:
    """Return name, previous value and present value of each figure that both audits have."""
    if report.previous is None:
        return []
    now = report.decisive[report.headline]
    values = {"AUC": (now.auc, now.auc_low, now.auc_high)}
    values |= {
        wording.tpr_name(point.fpr): (point.tpr, point.low, point.high) for point in now.points if point.resolvable
    }
    return [
        (name, wording.decimals(*before), wording.decimals(*values[name]))
        for name, *before in report.previous.figures
        if name in values
    ]


def _audited(report: Report) -> str:
    """Return the name of the model, without the module of a user's class, or of the scores."""
    return str(report.run.target["architecture"]).split(":")[-1] if report.run else report.assessment.records.source


def _tiles(evaluation: Evaluation, run: RunFacts | None, members: str) -> list[tuple[str, str, str]]:
    """Return the headline figures: value, what it is, its interval."""
    tiles = [
        (
            wording.percent(point.tpr),
            f"of {members} identified at {wording.rate_name(point.fpr)} FPR",
            wording.between(point.low, point.high),
        )
        for point in evaluation.points
        if point.fpr in (0.001, 0.01, 0.05) and point.resolvable
    ]
    tiles.append(
        (f"{evaluation.auc:.3f}", "AUC (chance: 0.5)", f"[{evaluation.auc_low:.3f}–{evaluation.auc_high:.3f}]")
    )
    if run is not None and "accuracy_on_members" in run.target:  # absent where records have no label
        on_members, on_others = (float(run.target[f"accuracy_on_{side}"]) for side in ("members", "non_members"))
        gap = f"{100 * (on_members - on_others):.1f} points"
        words = f"{wording.percent(on_members)} on members, {wording.percent(on_others)} on non-members"
        tiles.append((gap, "generalization gap of the model", words))
    return tiles


def _figures_table(attacks: Any, headline: str) -> dict[str, Any]:
    first: Evaluation = next(iter(attacks.values()))
    shown = [number for number, point in enumerate(first.points) if wording.resolved(point)]
    return {
        "members": first.n_members,
        "non_members": first.n_non_members,
        "rates": [wording.rate_name(first.points[number].fpr) for number in shown],
        "left_out": [wording.rate_name(point.fpr) for point in first.points if not wording.resolved(point)],
        "rows": [
            {
                "name": name,
                "headline": name == headline,
                "auc": (f"{evaluation.auc:.3f}", f"{evaluation.auc_low:.3f}–{evaluation.auc_high:.3f}"),
                "partial": (
                    f"{evaluation.partial_auc:.3f}",
                    f"{evaluation.partial_auc_low:.3f}–{evaluation.partial_auc_high:.3f}",
                ),
                "points": [_cell(evaluation.points[number]) for number in shown],
                "distinct": evaluation.distinct,
                "largest_tie": evaluation.largest_tie,
            }
            for name, evaluation in attacks.items()
        ],
    }


def _cell(point: OperatingPoint) -> tuple[str, str] | None:
    """Return TPR and interval, or None where the records cannot resolve the rate."""
    if not wording.resolved(point):
        return None
    return wording.percent(point.tpr), wording.between(point.low, point.high).strip("[]")


def _points(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "rate": wording.rate_name(point.fpr),
            "tpr": _cell(point),
            "threshold": f"{point.threshold:.4g}",
            "false_positives": point.false_positives,
            "own_fpr": f"{100 * point.fpr_low:.2g}–{100 * point.fpr_high:.2g}%",
            "precision": [
                "–" if value is None else f"≥ {low:.3f}" if not point.false_positives else f"{value:.3f}"
                for value, low in zip(point.precision, point.precision_low, strict=True)
            ],
        }
        for point in evaluation.points
        if wording.resolved(point)
    ]


def _differences(differences: tuple[Difference, ...]) -> list[dict[str, str]]:
    ranked = sorted(differences, key=lambda difference: difference.p_holm)[:MOST_ROWS]
    return [
        {
            "first": row.first,
            "second": row.second,
            "figure": wording.figure_name(row.figure),
            "value": f"{row.value:+.4f}",
            "between": f"{row.low:+.4f} to {row.high:+.4f}",
            "p": wording.p_value(row.p_value),
            "holm": wording.p_value(row.p_holm),
        }
        for row in ranked
    ]


def _agreement(assessment: Assessment) -> dict[str, Any] | None:
    agreement = assessment.agreement
    if agreement is None:
        return None
    rows = [
        (name, [f"{value:.2f}" for value in row], len(agreement.only[name]))
        for name, row in zip(agreement.names, agreement.jaccard.tolist(), strict=True)
    ]
    return {"alpha": wording.rate_name(agreement.alpha), "names": agreement.names, "rows": rows}


def _epsilons(assessment: Assessment) -> dict[str, dict[str, float]]:
    """Return the bounds that are not refused by attack and method."""
    epsilons: dict[str, dict[str, float]] = {}
    for bound in assessment.bounds:
        if bound.epsilon is not None:
            epsilons.setdefault(bound.attack, {})[bound.method] = bound.epsilon
    return epsilons


def _claimed(assessment: Assessment) -> list[tuple[str, list[tuple[int, int]]]]:
    member = assessment.records.membership
    return [
        (name, [(len(rows), int((member[rows] == 1).sum())) for rows in claims.claimed.values()])
        for name, claims in assessment.claims.items()
    ]
