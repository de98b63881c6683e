"""What a run says on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mia_lightning.metrics.roc import Evaluation
    from mia_lightning.pipeline.results import AuditResult


def print_result(result: AuditResult, console: Console) -> None:
    """Print the notes, the out-of-fold table and, where there are any, those of the hold-out and the private half."""
    for note in result.notes:
        console.print(f"note: {note}", soft_wrap=True, highlight=False)
    inside, outside = (float(str(result.target[f"accuracy_on_{side}"])) for side in ("members", "non_members"))
    accuracy = f"accuracy {inside:.1%} on members, {outside:.1%} on non-members"
    console.print(f"target: {result.target['architecture']}, {accuracy}", soft_wrap=True, highlight=False)
    rows = []
    for name, attack in result.attacks.items():
        rows.append((name, attack.public))
        if attack.public_calibrated.distinct < attack.public.distinct / 2:  # a calibration that ties many scores
            rows.append((f"{name}, by probability", attack.public_calibrated))
    console.print(evaluation_table("public records, out-of-fold", rows))
    held_out = [(name, attack.held_out) for name, attack in result.attacks.items() if attack.held_out is not None]
    if held_out:
        console.print(evaluation_table("public records that no fold saw", held_out))
    private = [(name, attack.private) for name, attack in result.attacks.items() if attack.private is not None]
    if private:
        console.print(evaluation_table("private records, never fitted on", private))


def evaluation_table(title: str, rows: Iterable[tuple[str, Evaluation]]) -> Table:
    """Return a table of figures with their 95% intervals and n."""
    rows = list(rows)
    first = rows[0][1]
    counts = f"{first.n_members:,} members, {first.n_non_members:,} non-members, 95% intervals below"
    table = Table(title=f"{title}: {counts}", title_justify="left", title_style="", box=SIMPLE, pad_edge=False)
    table.add_column("attack")
    table.add_column("AUC", justify="right")
    for point in first.points:
        table.add_column(f"TPR@{100 * point.fpr:g}%", justify="right")
    table.add_column("distinct", justify="right")
    for name, evaluation in rows:
        cells = [f"{point.tpr:.4f}\n{point.low:.3f}-{point.high:.3f}" for point in evaluation.points]
        auc = f"{evaluation.auc:.4f}\n{evaluation.auc_low:.3f}-{evaluation.auc_high:.3f}"
        table.add_row(name, auc, *cells, f"{evaluation.distinct:,}")
    return table
