"""Terminal output of a run: notes, tables and the next commands."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mia_lightning.config.invocation import command, command_line, option, program
from mia_lightning.errors import printable
from mia_lightning.runtime.hardware import is_first_process
from mia_lightning.runtime.output_folder import next_free_folder

if TYPE_CHECKING:
    from mia_lightning.config.schema import RunConfig
    from mia_lightning.metrics.roc import Evaluation
    from mia_lightning.pipeline.results import AuditResult

NAME_WIDTH, CELL_WIDTH = 24, 13
"""Columns that a table reserves for the attack's name, and for each figure."""


def show_log() -> None:
    """Show this package's progress messages on the terminal, of the first process alone."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mia_lightning").setLevel(logging.INFO if is_first_process() else logging.WARNING)


def output_console(width: int) -> Console:
    """Return the console of standard output; a file or pipe, which has no width of its own, gets this one."""
    return Console(width=None if sys.stdout.isatty() else width)


def print_result(result: AuditResult, console: Console) -> None:
    """Print notes, the target's accuracy, and a table each of out-of-fold, held-out and private results."""
    for note in result.notes:
        print_line(f"note: {note}", console)
    print_line(f"target: {result.target['architecture']}, {_accuracy(result)}", console)
    submitted = result.config.submitted if result.private is not None else None
    rows = []
    for name, attack in result.attacks.items():
        rows.append((f"{name} (submitted)" if name == submitted else name, attack.public))
        if attack.public_calibrated.distinct < attack.public.distinct / 2:  # a calibration that ties many scores
            rows.append((f"{name}, by probability", attack.public_calibrated))
    held_out = [(name, attack.held_out) for name, attack in result.attacks.items() if attack.held_out is not None]
    private = [(name, attack.private) for name, attack in result.attacks.items() if attack.private is not None]
    for title, evaluations in (
        ("public records, out-of-fold", rows),
        ("public records, held out of all folds", held_out),
        ("private records, never fitted on", private),
    ):
        for table in evaluation_tables(title, evaluations, console.width):
            console.print(table)


def _accuracy(result: AuditResult) -> str:
    from mia_lightning.pipeline.results import accuracies  # imports SciPy, which an evaluation of scores may not need

    rates = accuracies(result.target)
    if not all(map(math.isfinite, rates)):
        return "accuracy unknown, since records have no label"
    return f"accuracy {rates[0]:.1%} on members, {rates[1]:.1%} on non-members"


def evaluation_tables(title: str, rows: Iterable[tuple[str, Evaluation]], width: int) -> Iterator[Table]:
    """Yield tables of figures with 95% confidence intervals and n, with as many columns each as the width allows.

    Args:
        title: Of the first table.
        rows: Name and evaluation of each attack, all at the same false-positive rates; without rows there is no table.
        width: Characters of a line.
    """
    rows = list(rows)
    if not rows:
        return
    first = rows[0][1]
    cells = [("AUC", [_interval(result.auc, result.auc_low, result.auc_high) for _, result in rows])]
    for index, point in enumerate(first.points):
        points = [result.points[index] for _, result in rows]
        cells.append((f"TPR@{100 * point.fpr:g}%", [_interval(p.tpr, p.low, p.high) for p in points]))
    cells.append(("unique\nscores", [f"{result.distinct:,}" for _, result in rows]))
    counts = f"{first.n_members:,} members, {first.n_non_members:,} non-members, 95% confidence intervals below"
    per_table = max(1, (width - NAME_WIDTH) // CELL_WIDTH)
    for start in range(0, len(cells), per_table):
        heading = escape(f"{title}: {counts}") if start == 0 else None
        table = Table(title=heading, title_justify="left", title_style="", box=SIMPLE, pad_edge=False)
        table.add_column("attack", overflow="fold")
        for name, _ in cells[start : start + per_table]:
            table.add_column(name, justify="right", no_wrap=True)
        columns = [column for _, column in cells[start : start + per_table]]
        for name, *values in zip((escape(name) for name, _ in rows), *columns, strict=True):
            table.add_row(name, *values)
        yield table


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.4f}\n{low:.3f}-{high:.3f}"


def print_next_commands(config: RunConfig, written: list[str], console: Console) -> None:
    """Print the files written, and commands to look at them and to reproduce them that can be pasted into a shell."""
    named = [f"{name} ({config.submitted})" if name == "submission.csv" else name for name in written]
    print_line(f"wrote {', '.join(named)} in {config.output}", console)
    output = config.output.rstrip("/")
    again = next_free_folder(f"{output}-again")
    print_line(f"report:      {command_line([f'{output}/report.html'])}", console)
    logs = command_line(option("logdir", f"{output}/tensorboard"))
    print_line(f"tensorboard: {program('tensorboard', 'tensorboard.main')} {logs}", console)
    words = command_line([*option("config", f"{output}/config.yaml"), *option("output", again)])
    print_line(f"reproduce:   {command('train')} {words}", console)
    if "submission.csv" in written and config.submission.attack is None and len(config.attacks) > 1:
        print_line(
            f"note: {config.submitted} was submitted as the last attack; --submission.attack NAME chooses another",
            console,
        )


def print_line(line: str, console: Console) -> None:
    """Print one line that may be longer than the terminal is wide, without styles."""
    console.print(printable(line, 10_000), soft_wrap=True, highlight=False, markup=False)
