"""Text files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mia_lightning.errors import MIAError


@contextmanager
def replacing(folder: Path, name: str) -> Iterator[IO[str]]:
    """Open a text file that takes its name when the block ends without an error.

    Raises:
        MIAError: the disk is full or the folder cannot be written.
    """
    final, partial = folder / name, folder / f".{name}.partial"
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        raise MIAError(f"cannot write {name} into {folder.name}: {error.strerror}; free space or permit it") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
