"""Text files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mia_lightning.errors import MIAError

UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EEXIST),
)
"""What is wrong with a disk or a folder when it is the user who has to help."""


@contextmanager
def atomic_write(folder: Path, name: str) -> Iterator[IO[str]]:
    """Open a text file that takes its name when the block ends without an error.

    Raises:
        MIAError: the disk is full or the folder cannot be written.
    """
    final, partial = folder / name, folder / f".{name}.{os.getpid()}.partial"
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        if error.errno not in UNWRITABLE:
            raise
        raise MIAError(f"cannot write {name} into {folder.name}: {error.strerror}; free space or permit it") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
