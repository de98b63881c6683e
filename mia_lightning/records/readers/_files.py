"""What several readers ask of a file, without reading it whole."""

import math
import os
import struct
import zipfile
from difflib import get_close_matches
from pathlib import Path

from mia_lightning.errors import MIAError

ZIP_MAGIC = b"PK\x03\x04"
KNOWN_FORMS = (
    "a torch file of a data set (.pt), arrays (.npz, .safetensors), a CSV with images beside it, "
    "a folder, tar or zip of images with one CSV, torchvision:NAME, digits:public, digits:private"
)


def head(source: str, count: int) -> bytes:
    """Return the first bytes of a regular file, or b"" for anything else."""
    if not os.path.isfile(source):
        return b""
    with open(source, "rb") as file:
        return file.read(count)


def zip_kind(source: str) -> str:
    """Say what a zip archive holds: "torch", "arrays" or "other"; "" when the file is no zip.

    The first entry usually tells, and tells even when the file is cut short; else the archive's own list is asked.
    """
    start = head(source, 512)
    if not start.startswith(ZIP_MAGIC) or len(start) < 30:
        return ""
    (length,) = struct.unpack_from("<H", start, 26)
    first = start[30 : 30 + length].decode("utf-8", "replace")
    if (kind := _kind([first])) != "other":
        return kind
    try:
        with zipfile.ZipFile(source) as archive:
            return _kind(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "other"


def _kind(names: list[str]) -> str:
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    return "arrays" if any(name.endswith(".npy") for name in names) else "other"


def missing(path: Path) -> MIAError:
    """Return the error for a path that does not exist, with the closest name that does."""
    try:
        close = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except OSError:
        close = []
    hint = f"did you mean {path.parent / close[0]}? " if close else ""
    return MIAError(f"{path}: no such file or folder; {hint}expected {KNOWN_FORMS}")


def check_file(source: str) -> Path:
    """Return the path of a regular file.

    Raises:
        MIAError: the path is missing, or a folder.
    """
    path = Path(source)
    if not path.exists():
        raise missing(path)
    if not path.is_file():
        raise MIAError(f"{path.name}: is a folder; expected a file, so give the path of a file inside it")
    return path


def check_memory(count: int, shape: tuple[int, ...], itemsize: int, name: str) -> None:
    """Refuse a block of `count` items that cannot fit into memory, before Linux kills the process for it.

    Raises:
        MIAError: the block is larger than the machine's memory.
    """
    needed, present = count * math.prod(shape) * itemsize, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise MIAError(
            f"{name}: claims {needed / 2**30:,.1f} GiB of images, this machine has {present / 2**30:,.1f} GiB; "
            "the file is damaged, or needs to be split"
        )
