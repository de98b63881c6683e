"""How much memory a file may ask for, decided before any is taken.

A few kilobytes can claim terabytes: a compressed archive, a tensor expanded from one number, a column of one repeated
value. What is honest unfolds to a modest multiple of the file's size; the rest is refused in one sentence.
"""

import zipfile
from pathlib import Path

from mia_lightning.errors import MIAError

RATIO = 100
"""Blank images compress further, but not gigabytes of them."""

SPARE = 2**30
"""Bytes that any file may unfold to, however small it is."""


def check_unfolding(needed: int, path: Path) -> None:
    """Refuse what takes far more bytes in memory than in the file.

    Args:
        needed: Bytes in memory, as the file claims them.
        path: The file.

    Raises:
        MIAError: over 1 GiB and 100 times the size of the file.
    """
    limit = SPARE + RATIO * path.stat().st_size
    if needed > limit:
        raise MIAError(
            f"{path.name}: unfolds to over {limit >> 30} GiB, like a decompression bomb; save it again as plain arrays"
        )


def is_zip(path: Path) -> bool:
    """Say whether the file ends as a zip archive does; `zipfile.is_zipfile` raises for some damaged ends."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def check_zip(path: Path) -> None:
    """Refuse a zip archive whose members together unfold too far, by the sizes that its own list claims.

    Raises:
        MIAError: see `check_unfolding`; or two members of one name, of which readers pick different ones.
        zipfile.BadZipFile: it is no zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    check_unfolding(sum(entry.file_size for entry in entries), path)
    if len({entry.filename for entry in entries}) < len(entries):
        raise MIAError(f"{path.name}: holds two members of one name; save it again")
