"""Output folder of a run; every file is written atomically."""

import csv
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from mia_lightning.config.files import relative_paths, to_mapping
from mia_lightning.config.invocation import command_line, option
from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.results import AuditResult, SplitInfo
from mia_lightning.runtime.output_folder import OutputFolder, next_free_folder, remove
from mia_lightning.security.open import open_own

FILES = (
    *("config.yaml", "submission.csv", "scores.csv", "references.csv", "exposure.csv", "records.csv"),
    *("decision.json", "decision.xml", "decision.md"),
    *("private_records.csv", "metrics.json", "report.html", "audit_card.md", "roc.svg", "tensorboard", "targets"),
)
"""Names of everything that a run writes into its folder."""

LARGEST = 2**20
"""Bytes that are read of an earlier configuration."""

PER_RECORD = ("", "_p_value", "_standard_error")
"""Suffixes of a reference score's columns with one value per record."""


class RunFolder(OutputFolder):
    """Folder of one configuration, which is new, empty, or contains an earlier run.

    Args:
        config: The run. An earlier run of the same configuration is completed.
        overwrite: Whether an earlier run of another configuration is replaced.

    Raises:
        MIAError: the folder contains another run or other files, another run is writing it, or it cannot be read.
    """

    def __init__(self, config: RunConfig, *, overwrite: bool = False) -> None:
        super().__init__(config.output)
        self.text = yaml.safe_dump(relative_paths(to_mapping(config)), sort_keys=False)
        self.replaced: list[str] = []
        """Files of an earlier run, to be removed when the folder is claimed."""
        if not self.names:
            return
        foreign = [name for name in self.names if name not in FILES]
        if "config.yaml" not in self.names or (overwrite and foreign):
            raise self.other_files((foreign or self.names)[0])
        if self._earlier_configuration() == self.text:
            self.check_kinds(folders=("tensorboard",))
            return
        if not overwrite:
            free = command_line(option("output", next_free_folder(config.output)))
            raise MIAError(
                f"{config.output} holds another run (its config.yaml differs); use {free}, or --overwrite to replace it"
            )
        self.replaced = self.names

    def _earlier_configuration(self) -> str:
        try:
            with open_own(self.path / "config.yaml") as file:
                return file.read(LARGEST).decode("utf-8", errors="replace")
        except OSError as error:
            raise self.cannot("use", error) from error

    def acquire(self) -> None:
        """Create and lock the folder, remove a replaced run, and write the configuration that reproduces this one.

        Raises:
            MIAError: the folder cannot be written, or another run claimed it first.
        """
        super().acquire()
        for name in self.replaced:
            remove(self.path / name)
        with self.atomic_write("config.yaml") as file:
            file.write(self.text)

    def write_result(self, result: AuditResult) -> list[str]:
        """Write submission and scores; return the names of the files."""
        writers: dict[str, Callable[[IO[str], AuditResult], None]] = {}
        if result.private is not None:
            writers["submission.csv"] = _write_submission
        writers["scores.csv"] = _write_scores
        if result.config.references.all_scores:
            writers["references.csv"] = _write_reference_scores
        if result.exposure is not None:
            writers["exposure.csv"] = _write_exposure
        for name, write in writers.items():
            with self.atomic_write(name) as file:
                write(file, result)
        return list(writers)


def _write_submission(file: IO[str], result: AuditResult) -> None:
    """One row per private record, in the private order."""
    assert result.private is not None
    submitted = result.attacks[result.config.submitted]
    by_score = result.config.submission.value == "score"
    values = submitted.private_scores if by_score else submitted.private_probabilities
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(result.config.submission.columns)
    writer.writerows(zip(result.private.ids.tolist(), values.tolist(), strict=True))


def _write_scores(file: IO[str], result: AuditResult) -> None:
    """One row per record, public first: the submitted attack's score and probability, then every attack's score."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("id", "split", "membership", "fold", "score", "probability", *result.attacks))
    writer.writerows(_score_rows(result, "public", result.public))  # records that no fold saw as split holdout
    if result.private is not None:
        writer.writerows(_score_rows(result, "private", result.private))


def _score_rows(result: AuditResult, split: Literal["public", "private"], half: SplitInfo) -> Iterator[tuple[Any, ...]]:
    submitted = result.attacks[result.config.submitted]
    scores = {name: getattr(attack, f"{split}_scores").tolist() for name, attack in result.attacks.items()}
    probability = getattr(submitted, f"{split}_probabilities").tolist()
    member = ["" if value < 0 else value for value in half.membership.tolist()]
    fold = ["" if value < 0 else value for value in half.fold.tolist()]
    columns = (member, fold, scores[result.config.submitted], probability, *scores.values())
    splits = np.where(half.held_out, "holdout", split).tolist()
    for record, name, *values in zip(half.ids.tolist(), splits, *columns, strict=True):
        yield (record, name, *values)  # csv writes a float by its shortest exact form


def _write_reference_scores(file: IO[str], result: AuditResult) -> None:
    """One row per record, public first: each score from references, its OUT p-value and standard error if any."""
    columns = result.table.columns
    named = [f"{name}{ending}" for name in result.config.references.all_scores for ending in PER_RECORD]
    named = [name for name in named if name in columns]
    _write_columns(file, result, {name: columns[name] for name in named})


def _write_exposure(file: IO[str], result: AuditResult) -> None:
    """One row per record, public first: how far training on it moves phi; nan where too few references are drawn."""
    assert result.exposure is not None
    _write_columns(file, result, vars(result.exposure))


def _write_columns(file: IO[str], result: AuditResult, columns: Mapping[str, NDArray[np.floating]]) -> None:
    halves = [("public", result.public.ids), *([("private", result.private.ids)] if result.private else [])]
    who = ((record, split) for split, ids in halves for record in ids.tolist())
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("id", "split", *columns))
    for key, *values in zip(who, *(column.tolist() for column in columns.values()), strict=True):
        writer.writerow((*key, *values))
