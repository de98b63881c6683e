"""Result of an audit in memory: tables, pictures, files and a view for notebooks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.metrics.roc import Evaluation
from mia_lightning.pipeline.results import AttackResult, AuditResult, LoadedInputs
from mia_lightning.report.contents import Report
from mia_lightning.report.verdict import Verdict, verdict
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CELL = "text-align: right; padding: 2px 8px"
"""Style of a table's cells in a notebook."""


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """Attacks on a model in memory, evaluated out-of-fold. Shows itself in a notebook and when printed."""

    result: AuditResult
    """Everything that was computed, as of the command line."""

    inputs: LoadedInputs = field(repr=False)
    """Records and target."""

    @property
    def attacks(self) -> Mapping[str, AttackResult]:
        """Scores and figures of each attack."""
        return self.result.attacks

    @property
    def notes(self) -> list[str]:
        """Sentences about the records, the model and its output."""
        return self.result.notes

    @property
    def config(self) -> RunConfig:
        """Options of the run, defaults included."""
        return self.result.config

    @cached_property
    def contents(self) -> Report:
        """Contents of the report: differences between attacks, claims, bounds, sanity checks; computed at first use."""
        from mia_lightning.pipeline.run_report import assess_result, report_of

        started = perf_counter()
        assessment = assess_result(self.result, self.inputs)
        return report_of(self.result, self.inputs, assessment, perf_counter() - started)

    @property
    def verdict(self) -> Verdict:
        """Conclusion in plain words, by the rules of the report."""
        return verdict(self.contents)

    def table(self) -> pd.DataFrame:
        """Return one row per attack: AUC and true-positive rates with 95% intervals, and the numbers of records.

        Columns are auc, auc_low, auc_high, then tpr@FPR, tpr@FPR_low and tpr@FPR_high for each false-positive rate,
        members and non_members.
        """
        rows = {name: _figures(attack.public) for name, attack in self.attacks.items()}
        frame: pd.DataFrame = _pandas().DataFrame.from_dict(rows, orient="index").rename_axis("attack")
        return frame

    def records(self) -> pd.DataFrame:
        """Return one row per record: part, the fold it was scored in, and each attack's score and probability.

        The part is member, non_member or unknown, in the order of the arguments; unknown records are in no fold (-1).
        """
        public, private = self.result.public, self.result.private
        parts = np.array(["unknown", "non_member", "member"])[public.membership + 1]
        columns: dict[str, Any] = {
            "part": np.append(parts, np.full(0 if private is None else len(private.ids), "unknown")),
            "fold": np.append(public.fold, [] if private is None else private.fold).astype(int),
        }
        for name, attack in self.attacks.items():
            columns[name] = np.append(attack.public_scores, attack.private_scores)
            columns[f"{name}_probability"] = np.append(attack.public_probabilities, attack.private_probabilities)
        frame: pd.DataFrame = _pandas().DataFrame(columns)
        return frame

    def ladder(self) -> pd.DataFrame:
        """Return one row per level of access: queries and reference models, figures and the gain over the row above.

        Raises:
            MIAError: too few records.
        """
        run = self.contents.run
        ladder = None if run is None else run.ladder
        if ladder is None or not ladder.rungs:
            raise MIAError("there is no access ladder" if ladder is None else ladder.reason)
        rows = {}
        for rung in ladder.rungs:
            row: dict[str, Any] = {"access": rung.access, "queries": rung.queries, "models": rung.models}
            row |= _figures(rung.evaluation) | {"seconds": rung.seconds}
            for gain in rung.gain:
                name = f"{gain.figure}_gain"
                row |= {name: gain.value, f"{name}_low": gain.low, f"{name}_high": gain.high}
            rows[rung.name] = row
        frame: pd.DataFrame = _pandas().DataFrame.from_dict(rows, orient="index")
        return frame

    def plot_roc(self) -> Figure:
        """Return the ROC of every attack on log axes, out-of-fold, with the 95% band of the submitted one."""
        from mia_lightning.report.plots import plot_roc

        rows = self.result.public.fold != NOT_IN_ANY_FOLD
        scores = {name: attack.public_scores[rows] for name, attack in self.attacks.items()}
        return plot_roc(scores, self.result.public.membership[rows], headline=self.config.submitted)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the content of metrics.json, and write it where a path is given."""
        from mia_lightning.report.files import metrics

        text = json.dumps(metrics(self.contents), indent=2, allow_nan=False)
        if path is not None:
            _write(Path(path), text)
        return text

    def report(self, path: str | Path) -> Path:
        """Write the report and return its path.

        Args:
            path: A file .html, or a folder, which then receives report.html, audit_card.md, metrics.json and
                records.csv.

        Raises:
            MIAError: it cannot be written.
        """
        from mia_lightning.report.figures import draw
        from mia_lightning.report.files import claimed_folder, write_report
        from mia_lightning.report.page import html

        path, drawn = Path(path), list(draw(self.contents))
        if path.suffix.lower() in (".html", ".htm"):
            _write(path, html(self.contents, drawn))
            return path
        with claimed_folder(str(path)) as folder:
            write_report(self.contents, folder, drawn)
        return path / "report.html"

    def __repr__(self) -> str:
        names = list(self.attacks)
        width = max(map(len, names))
        lines = [f"Audit of {self.result.target['architecture']}: {_counts(self.attacks[names[0]].public)}"]
        lines += [f"  {name:<{width}}  {_sentence(attack.public)}" for name, attack in self.attacks.items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """Return verdict and table for a notebook, without scripts or pictures."""
        conclusion = self.verdict
        first = next(iter(self.attacks.values())).public
        head = ["attack", "AUC", *(f"TPR@{100 * point.fpr:g}%" for point in first.points)]
        rows = [[name, *_cells(attack.public)] for name, attack in self.attacks.items()]
        title = f"Audit of {self.result.target['architecture']}: {_counts(first)}"
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in conclusion.sentences)
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        body = "".join(f"<tr>{_row('td', row)}</tr>" for row in rows)
        return (
            f"<div><p><b>{escape(title)}</b></p><p>{escape(conclusion.heading)}.</p><ul>{sentences}</ul>"
            f"<table><thead><tr>{_row('th', head)}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
            f"<p>Out-of-fold, 95% confidence intervals.</p>{f'<ul>{notes}</ul>' if notes else ''}</div>"
        )


def _row(tag: str, cells: list[str]) -> str:
    return "".join(f'<{tag} style="{CELL}">{escape(cell)}</{tag}>' for cell in cells)


def _figures(result: Evaluation) -> dict[str, float | int]:
    figures: dict[str, float | int] = {"auc": result.auc, "auc_low": result.auc_low, "auc_high": result.auc_high}
    for point in result.points:
        name = f"tpr@{point.fpr:g}"
        figures |= {name: point.tpr, f"{name}_low": point.low, f"{name}_high": point.high}
    return figures | {"members": result.n_members, "non_members": result.n_non_members}


def _cells(result: Evaluation) -> list[str]:
    cells = [f"{result.auc:.3f} ({result.auc_low:.3f} to {result.auc_high:.3f})"]
    return cells + [f"{point.tpr:.3f} ({point.low:.3f} to {point.high:.3f})" for point in result.points]


def _sentence(result: Evaluation) -> str:
    names = ["AUC", *(f"TPR@{100 * point.fpr:g}%" for point in result.points)]
    return ", ".join(f"{name} {cell}" for name, cell in zip(names, _cells(result), strict=True))


def _counts(result: Evaluation) -> str:
    return f"{result.n_members:,} members, {result.n_non_members:,} non-members"


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise MIAError("tables need pandas; install it with pip install pandas") from error
    return pd


def _write(path: Path, text: str) -> None:
    from mia_lightning.runtime.atomic import atomic_write

    if not path.absolute().parent.is_dir():
        raise MIAError(f"{path}: its folder does not exist; create it")
    with atomic_write(path.absolute().parent, path.name) as file:
        file.write(text)
