"""The trials of a sweep, one line each, written when a trial ends: what a killed sweep goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.search.trial import Trial


class Journal:
    """An append-only file of finished trials.

    Args:
        folder: Of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.jsonl"

    def read(self) -> list[Trial]:
        """Return the trials so far; a line that a kill cut short is none, and is cut off."""
        if not self.path.exists():
            return []
        trials, good = [], 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                trials.append(Trial.from_dict(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                trials.pop()
                break
            good += len(line)
        with self.path.open("r+b") as file:
            file.truncate(good)
        return trials

    def append(self, trial: Trial) -> None:
        """Add a trial; it is on the disk when this returns.

        Raises:
            MIAError: the disk is full or cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trial.to_dict()) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MIAError(f"cannot write {self.path}: {error.strerror}; free space or permit it") from error
