"""Benchmark: train or read the models, score every target, write the table and the ROC curves."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mia_lightning.benchmarking.attacks import available, scores_of_target
from mia_lightning.benchmarking.figures import NAMES, Figures, figures
from mia_lightning.benchmarking.plot import plot_curves
from mia_lightning.benchmarking.pool import BenchmarkPool, digest_of, read_models, train_models
from mia_lightning.benchmarking.tables import TableRow, cells, to_csv, to_latex, to_markdown
from mia_lightning.config.benchmark import BenchmarkConfig
from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.requirements import check_folders
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores import ReferenceScore
from mia_lightning.references.standard_scores import standard_scores
from mia_lightning.references.target_pool import TargetPool
from mia_lightning.report.plots import style
from mia_lightning.runtime.atomic import make_folder, write_atomically
from mia_lightning.runtime.progress import progress_bar
from mia_lightning.runtime.ray_cluster import check_cluster

log = logging.getLogger(__name__)

Results = dict[tuple[str, int], list[tuple[Figures, float]]]
"""Attack and number of references to figures and seconds of each target."""


def run(config: BenchmarkConfig) -> list[TableRow]:
    """Run a benchmark, print its table and write it into the output folder.

    Returns:
        The rows; empty where other tasks of a SLURM array still train models.

    Raises:
        MIAError: any mistake in the options or the files they name.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mia_lightning").setLevel(logging.INFO)
    check_folders([("output", Path(config.output))])
    trains = config.pool is None and config.workers > 0
    check_cluster(config.ray_address, option="--ray_address", used=trains, needs="--workers W without --pool")
    models = read_models(config.pool, config.labels) if config.pool is not None else train_models(config)
    if models is None:
        return []
    pool = TargetPool(models.outputs)
    counts = _counts(config, pool)
    targets = len(pool) if config.targets == "all" else int(config.targets)
    if targets > len(pool):
        raise MIAError(f"--targets {targets}: there are {len(pool)} models; give at most as many, or all")
    folder = Path(config.output)
    make_folder(folder / "targets")
    if not config.heads and config.targets == "all" and counts == (available(pool),):
        results = all_targets(pool, standard_scores())
    else:
        results = _by_target(config, models, pool, range(targets), counts)
    rows = table_rows(results, models.outputs.target.shape[-1], models.seconds)
    write(rows, folder, models.description, non_members=int((~pool.keep).sum(axis=1).min()))
    print_rows(rows, models.description, Console(width=None if sys.stdout.isatty() else 160))
    log.info("wrote benchmark.csv, benchmark.md, benchmark.tex, roc.pdf, roc.svg in %s", folder)
    return rows


def run_targets(config: RunConfig, outputs: ReferenceOutputs | None) -> list[TableRow]:
    """Audit the models of `--evaluation.targets` in turn, each with the others as its references.

    Args:
        config: The run; its reference scores are computed, or the standard ones where there are none.
        outputs: References of the run; None reads `--references.imported`.

    Raises:
        MIAError: no models, or numbers that are not theirs.
    """
    folder = Path(config.output)
    if outputs is None and config.references.imported is not None:
        models = read_models(config.references.imported, config.references.labels, option="--references.imported")
        outputs, description = models.outputs, models.description
        check_folders([("output", folder)])
    elif outputs is not None:
        folder, description = folder / "targets", f"{len(outputs.references)} reference models of the run as targets"
    else:
        raise MIAError("--evaluation.targets needs reference models; give --references.count or --references.imported")
    pool, chosen = TargetPool(outputs), config.evaluation.targets
    numbers = list(range(len(pool))) if chosen in (None, "all") else [int(number) for number in chosen or ()]
    if wrong := [number for number in numbers if not 0 <= number < len(pool)]:
        raise MIAError(f"--evaluation.targets {wrong[0]}: there are models 0 to {len(pool) - 1}")
    if len(pool) < 3:
        raise MIAError(f"--evaluation.targets needs at least three models, there are {len(pool)}")
    results = all_targets(pool, config.references.scores or standard_scores())
    results = {key: [of_targets[number] for number in numbers] for key, of_targets in results.items()}
    rows = table_rows(results, outputs.references.shape[2], float("nan"))
    make_folder(folder)
    write(rows, folder, description, non_members=int((~pool.keep).sum(axis=1).min()))
    print_rows(rows, description, Console(width=None if sys.stdout.isatty() else 160))
    print(f"wrote benchmark.csv, benchmark.md, benchmark.tex, roc.pdf, roc.svg in {folder}")
    return rows


def _counts(config: BenchmarkConfig, pool: TargetPool) -> tuple[int, ...]:
    """Return the numbers of references that a target can have."""
    most = available(pool)
    if config.pool is None:
        return tuple(sorted({count for count in config.references if count <= most}))
    if pool.partner is not None and not pool.mate(0):
        return (most,)
    return tuple(sorted({count for count in config.references if count < most} | {most}))


def all_targets(pool: TargetPool, scores: Mapping[str, ReferenceScore]) -> Results:
    """Return the figures of every score on every model of a pool, by one pass over the models for each score."""
    results: Results = {("Attack P", 0): []}
    phi = np.stack([np.asarray(model, np.float64).mean(axis=1) for model in pool.outputs.references])
    computed = {("Attack P", 0): phi}
    for name, score in scores.items():
        started = perf_counter()
        try:
            computed[name, available(pool)] = score.of_targets(pool)
        except MIAError as error:
            log.info("%s is left out: %s", name, error)
            continue
        log.info("%s: %d targets in %.1f s", name, len(pool), perf_counter() - started)
    for key, values in computed.items():
        results[key] = [(figures(row, member), 0.0) for row, member in zip(values, pool.keep, strict=True)]
    return results


def _by_target(
    config: BenchmarkConfig, models: BenchmarkPool, pool: TargetPool, targets: Sequence[int], counts: tuple[int, ...]
) -> Results:
    """Return the figures of every attack, target by target; those in the output folder are read."""
    key = digest_of(config, models)
    results: Results = {}
    for target in progress_bar(iterable=targets, desc="targets"):
        path = Path(config.output) / "targets" / f"{target:04d}.json"
        stored = _stored(path, key, counts)
        if stored is None:
            stored = [
                (name, count, figures(scores, pool.keep[target]), seconds)
                for name, count, scores, seconds in scores_of_target(config, models, pool, target, counts)
            ]
            content = [[name, count, row.values, row.roc, seconds] for name, count, row, seconds in stored]
            write_atomically(path, json.dumps({"key": key, "counts": counts, "rows": content}).encode())
            log.info("target %d of %d", target + 1, len(targets))
        for name, count, row, seconds in stored:
            results.setdefault((name, count), []).append((row, seconds))
    return results


def _stored(path: Path, key: str, counts: tuple[int, ...]) -> list[tuple[str, int, Figures, float]] | None:
    """Return the figures of a target that an earlier run wrote with the same settings, else None."""
    try:
        content = json.loads(path.read_text())
        if content["key"] != key or tuple(content["counts"]) != counts:
            return None
        return [
            (name, count, Figures(tuple(values), tuple(roc)), seconds)
            for name, count, values, roc, seconds in content["rows"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def table_rows(results: Results, queries: int, training: float) -> list[TableRow]:
    """Return the rows in the order of their number of references.

    Args:
        results: Figures of each target.
        queries: Q.
        training: Seconds of one model.
    """
    rows = []
    for (attack, count), of_targets in results.items():
        seconds = float(np.mean([seconds for _, seconds in of_targets]))
        rows.append(
            TableRow(
                attack,
                count,
                tuple(row.values for row, _ in of_targets),
                tuple(row.roc for row, _ in of_targets),
                queries,
                (count * training if count else 0.0) + seconds,
            )
        )
    return sorted(rows, key=lambda row: row.references)


def write(rows: Sequence[TableRow], folder: Path, description: str, *, non_members: int) -> None:
    """Write the table as CSV, Markdown and LaTeX, and the ROC curves as PDF and SVG."""
    write_atomically(folder / "benchmark.csv", to_csv(rows).encode())
    write_atomically(folder / "benchmark.md", to_markdown(rows, description).encode())
    write_atomically(folder / "benchmark.tex", to_latex(rows, description).encode())
    figure = plot_curves(rows, non_members)
    with style(svg_fonttype="path", pdf_fonttype=42):
        figure.savefig(folder / "roc.pdf", metadata={"CreationDate": None})
        figure.savefig(folder / "roc.svg", metadata={"Date": None})


def print_rows(rows: Sequence[TableRow], description: str, console: Console) -> None:
    """Print the table: AUC, balanced accuracy and TPRs in %, mean and half width of the interval over targets."""
    table = Table(title=description, title_justify="left", title_style="", box=SIMPLE, pad_edge=False)
    for name in ("attack", "K", *NAMES):
        table.add_column(name, justify="left" if name == "attack" else "right", overflow="fold")
    previous = None
    for row in rows:
        if previous is not None and row.references != previous:
            table.add_section()
        previous = row.references
        table.add_row(*cells(row)[: 2 + len(NAMES)])
    console.print(table)
