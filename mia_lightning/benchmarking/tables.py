"""Table of a benchmark as CSV, Markdown and LaTeX, and on the terminal."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mia_lightning.benchmarking.figures import NAMES, mean_interval


@dataclass(frozen=True)
class TableRow:
    """Figures of one attack with one number of references, over the targets."""

    attack: str
    references: int
    values: tuple[tuple[float, ...], ...]
    """For each target, one for each of `NAMES`."""

    roc: tuple[tuple[float, ...], ...]
    """For each target, the TPR at each FPR of `figures.GRID`."""

    queries: int
    """Queries of the target per record."""

    cost: float
    """Seconds of one audit: training of the references and scoring; NaN where training is not known."""

    def means(self) -> list[tuple[float, float]]:
        """Return mean and half width of the 95% interval of each figure."""
        return list(zip(*(column.tolist() for column in mean_interval(self.values)), strict=True))


PUBLISHED = (
    ("LiRA online (Carlini et al. 2022, table I)", "CIFAR-10, 256 references", "63.8", "8.4 / - / 2.2"),
    ("LiRA online (Carlini et al. 2022, table I)", "CIFAR-100, 256 references", "82.6", "27.6 / - / 11.2"),
)
"""Attack, setting, balanced accuracy and TPR at 0.1 / 0.01 / 0.001% FPR, in %, as printed in the papers."""


def to_csv(rows: Sequence[TableRow]) -> str:
    """Return one line per row; rates in [0, 1]."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    figures = [f"{name}{end}" for name in NAMES for end in ("", " half width")]
    writer.writerow(["attack", "references", "targets", *figures, "queries", "seconds"])
    for row in rows:
        cells = [f"{value:.6f}" if math.isfinite(value) else "" for pair in row.means() for value in pair]
        seconds = f"{row.cost:.1f}" if math.isfinite(row.cost) else ""
        writer.writerow([row.attack, row.references, len(row.values), *cells, row.queries, seconds])
    return stream.getvalue()


def cells(row: TableRow) -> list[str]:
    """Return the text of a row: percentages with the half width of their interval."""
    texts = [row.attack, str(row.references)]
    for mean, half in row.means():
        spread = f" ± {100 * half:.2f}" if math.isfinite(half) else ""
        texts.append(f"{100 * mean:.2f}{spread}")
    return [*texts, str(row.queries), f"{row.cost:.0f}" if math.isfinite(row.cost) else "-"]


HEADER = ("attack", "K", *NAMES, "queries", "seconds")


def to_markdown(rows: Sequence[TableRow], description: str) -> str:
    """Return a table with its setting above and published figures below."""
    lines = [f"{_one_line(description)}. {_explained(rows)}", ""]
    lines += ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(_one_line(cell).replace("|", r"\|") for cell in cells(row)) + " |" for row in rows]
    lines += ["", "As printed in papers, on other models and records:", ""]
    lines += ["| attack | setting | balanced accuracy | TPR@0.1 / 0.01 / 0.001% |", "|---|---|---:|---:|"]
    lines += ["| " + " | ".join(row) + " |" for row in PUBLISHED]
    return "\n".join(lines) + "\n"


def _explained(rows: Sequence[TableRow]) -> str:
    targets = max((len(row.values) for row in rows), default=0)
    return (
        f"Mean over {targets} targets in %, ± half the width of a 95% interval over targets (Student's t; targets "
        "share records and references). K: reference models. Balanced accuracy at the best threshold of each target. "
        "Queries: of the target, per record. Seconds: training of K references and scoring"
    )


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"} | {
    character: f"\\{character}" for character in "%_&#${}"
}
"""Characters that LaTeX would interpret or lacks in its default fonts, to what prints them."""


def to_latex(rows: Sequence[TableRow], description: str) -> str:
    """Return a tabular with the rules of booktabs, its setting and the published figures in comments."""
    comments = [f"{description}. {_explained(rows)}", "Needs \\usepackage{booktabs}; as printed in papers:"]
    comments += [", ".join(row) for row in PUBLISHED]
    lines = [f"% {_one_line(comment)}" for comment in comments]
    lines += [r"\begin{tabular}{l" + "r" * (len(HEADER) - 1) + "}", r"\toprule"]
    lines += [" & ".join(_escaped(name) for name in HEADER) + r" \\", r"\midrule"]
    previous = None
    for row in rows:
        if previous is not None and row.references != previous:
            lines.append(r"\addlinespace")
        previous = row.references
        lines.append(" & ".join(_escaped(cell) for cell in cells(row)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    return _one_line(text).translate({ord(character): printed for character, printed in LATEX.items()})


def _one_line(text: str) -> str:
    return " ".join(text.split())
