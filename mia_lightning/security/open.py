"""The opener of every file: regular files only, without blocking.

A named pipe or device where a file is expected would block for ever or never end, and a symbolic link that somebody
left in a run folder would turn a write into it into a write elsewhere. Files of the user's are opened by
`open_regular` (links are followed, as the user may have made them); files that a run wrote itself by `open_own` and
`create_own` (links are refused).
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mia_lightning.errors import MIAError

_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_KINDS: dict[str, Callable[[int], bool]] = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def check_regular(path: str | Path) -> Path:
    """Return the path of a regular file, for libraries that open a file by its name.

    Raises:
        MIAError: it is a folder, named pipe, socket or device, or no path at all.
        OSError: it is missing or cannot be looked at.
    """
    try:
        _check_mode(os.stat(path).st_mode, path)
    except ValueError:
        raise _no_path(path) from None
    return Path(path)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading in binary, following links, without ever blocking.

    Raises:
        MIAError: it is a folder, named pipe, socket or device, or no path at all.
        OSError: it is missing or cannot be read.
    """
    return _open(path, os.O_RDONLY)


def open_own(path: str | Path) -> BinaryIO:
    """Open a file that a run wrote itself for reading in binary; a symbolic link is refused.

    Raises:
        MIAError: it is a symbolic link, folder, named pipe, socket or device.
        OSError: it is missing or cannot be read.
    """
    return _open(path, os.O_RDONLY | _NO_LINK)


def create_own(path: str | Path) -> BinaryIO:
    """Create a file for writing in binary that did not exist; nothing that is already there is opened.

    Write under a temporary name in the final folder, then `os.replace` it: that replaces a link, never its target.

    Raises:
        FileExistsError: something of this name exists, a dangling link included.
        OSError: it cannot be written.
    """
    return _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK)


def update_own(path: str | Path) -> BinaryIO:
    """Open a file that a run wrote itself for reading and writing in binary, created empty if there is none.

    Raises:
        MIAError: it is a symbolic link, folder, named pipe, socket or device.
        OSError: it cannot be written.
    """
    return _open(path, os.O_RDWR | os.O_CREAT | _NO_LINK)


def _open(path: str | Path, flags: int) -> BinaryIO:
    try:
        descriptor = os.open(path, flags | _NO_WAIT | _BINARY, 0o666)
    except ValueError:
        raise _no_path(path) from None
    except OSError as error:
        if error.errno == errno.ELOOP and flags & _NO_LINK and os.path.islink(path):
            raise MIAError(f"{_name(path)}: is a symbolic link, refused; remove it") from None
        if error.errno == errno.ENXIO:  # a socket, or a device without hardware
            raise MIAError(f"{_name(path)}: is a socket or device; expected a regular file") from None
        raise
    try:
        _check_mode(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "wb" if flags & os.O_WRONLY else "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_mode(mode: int, path: str | Path) -> None:
    if stat.S_ISREG(mode):
        return
    form = next((form for form, matches in _KINDS.items() if matches(mode)), "not a regular file")
    raise MIAError(f"{_name(path)}: is {form}; expected a regular file")


def _no_path(path: str | Path) -> MIAError:
    return MIAError(f"{str(path)[:80]!r} is not a path (it contains a NUL character)")


def _name(path: str | Path) -> str:
    return Path(path).name or str(path)
