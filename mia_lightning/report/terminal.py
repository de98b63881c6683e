"""Terminal output of an evaluation; every rate with its interval and n."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mia_lightning.evaluation.assessment import Assessment, SanityCheck
from mia_lightning.evaluation.leaderboard import Place
from mia_lightning.metrics.roc import PRIORS, Evaluation, OperatingPoint
from mia_lightning.policy.files import lines as policy_lines
from mia_lightning.report.contents import Report
from mia_lightning.report.verdict import verdict
from mia_lightning.report.wording import fraction_sentence, p_value, resolved

MOST_DIFFERENCES = 30


def print_report(report: Report, console: Console) -> None:
    """Print figures, differences, agreement, claims, bounds, sanity checks and the verdict."""
    assessment = report.assessment
    for name, evaluation in assessment.attacks.items():
        console.print(figures_table(name, evaluation, primary=name == report.headline))
    if assessment.differences:
        console.print(differences_table(assessment))
    if assessment.agreement is not None:
        console.print(agreement_table(assessment))
    console.print(claims_table(assessment))
    console.print(bounds_table(assessment))
    for method, why in dict.fromkeys((b.method, b.refusal) for b in assessment.bounds if b.refusal is not None):
        _print(f"no bound by {method}: {why}", console)
    print_conclusion(report, console)


def print_conclusion(report: Report, console: Console) -> None:
    """Print sanity checks, notes and the verdict, its warnings first."""
    print_checks(report.assessment.checks, console)
    for note in report.assessment.notes:
        _print(f"note: {note}", console)
    if report.assessment.fraction is not None:
        _print(fraction_sentence(report), console)
    if report.decision is not None:
        for line in policy_lines(report.decision):
            _print(line, console)
    conclusion = verdict(report)
    _print(f"\nverdict: {conclusion.heading}.", console, style="bold")
    for sentence in conclusion.sentences:
        _print(f"- {sentence}", console)


def print_checks(checks: Sequence[SanityCheck], console: Console) -> None:
    """Print the result of each sanity check, warnings in bold."""
    for check in checks:
        style = "bold" if check.status == "warn" else ""
        _print(f"{check.name}: {check.status}. {check.sentence}", console, style=style)


def figures_table(name: str, evaluation: Evaluation, *, primary: bool = False) -> Table:
    """Return one attack's figures.

    Args:
        name: The attack.
        evaluation: Its figures.
        primary: Whether it is the attack that is submitted, or named for the verdict.
    """
    counts = f"{evaluation.n_members:,} members, {evaluation.n_non_members:,} non-members"
    table = _table(f"{name}{' (primary attack)' if primary else ''}: {counts}")
    precision = f"precision at\n{'/'.join(f'{100 * prior:g}' for prior in PRIORS)}% members"
    columns = ("figure", "value", "95% interval", "false\npositives", "FPR of this\nthreshold, 95%", precision)
    for position, column in enumerate(columns):  # at 80 columns, the two with blanks in their cells give way
        table.add_column(column, justify="right" if position else "left", no_wrap=0 < position < len(columns) - 1)
    table.add_row("AUC", f"{evaluation.auc:.4f}", _between(evaluation.auc_low, evaluation.auc_high))
    partial = _between(evaluation.partial_auc_low, evaluation.partial_auc_high)
    table.add_row("partial AUC (FPR <= 5%)", f"{evaluation.partial_auc:.4f}", partial)
    for point in evaluation.points:
        table.add_row(*_point_cells(point, evaluation.n_non_members))
    ties = f"unique scores: {evaluation.distinct:,}; largest tie in the top 5%: {evaluation.largest_tie:,} records"
    if evaluation.auc_high < 0.5:
        ties += ". The AUC is significantly below 0.5: the scores point the other way; lower scores mean members"
    table.caption, table.caption_justify = escape(ties), "left"
    return table


def differences_table(assessment: Assessment) -> Table:
    """Return the differences between attacks, smallest adjusted p-value first."""
    ranked = sorted(assessment.differences, key=lambda difference: difference.p_holm)
    hidden = len(ranked) - MOST_DIFFERENCES
    more = f", the first {MOST_DIFFERENCES} of {len(ranked)}" if hidden > 0 else ""
    table = _table(f"differences between attacks, paired bootstrap, Holm{more}")
    for column in ("first - second", "figure", "difference", "95% interval", "p", "p, Holm"):
        table.add_column(column, justify="left" if column in ("first - second", "figure") else "right")
    for d in ranked[:MOST_DIFFERENCES]:
        pair = escape(f"{d.first} - {d.second}")
        p_values = (p_value(d.p_value), p_value(d.p_holm))
        table.add_row(pair, d.figure, f"{d.value:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", *p_values)
    return table


def agreement_table(assessment: Assessment) -> Table:
    """Return the Jaccard indices of the records that attacks call members, and the members that each finds alone."""
    agreement = assessment.agreement
    assert agreement is not None
    table = _table(f"agreement of the records found at FPR {agreement.alpha:.2%} (Jaccard)")
    table.add_column("attack")
    for name in agreement.names:
        table.add_column(escape(name), justify="right")
    table.add_column("members only it finds", justify="right")
    for name, row in zip(agreement.names, agreement.jaccard, strict=True):
        table.add_row(escape(name), *(f"{value:.3f}" for value in row), f"{len(agreement.only[name]):,}")
    return table


def claims_table(assessment: Assessment) -> Table:
    """Return the number of records that each attack claims, and of members among them."""
    table = _table("records claimed as members, by false-discovery rate (Benjamini-Hochberg on conformal p-values)")
    table.add_column("attack")
    levels = list(next(iter(assessment.claims.values())).claimed)
    for level in levels:
        table.add_column(f"q = {level:.0%}", justify="right")
    member = assessment.records.membership
    for name, claims in assessment.claims.items():
        claimed = ((len(rows), int((member[rows] == 1).sum())) for rows in claims.claimed.values())
        table.add_row(escape(name), *(f"{count:,} ({members:,} members)" for count, members in claimed))
    return table


def bounds_table(assessment: Assessment) -> Table:
    """Return the lower bounds on epsilon that are not refused."""
    first = assessment.bounds[0]
    table = _table(f"lower bounds on epsilon at delta {first.delta:g}, each with confidence {first.confidence:.0%}")
    for column in ("attack", "method", "epsilon", "use"):
        table.add_column(column, justify="right" if column == "epsilon" else "left")
    for bound in assessment.bounds:
        if bound.epsilon is not None:
            use = "reported" if bound.reported else "sensitivity"
            table.add_row(escape(bound.attack), bound.method, f"{bound.epsilon:.4f}", use)
    for sentence in dict.fromkeys(bound.assumptions for bound in assessment.bounds if bound.epsilon is not None):
        table.caption = f"{table.caption} {sentence}" if table.caption else sentence
    table.caption_justify = "left"
    return table


def leaderboard_table(places: Sequence[Place], fpr: float) -> Table:
    """Return the ranked submissions with the intervals of their figures and ranks."""
    first = places[0].evaluation
    table = _table(f"TPR at FPR {fpr:.4g}: {first.n_members:,} members, {first.n_non_members:,} non-members, 95%")
    for column in ("rank", "ranks, 95%", "submission", "TPR", "95% interval", "AUC", "AUC, 95%", "gap to next"):
        table.add_column(column, justify="left" if column == "submission" else "right")
    for entry in places:
        point = entry.evaluation.points[0]
        name = f"{entry.name} (tied with {', '.join(entry.tied)})" if entry.tied else entry.name
        ranks = str(entry.rank_low) if entry.rank_low == entry.rank_high else f"{entry.rank_low}-{entry.rank_high}"
        table.add_row(
            str(entry.rank),
            ranks,
            escape(name),
            f"{point.tpr:.4f}",
            _between(point.low, point.high),
            f"{entry.evaluation.auc:.4f}",
            _between(entry.evaluation.auc_low, entry.evaluation.auc_high),
            _gap_to_next(entry),
        )
    table.caption = (
        "Ranks, 95%: simultaneous intervals from paired bootstrap differences; submissions whose intervals do not "
        "overlap differ."
    )
    if not first.points[0].resolvable:
        table.caption += " The rate allows no false positive: it is the TPR at none, by which no two can be separated."
    table.caption_justify = "left"
    return table


def _point_cells(point: OperatingPoint, n_non_members: int) -> tuple[str, ...]:
    name = f"TPR at FPR {100 * point.fpr:g}%"
    pairs = list(zip(point.precision, point.precision_low, strict=True))
    precision = " / ".join(_precision(value, low, point.false_positives) for value, low in pairs)
    precision = precision if point.false_positives else f">= {precision}"
    own_fpr = _between(point.fpr_low, point.fpr_high, 6)
    cells = (_between(point.low, point.high), str(point.false_positives), own_fpr, precision)
    if not resolved(point):
        return (name, "-", f"too few non-members ({n_non_members:,})", "", "", "")
    return (name, f"{point.tpr:.4f}", *cells)


def _precision(value: float | None, low: float, false_positives: int) -> str:
    """Without a false positive the plain figure is 1 for any n; its low end is given instead."""
    return "-" if value is None else f"{low if false_positives == 0 else value:.3f}"


def _gap_to_next(entry: Place) -> str:
    if entry.gap_to_next is None or entry.gap_low is None or entry.gap_high is None:
        return ""
    return f"{entry.gap_to_next:.4f} ({entry.gap_low:+.4f} to {entry.gap_high:+.4f})"


def _print(line: str, console: Console, style: str = "") -> None:
    console.print(escape(line), style=style, soft_wrap=True, highlight=False)


def _between(low: float, high: float, digits: int = 4) -> str:
    return f"{low:.{digits}f}-{high:.{digits}f}"


def _table(title: str) -> Table:
    return Table(
        title=escape(title), title_justify="left", title_style="", caption_style="", box=SIMPLE, pad_edge=False
    )
