"""Output folders that one process at a time writes, and where a file appears only when it is complete."""

import itertools
import os
import shlex
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from mia_lightning.errors import MIAError, printable
from mia_lightning.runtime.atomic import atomic_write
from mia_lightning.runtime.locks import Lock


class OutputFolder:
    """A folder to acquire for this process; creating this object changes nothing on the disk.

    Args:
        path: It need not exist.

    Raises:
        MIAError: another process is writing it, or it cannot be read.
    """

    def __init__(self, path: str) -> None:
        if not path.strip():
            raise MIAError("--output is empty; name a folder, such as --output runs/a")
        self.path = Path(path)
        self.lock = Lock(self.path / ".lock")
        try:
            entries = sorted(os.scandir(self.path), key=lambda entry: entry.name) if self.path.exists() else []
        except OSError as error:
            raise self.cannot("use", error) from error
        if self.lock.is_locked:
            raise self._refusal()
        self.names = [entry.name for entry in entries if entry.name != ".lock" and not _is_partial(entry.name)]
        """Names of its files, except for incomplete ones of a killed run."""

    def check_kinds(self, folders: Collection[str] = ()) -> None:
        """Check, before any work, that its files can be replaced at the end.

        Links, named pipes and the like in place of a file are replaced; what a link points to stays.

        Args:
            folders: Names of the folders among its entries.

        Raises:
            MIAError: a folder has the name of a file, something else the name of a folder, or a link leads to a folder.
        """
        if self.names:  # without any, the folder may not exist
            self._refuse_linked_folders()
        for name in self.names:
            is_folder = stat.S_ISDIR((self.path / name).lstat().st_mode)
            if is_folder != (name in folders):
                form = "a folder; expected a file" if is_folder else "not a folder"
                raise MIAError(f"{self.path / name}: is {form}; remove it, or name another --output")

    def cannot(self, what: str, error: OSError) -> MIAError:
        """Return the error of a folder to which the system denies access."""
        return MIAError(f"cannot {what} the output folder {self.path}: {error.strerror}; name another --output")

    def other_files(self, name: str) -> MIAError:
        """Return the error of a folder that has a file which no result of this kind has."""
        free = shlex.quote(next_free_folder(str(self.path)))
        shown = printable(name, 60)
        return MIAError(f"{self.path} holds other files ({shown}, …); name an empty or new folder: --output {free}")

    def _refusal(self) -> MIAError:
        return MIAError(
            f"another run ({self.lock.holder}) is writing into {self.path}; wait for it, or name another --output"
        )

    def acquire(self) -> None:
        """Create the folder and lock it until `release`.

        Raises:
            MIAError: the folder cannot be written, or another process has locked it since.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            acquired = self.lock.acquire()
        except OSError as error:
            raise self.cannot("create", error) from error
        if not acquired:
            raise self._refusal()
        for partial in self.path.rglob(".*.partial"):  # of a killed run
            with suppress(OSError):
                partial.unlink()

    def release(self) -> None:
        """Unlock the folder; otherwise the end of this process does."""
        self.lock.release()

    def discard(self) -> None:
        """Remove the folder again if it was empty before."""
        if not self.names:
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def acquired(self) -> Iterator[None]:
        """Hold the folder within the block; a block that fails discards it.

        Raises:
            MIAError: see `acquire`.
        """
        self.acquire()
        try:
            yield
        except BaseException:
            self.discard()
            raise
        finally:
            self.release()

    def atomic_write(self, name: str) -> AbstractContextManager[IO[str]]:
        """Open a text file that takes its name when the block ends without an error.

        Raises:
            MIAError: a folder in this one is a symbolic link, through which files elsewhere would be changed.
        """
        self._refuse_linked_folders()
        return atomic_write(self.path, name)

    def _refuse_linked_folders(self) -> None:
        for entry in os.scandir(self.path):
            if entry.is_symlink() and entry.is_dir():
                raise MIAError(f"{entry.path}: is a symbolic link to a folder; remove it, or name another --output")


def next_free_folder(path: str) -> str:
    """Return the path itself if nothing exists there, else path-2, path-3 and so on."""
    candidates = itertools.chain([path], (f"{path.rstrip('/')}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not os.path.lexists(candidate))


def remove(path: Path) -> None:
    """Remove a file, a link or a folder; what a link points to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(".partial")
