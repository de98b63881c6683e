"""The folder that a run leaves: every file appears under its name only when it is complete."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import yaml

from mia_lightning.atomic import replacing
from mia_lightning.config import RunConfig, portable, to_mapping
from mia_lightning.errors import MIAError
from mia_lightning.locks import Lock
from mia_lightning.pipeline import AuditResult, Half


class RunFolder:
    """Claims a folder for one configuration and writes the run's files into it.

    Args:
        config: The run; its output folder must be new, empty, or left by an earlier try of this very configuration.

    Raises:
        MIAError: the folder holds another run or other files, another run is writing it, or it cannot be read.
    """

    def __init__(self, config: RunConfig) -> None:
        self.path = Path(config.output)
        self.text = yaml.safe_dump(portable(to_mapping(config)), sort_keys=False)
        self.lock = Lock(self.path / ".lock")
        if self.lock.is_taken:
            raise self._refusal()
        try:
            found = sorted(entry.name for entry in self.path.iterdir()) if self.path.exists() else []
            found = [name for name in found if name != ".lock" and not _is_partial(name)]  # left by a killed run
            earlier = (self.path / "config.yaml").read_text(encoding="utf-8") if "config.yaml" in found else None
        except OSError as error:
            raise MIAError(f"cannot use the output folder {config.output}: {error.strerror}; name another") from error
        if found and earlier is None:
            raise MIAError(f"{config.output} holds other files ({found[0]}, …); name an empty or new --output")
        if earlier is not None and earlier != self.text:
            raise MIAError(f"{config.output} holds another run (its config.yaml differs); name another --output")
        self.is_new = not found

    def _refusal(self) -> MIAError:
        return MIAError(
            f"another run ({self.lock.holder}) is writing into {self.path}; wait for it, or name another --output"
        )

    def claim(self) -> None:
        """Create the folder, lock it until `release`, and write the configuration that reruns it.

        Raises:
            MIAError: the folder cannot be written, or another run was quicker.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            taken = self.lock.acquire()
        except OSError as error:
            raise MIAError(f"cannot create the output folder {self.path}: {error.strerror}; name another") from error
        if not taken:
            raise self._refusal()
        for left in self.path.rglob(".*.partial"):  # by a killed run
            left.unlink(missing_ok=True)
        with self.replacing("config.yaml") as file:
            file.write(self.text)

    def release(self) -> None:
        """Let other runs use the folder; without it the end of the process does."""
        self.lock.release()

    def abandon(self) -> None:
        """Remove the folder again if it was claimed by this run, which failed."""
        if self.is_new:
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def replacing(self, name: str) -> Iterator[IO[str]]:
        """Open a text file that takes its name when the block ends without an error."""
        with replacing(self.path, name) as file:
            yield file

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
        with self.replacing(name) as file:
            write(file)


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(".partial")


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
    writer.writerows(_score_rows(result, "public", result.public))  # records that no fold saw as split hold_out
    if result.private is not None:
        writer.writerows(_score_rows(result, "private", result.private))


def _score_rows(result: AuditResult, split: Literal["public", "private"], half: Half) -> Iterator[tuple[Any, ...]]:
    submitted = result.attacks[result.config.submitted]
    scores = {name: getattr(attack, f"{split}_scores").tolist() for name, attack in result.attacks.items()}
    probability = getattr(submitted, f"{split}_probabilities").tolist()
    known = ["" if value < 0 else value for value in half.membership.tolist()]
    fold = ["" if value < 0 else value for value in half.fold.tolist()]
    columns = (known, fold, scores[result.config.submitted], probability, *scores.values())
    splits = np.where(half.held_out, "hold_out", split).tolist()
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
