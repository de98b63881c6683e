"""One run with everything around it: folder, TensorBoard, progress, the table on the terminal."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from tqdm import tqdm

from mia_lightning.assess import assess
from mia_lightning.assessment import Assessment, Guard, ScoredRecords
from mia_lightning.config import RunConfig
from mia_lightning.crossfit import NO_FOLD
from mia_lightning.errors import MIAError
from mia_lightning.evaluation_files import write_assessment
from mia_lightning.evaluation_tables import print_guards
from mia_lightning.guards import generalisation_gap
from mia_lightning.hardware import is_first_process
from mia_lightning.pipeline import AuditResult, Prepared, attack_target, prepare
from mia_lightning.plots import plot_roc
from mia_lightning.records import UNKNOWN
from mia_lightning.run_folder import RunFolder
from mia_lightning.tensorboard import TensorBoard
from mia_lightning.terminal import print_result


def run(config: RunConfig) -> AuditResult:
    """Audit the target, leave a run folder and print the figures.

    Raises:
        MIAError: any mistake in the configuration, the files it names, or the output folder. A folder that this run
            created is removed again.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mia_lightning").setLevel(logging.INFO)
    if not is_first_process():  # started by Lightning to help with extraction, and ended by it
        return attack_target(config, prepare(config))
    folder = RunFolder(config)
    try:
        return _run(config, folder)
    finally:
        folder.release()


def _run(config: RunConfig, folder: RunFolder) -> AuditResult:
    prepared = prepare(config)
    folder.claim()
    try:
        result = _attack(config, prepared, folder)
    except MIAError:
        folder.abandon()
        raise
    written = folder.write_result(result)
    _write_roc(folder, result)
    console = Console(width=None if sys.stdout.isatty() else 100)  # a file or pipe has no width of its own
    print_result(result, console)
    assessment = assess_result(result, prepared)
    print_guards(assessment.guards, console)
    evaluation = write_assessment(assessment, folder.subfolder("evaluation"), notes=result.notes)
    _say_next(config, [*written, "roc.svg", *(f"evaluation/{name}" for name in evaluation)], console)
    return result


def assess_result(result: AuditResult, prepared: Prepared) -> Assessment:
    """Assess the out-of-fold scores of all attacks as `mia_lightning.evaluate` does, with the guards that need images.

    Args:
        result: From `attack_target`.
        prepared: What it was made from.
    """
    known = np.flatnonzero(result.public.fold != NO_FOLD)
    public, member = prepared.public, result.public.membership[known]
    labels = None if (public.labels == UNKNOWN).any() else public.labels[known]
    records = ScoredRecords(
        ids=public.ids[known],
        membership=member,
        scores={name: attack.public_scores[known] for name, attack in result.attacks.items()},
        labels=labels,
        source=public.source,
    )
    return assess(
        records,
        seed=result.config.seed,
        folds=result.config.evaluation.folds,
        pixels=public.images if len(known) == len(public) else public.images[known],  # an index would copy them
        guards=() if labels is None else (_gap(result, member),),
    )


def _gap(result: AuditResult, member: NDArray[np.int8]) -> Guard:
    counts = int((member == 1).sum()), int((member == 0).sum())
    rates = (float(str(result.target[f"accuracy_on_{side}"])) for side in ("members", "non_members"))
    inside, outside = (round(rate * count) for rate, count in zip(rates, counts, strict=True))
    return generalisation_gap((inside, outside), counts)


def _attack(config: RunConfig, prepared: Prepared, folder: RunFolder) -> AuditResult:
    board = TensorBoard(folder.path / "tensorboard")
    with _FitProgress(len(config.attacks) * config.evaluation.folds) as progress:
        result = attack_target(config, prepared, progress=progress, report=board.report)
    board.finish(result)
    return result


class _FitProgress:
    """One bar over all fits of all attacks, which appears at the first fit."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, name: str, fold: int) -> None:
        if self.bar is None:
            self.bar = tqdm(total=self.fits, unit="fit", disable=None)
        else:
            self.bar.update()
        self.bar.set_description(f"attack {name}, fold {fold + 1}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            if kind is None:
                self.bar.update()
            self.bar.close()


def _write_roc(folder: RunFolder, result: AuditResult) -> None:
    known = result.public.fold != NO_FOLD
    scores = {name: attack.public_scores[known] for name, attack in result.attacks.items()}
    figure = plot_roc(scores, result.public.membership[known], title="Public records, out-of-fold")
    with folder.replacing("roc.svg") as file:
        figure.savefig(file, format="svg")


def _say_next(config: RunConfig, written: list[str], console: Console) -> None:
    for line in (
        f"wrote {', '.join(written)} in {config.output}",
        f"look:  tensorboard --logdir {config.output}/tensorboard",
        f"rerun: train.py --config {config.output}/config.yaml --output {config.output}-again",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
