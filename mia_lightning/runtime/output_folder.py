"""A folder that one process at a time writes, and where a file appears under its name only when it is complete."""

from __future__ import annotations

import itertools
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from mia_lightning.errors import MIAError
from mia_lightning.runtime.atomic import atomic_write
from mia_lightning.runtime.locks import Lock


class OutputFolder:
    """Looks into a folder, without changing anything yet, and claims it for this process.

    Args:
        path: It need not be there.

    Raises:
        MIAError: another process is writing it, or it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.lock = Lock(self.path / ".lock")
        if self.lock.is_taken:
            raise self._refusal()
        try:
            names = sorted(entry.name for entry in self.path.iterdir()) if self.path.exists() else []
        except OSError as error:
            raise self.cannot("use", error) from error
        self.found = [name for name in names if name != ".lock" and not _is_partial(name)]
        """Names of what is in it, but for what a killed run left of an incomplete file."""

    def cannot(self, what: str, error: OSError) -> MIAError:
        """Return the sentence about a folder that the system refuses."""
        return MIAError(f"cannot {what} the output folder {self.path}: {error.strerror}; name another --output")

    def _refusal(self) -> MIAError:
        return MIAError(
            f"another run ({self.lock.holder}) is writing into {self.path}; wait for it, or name another --output"
        )

    def claim(self) -> None:
        """Create the folder and lock it until `release`.

        Raises:
            MIAError: the folder cannot be written, or another process was quicker.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            taken = self.lock.acquire()
        except OSError as error:
            raise self.cannot("create", error) from error
        if not taken:
            raise self._refusal()
        for left in self.path.rglob(".*.partial"):  # by a killed run
            left.unlink(missing_ok=True)

    def release(self) -> None:
        """Let other processes use the folder; without it the end of this one does."""
        self.lock.release()

    def abandon(self) -> None:
        """Remove the folder again if nothing was in it before."""
        if not self.found:
            shutil.rmtree(self.path, ignore_errors=True)

    def atomic_write(self, name: str) -> AbstractContextManager[IO[str]]:
        """Open a text file that takes its name when the block ends without an error."""
        return atomic_write(self.path, name)


def next_free_folder(path: str) -> str:
    """Return the path itself if nothing exists there, else path-2, path-3 and so on."""
    candidates = itertools.chain([path], (f"{path.rstrip('/')}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not os.path.lexists(candidate))


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(".partial")
