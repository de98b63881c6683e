"""Bounds on the memory that a file may claim, checked before any is allocated.

A few kilobytes can claim terabytes: a compressed archive, a tensor expanded from one number, a column of one repeated
value. An honest file decompresses to a modest multiple of its size; any other is refused in one sentence.
"""

import zipfile
from pathlib import Path

from mia_lightning.errors import MIAError

RATIO = 100
"""Bytes in memory per byte of the file; blank images compress further, but not gigabytes of them."""

SPARE = 2**30
"""Bytes that any file may decompress to, however small it is."""


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


def is_zip(path: Path) -> bool:
    """Whether the file ends as a zip archive does; `zipfile.is_zipfile` raises for some damaged ends."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def check_zip(path: Path) -> None:
    """Refuse a zip archive whose members together decompress too far, by the sizes that its own list claims.

    Raises:
        MIAError: see `check_unfolding`; or two members of one name, of which readers pick different ones.
        zipfile.BadZipFile: it is not a zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    check_unfolding(sum(entry.file_size for entry in entries), path)
    if len({entry.filename for entry in entries}) < len(entries):
        raise MIAError(f"{path.name}: contains two members of one name; save it again")
