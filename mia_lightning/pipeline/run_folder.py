"""The folder that a run leaves: every file appears under its name only when it is complete."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal

import numpy as np
import yaml

from mia_lightning.config.files import relative_paths, to_mapping
from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.results import AuditResult, SplitInfo
from mia_lightning.runtime.output_folder import OutputFolder


class RunFolder(OutputFolder):
    """Claims a folder for one configuration and writes the run's files into it.

    Args:
        config: The run; its output folder must be new, empty, or left by an earlier try of this very configuration.

    Raises:
        MIAError: the folder holds another run or other files, another run is writing it, or it cannot be read.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config.output)
        self.text = yaml.safe_dump(relative_paths(to_mapping(config)), sort_keys=False)
        if not self.found:
            return
        if "config.yaml" not in self.found:
            raise MIAError(f"{config.output} holds other files ({self.found[0]}, …); name an empty or new --output")
        try:
            earlier = (self.path / "config.yaml").read_text(encoding="utf-8")
        except OSError as error:
            raise self.cannot("use", error) from error
        if earlier != self.text:
            raise MIAError(f"{config.output} holds another run (its config.yaml differs); name another --output")

    def claim(self) -> None:
        """Create and lock the folder, and write the configuration that reruns it.

        Raises:
            MIAError: the folder cannot be written, or another run was quicker.
        """
        super().claim()
        with self.atomic_write("config.yaml") as file:
            file.write(self.text)

    def write_result(self, result: AuditResult) -> list[str]:
        """Write submission and scores; return the names of the files."""
        written = []
        if result.private is not None:
            self._write("submission.csv", lambda file: _write_submission(file, result))
            written.append("submission.csv")
        self._write("scores.csv", lambda file: _write_scores(file, result))
        written.append("scores.csv")
        if result.config.references.scores:
            self._write("references.csv", lambda file: _write_reference_scores(file, result))
            written.append("references.csv")
        return written

    def _write(self, name: str, write: Callable[[IO[str]], None]) -> None:
        with self.atomic_write(name) as file:
            write(file)


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
    known = ["" if value < 0 else value for value in half.membership.tolist()]
    fold = ["" if value < 0 else value for value in half.fold.tolist()]
    columns = (known, fold, scores[result.config.submitted], probability, *scores.values())
    splits = np.where(half.held_out, "holdout", split).tolist()
    for record, name, *values in zip(half.ids.tolist(), splits, *columns, strict=True):
        yield (record, name, *values)  # csv writes a float by its shortest exact form


PER_RECORD = ("", "_p_value", "_standard_error")
"""Endings of a reference score's columns that say something of the single record."""


def _write_reference_scores(file: IO[str], result: AuditResult) -> None:
    """One row per record, public first: each score from references, its OUT p-value and standard error if any."""
    columns = result.table.columns
    named = [f"{name}{ending}" for name in result.config.references.scores for ending in PER_RECORD]
    named = [name for name in named if name in columns]
    halves = [("public", result.public.ids), *([("private", result.private.ids)] if result.private else [])]
    who = ((record, split) for split, ids in halves for record in ids.tolist())
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("id", "split", *named))
    for key, *values in zip(who, *(columns[name].tolist() for name in named), strict=True):
        writer.writerow((*key, *values))
