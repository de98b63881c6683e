"""Atomic writes: a file appears under its name only when it is complete, and never through a symbolic link."""

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from mia_lightning.errors import MIAError
from mia_lightning.security.open import create_own

UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG),
)
"""Errors of a disk or folder that the user can correct."""

STORE_FIX = "free space, or name another --cache_dir"


@contextmanager
def readable_write_error(what: str, fix: str) -> Iterator[None]:
    """Turn an error of the disk or the folder into one sentence.

    Args:
        what: File and folder, such as "scores.csv into runs".
        fix: Advice to the user.

    Raises:
        MIAError: in place of an OSError among `UNWRITABLE`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise MIAError(f"cannot write {what}: {error.strerror}; {fix}") from error


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes `path` when the block ends without an error.

    A symbolic link at `path` is replaced itself; the file it points to is not changed.

    Raises:
        OSError: the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a killed process with this id
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def atomic_open(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `path` when the block ends without an error.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    with replacement(path) as partial, create_own(partial) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_write(folder: Path, name: str) -> Iterator[IO[str]]:
    """Open a text file (UTF-8) that takes its name when the block ends without an error.

    Raises:
        MIAError: the disk is full or the folder cannot be written.
    """
    with (
        readable_write_error(f"{name} into {folder.name}", "free space or permit it"),
        atomic_open(folder / name) as file,
    ):
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        yield text
        text.detach()  # `atomic_open` closes the file


def write_json(path: Path, content: Any) -> None:
    """Write plain values, and create the folder.

    Raises:
        MIAError: the disk is full or the folder cannot be written.
    """
    with readable_write_error(f"{path.name} into {path.parent}", "free space or permit it"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(path) as file:
            file.write(json.dumps(content, indent=2, allow_nan=False).encode())


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file of the store, and create its folder.

    Raises:
        MIAError: the disk is full, the folder cannot be written or is a symbolic link.
    """
    with readable_write_error(f"{path.name} into the store", STORE_FIX):
        make_folder(path.parent)
        with atomic_open(path) as file:
            file.write(payload)


def make_folder(path: Path) -> None:
    """Create a folder of our own and its parents, if they do not exist.

    Raises:
        MIAError: it is a symbolic link, through which files elsewhere would be changed or deleted.
        OSError: it cannot be created.
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise MIAError(f"{path}: is a symbolic link; expected a folder that this tool created; remove the link")
