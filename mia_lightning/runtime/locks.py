"""Locks between processes that end with their holder: a killed run leaves a file, never a lock."""

import errno
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mia_lightning.errors import MIAError, printable
from mia_lightning.security.open import open_own

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without locks."""


class Lock:
    """A lock on a file, which names its holder.

    Args:
        path: Lock file, in a folder that exists. It is removed on release; if the holder is killed it stays, without
            effect.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, fallback_to_soft=False)

    def acquire(self, *, wait: bool = False) -> bool:
        """Acquire the lock and return whether it succeeded; False only if another process holds it and `wait` is off.

        Raises:
            MIAError: something other than a regular file has the name of the lock file.
            OSError: the file cannot be created.
        """
        self._check_kind()
        try:
            self._lock.acquire(blocking=wait)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning("%s: this file system has no locks, so only one run may use it at a time", self.path.parent)
            return True
        if stale := self._content():
            log.info("an earlier run (%s) ended without finishing; resuming from its files", stale)
        self.path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        return True

    def _check_kind(self) -> None:
        with suppress(OSError):
            if not stat.S_ISREG(os.lstat(self.path).st_mode):
                raise MIAError(f"{self.path}: is not a regular file, as a lock has to be; remove it")

    @property
    def is_locked(self) -> bool:
        """Whether another process holds it now; creates no file."""
        self._check_kind()
        if not self.path.exists():
            return False
        probe = FileLock(self.path, fallback_to_soft=False)
        try:
            probe.acquire(blocking=False)
        except Timeout:
            return True
        except OSError:
            return False
        probe.release()
        return False

    @property
    def holder(self) -> str:
        """Return "process NUMBER on HOST" of the last holder that did not release it."""
        return self._content() or "an unknown process"

    def _content(self) -> str:
        with suppress(OSError, MIAError), open_own(self.path) as file:
            return printable(file.read(200).decode(errors="replace").strip())
        return ""

    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Hold it within the block, after waiting for another holder, which is logged.

        Raises:
            OSError: the file cannot be created.
        """
        if not self.acquire():
            log.info("%s: waiting for another run (%s) that is making the same", what, self.holder)
            self.acquire(wait=True)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._lock.is_locked:
            self.path.unlink(missing_ok=True)  # before the release: whoever locked the old file by then tries again
            self._lock.release()
