"""Locks between processes that end with their holder: a killed run leaves a file behind, never a lock."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system answers that knows no locks."""


class Lock:
    """A lock of the operating system on a file, which names its holder for others to read.

    Args:
        path: Of the lock file; its folder must be there. The file goes when the lock is released, and stays, without
            meaning, when the holder is killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock and say whether it was taken; False only where another holds it and `wait` is off.

        Raises:
            OSError: the file cannot be made.
        """
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                if error.errno in NO_LOCKS:
                    log.warning("%s: this file system knows no locks, so only one run may use it", self.path.parent)
                    self._file = file
                    return True
                os.close(file)
                if isinstance(error, BlockingIOError):
                    return False
                raise
            except BaseException:  # a signal while waiting
                os.close(file)
                raise
            if self._is_current(file):
                break
            os.close(file)  # the holder before removed it while this one waited
        if stale := _content(self.path):
            log.info("an earlier run (%s) ended without finishing; this one goes on from what it left", stale)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._file = file
        return True

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    @property
    def is_taken(self) -> bool:
        """Whether another process holds it now; makes no file."""
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(file)
        return False

    @property
    def holder(self) -> str:
        """Return "process NUMBER on HOST" of the last holder that did not release it."""
        return _content(self.path) or "a process that did not name itself"

    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Hold it within the block, after waiting for another holder where there is one, which is said.

        Raises:
            OSError: the file cannot be made.
        """
        if not self.acquire():
            log.info("%s: another run (%s) is making the same; waiting for it", what, self.holder)
            self.acquire(wait=True)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:200]
    except OSError:
        return ""
