"""The command: two runs in, a table in the terminal, comparison.json and changes.csv out."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from mia_lightning.comparison.changes import Change, compare, detectable
from mia_lightning.comparison.runs import ScoredRun, common_attacks, matched, read_run
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.config import ComparisonConfig
from mia_lightning.pipeline.terminal import output_console, print_line
from mia_lightning.report.files import versions
from mia_lightning.runtime.output_folder import OutputFolder
from mia_lightning.security.csv_formulas import write_records

FILES = ("comparison.json", "changes.csv")

MOST_NAMED = 5
"""Records named in the terminal."""


def run(config: ComparisonConfig) -> tuple[Change, ...]:
    """Compare two targets on the same records; print, and write the output folder if one is given.

    Raises:
        MIAError: any mistake in the options or the files they name.
    """
    if len(config.runs) != 2:
        raise MIAError(f"{len(config.runs)} runs are named; name two, before and after, such as runs/a runs/b")
    if config.resamples < 100:
        raise MIAError(f"{config.resamples} resamples are too few for an interval; give --resamples 100 or more")
    if not config.fprs or not all(0 <= fpr < 1 for fpr in config.fprs):
        raise MIAError(f"--fprs must lie in [0, 1), got {list(config.fprs)}")
    folder = _folder(config.output)
    before = read_run(config.runs[0])
    after = matched(before, read_run(config.runs[1]))
    attacks = common_attacks(before, after, config.attacks)
    references = [n for n in before.references if n in after.references and n not in attacks]
    scores = [
        {n: run.scores[n] for n in attacks} | {n: run.references[n] for n in references} for run in (before, after)
    ]
    options: dict[str, Any] = {"fprs": config.fprs, "resamples": config.resamples, "seed": config.seed}
    changes = compare(scores[0], scores[1], before.membership, against_references=references, **options)
    console = output_console(120)
    for line in _notes(before, after):
        print_line(f"note: {line}", console)
    for change in changes:
        console.print(change_table(change))
        for line in record_lines(change, before.ids.tolist(), before.membership):
            print_line(line, console)
    if folder is not None:
        _write(folder, before, after, changes, config)
        print_line(f"wrote {', '.join(FILES)} in {config.output}", console)
    return changes


def change_table(change: Change) -> Table:
    """Return the figures before and after, and their differences."""
    counts = f"{change.before.n_members:,} members, {change.before.n_non_members:,} non-members"
    against = ", against reference models" if change.against_references else ""
    table = Table(title=escape(f"{change.attack}{against}: {counts}"), title_justify="left", title_style="", box=None)
    for column in ("figure", "before", "after", "after - before", "95% interval", "p", "p, Holm", "detectable"):
        table.add_column(column, justify="left" if column == "figure" else "right", no_wrap=column != "95% interval")
    for row in change.differences:
        first, second = (_figure(evaluation, row.figure) for evaluation in (change.before, change.after))
        interval = f"{row.low:+.4f} to {row.high:+.4f}"
        last = (f"{row.p_value:.2g}", f"{row.p_holm:.2g}", f"{detectable(row):.4f}")
        table.add_row(row.figure, f"{first:.4f}", f"{second:.4f}", f"{row.value:+.4f}", interval, *last)
    return table


def record_lines(change: Change, ids: Sequence[Any], member: Any) -> Iterable[str]:
    """Yield how many members are identified before and after, and whose exposure changed most."""
    counts = change.identified
    yield (
        f"of {change.before.n_members:,} members, {counts.both:,} are identified in both at {100 * counts.fpr:g}% FPR, "
        f"{counts.only_before:,} before only, {counts.only_after:,} after only (McNemar p {counts.p_value:.2g})"
    )
    rows = np.flatnonzero(np.asarray(member) == 1)
    ranked = rows[np.argsort(change.moved[rows], kind="stable")]
    for words, chosen in (("fell", ranked[:MOST_NAMED]), ("rose", ranked[::-1][:MOST_NAMED])):
        sign = -1 if words == "fell" else 1
        named = ", ".join(
            f"{ids[row]} ({100 * change.moved[row]:+.0f})" for row in chosen if sign * change.moved[row] > 0
        )
        yield f"members whose rank among the non-members {words} most (percentage points): {named or 'none'}"


def _figure(evaluation: Any, name: str) -> float:
    return float(evaluation.auc if name == "auc" else evaluation.at(float(name.removeprefix("tpr@"))).tpr)


def _notes(before: ScoredRun, after: ScoredRun) -> list[str]:
    notes = [*before.notes, *after.notes]
    if before.target and before.target == after.target:
        notes.append("both runs audit the same target (equal digests): differences are of the attacks alone")
    if before.accuracies and after.accuracies:
        gaps = [f"{100 * (run.accuracies[0] - run.accuracies[1]):.1f}" for run in (before, after) if run.accuracies]
        notes.append(f"generalization gap of the target: {gaps[0]} points before, {gaps[1]} after")
    return list(dict.fromkeys(notes))


def _folder(path: str | None) -> OutputFolder | None:
    if path is None:
        return None
    folder = OutputFolder(path)
    if foreign := [name for name in folder.names if name not in FILES]:
        raise folder.other_files(foreign[0])
    folder.check_kinds()
    return folder


def _write(
    folder: OutputFolder, before: ScoredRun, after: ScoredRun, changes: Sequence[Change], config: ComparisonConfig
) -> None:
    with folder.acquired():
        with folder.atomic_write("comparison.json") as file:
            json.dump(content(before, after, changes, config), file, indent=2, allow_nan=False)
        with folder.atomic_write("changes.csv") as file:
            _write_changes(file, before, changes)


def content(before: ScoredRun, after: ScoredRun, changes: Sequence[Change], config: ComparisonConfig) -> dict[str, Any]:
    """Return the content of comparison.json: plain values only, every number finite."""
    return {
        "before": _run(before),
        "after": _run(after),
        "records": {
            "members": int((before.membership == 1).sum()),
            "non_members": int((before.membership == 0).sum()),
            "digest": before.records or None,
        },
        "attacks": {
            change.attack: {
                "against_references": change.against_references,
                "before": change.before.to_dict(),
                "after": change.after.to_dict(),
                "differences": [asdict(row) | {"detectable": detectable(row)} for row in change.differences],
                "identified": asdict(change.identified),
            }
            for change in changes
        },
        "resamples": config.resamples,
        "seed": config.seed,
        "versions": versions(),
    }


def _run(run: ScoredRun) -> dict[str, Any]:
    accuracies = run.accuracies or (None, None)
    return {
        "name": Path(run.name).name,
        "target": run.target or None,
        "accuracy_on_members": accuracies[0],
        "accuracy_on_non_members": accuracies[1],
    }


def _write_changes(file: IO[str], before: ScoredRun, changes: Sequence[Change]) -> None:
    """Write one row per record: id, membership, and per attack its rank before, after and the change."""
    columns: dict[str, Any] = {"membership": before.membership}
    for change in changes:
        for part, values in (("before", change.share_before), ("after", change.share_after), ("change", change.moved)):
            columns[f"{change.attack}_{part}"] = np.array([f"{value:.6g}" for value in values.tolist()])
    write_records(file, before.ids, columns)
