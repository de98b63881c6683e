"""Bounds on the memory that a file may claim, checked before any is allocated.

A few kilobytes can claim terabytes: a compressed archive, a tensor expanded from one number, a column of one repeated
value. An honest file decompresses to a modest multiple of its size; any other is refused in one sentence.
"""

import os
import struct
import zipfile
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.security.open import open_regular

RATIO = 100
"""Bytes in memory per byte of the file; blank images compress further, but not gigabytes of them."""

LONGEST_LIST = 2**23
"""Bytes of the list at the end of an archive of tensors or arrays: some 100,000 members, which take seconds to list."""

SPARE = 2**30
"""Bytes that any file may decompress to, however small it is."""

END = 22
"""Bytes of the record that ends a zip archive, without its comment."""


def check_unfolding(needed: int, path: Path) -> None:
    """Refuse a file that takes far more bytes in memory than on disk.

    Args:
        needed: Bytes in memory, as the file claims them.
        path: The file.

    Raises:
        MIAError: over 1 GiB and 100 times the size of the file.
    """
    limit = SPARE + RATIO * path.stat().st_size
    if needed > limit:
        raise MIAError(
            f"{path.name}: decompresses to more than {limit >> 30} GiB ({RATIO} times its size), refused; save it "
            "again as plain arrays"
        )


def check_list(path: Path, longest: int = LONGEST_LIST) -> None:
    """Refuse a zip archive with a list of too many members, by the size that its end states; any other file passes.

    Args:
        path: The file.
        longest: Most bytes of the list.

    Raises:
        MIAError: the list takes more.
    """
    try:
        size = _list_size(path)
    except (MIAError, OSError, struct.error):  # missing, not a regular file, cut short: named elsewhere
        return
    if size > longest:
        raise MIAError(
            f"{path.name}: lists its members in {size >> 20} MiB, more than its content needs ({longest >> 20} MiB), "
            "refused; save it again"
        )


def _list_size(path: Path) -> int:
    """Return the bytes of a zip archive's list of members, 0 for other files."""
    with open_regular(path) as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(length - END - 2**16, 0))
        tail = file.read()
        position = tail.rfind(b"PK\x05\x06")
        if position < 0 or len(tail) < position + END:
            return 0
        (size,) = struct.unpack_from("<L", tail, position + 12)
        locator = tail[max(position - 20, 0) : position]
        if locator.startswith(b"PK\x06\x07"):  # of an archive above 4 GiB or 65,535 members
            file.seek(struct.unpack_from("<Q", locator, 8)[0])
            record = file.read(56)
            size = struct.unpack_from("<Q", record, 40)[0] if record.startswith(b"PK\x06\x06") else 0
        return int(size)


def is_zip(path: Path) -> bool:
    """Whether the file ends as a zip archive does; `zipfile.is_zipfile` raises for some damaged ends."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def check_zip(path: Path) -> None:
    """Refuse a zip archive whose members together decompress too far, by the sizes that its own list claims.

    Raises:
        MIAError: see `check_list`, `check_unfolding`; or two members of one name, of which readers pick different ones.
        zipfile.BadZipFile: it is not a zip archive.
    """
    check_list(path)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    check_unfolding(sum(entry.file_size for entry in entries), path)
    if len({entry.filename for entry in entries}) < len(entries):
        raise MIAError(f"{path.name}: contains two members of one name; save it again")
