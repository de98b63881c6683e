"""Checks of a file that several readers share, without reading all of it."""

import math
import os
import struct
import zipfile
from pathlib import Path
from urllib.parse import parse_qsl

from mia_lightning.errors import MIAError, suggest
from mia_lightning.security.archives import check_list
from mia_lightning.security.file_kinds import file_kind
from mia_lightning.security.open import check_regular, open_regular

ZIP_MAGIC = b"PK\x03\x04"

ARCHIVES = ("zip", "tar", "gzip", "xz", "bzip2", "folder")
"""Kinds that readers read, so that their name alone explains nothing."""


def head(source: str, count: int) -> bytes:
    """Return the first bytes of a regular file, or b"" for anything else."""
    try:
        with open_regular(source) as file:
            return file.read(count)
    except (OSError, MIAError):
        return b""


def named_set(source: str, prefix: str) -> tuple[str, str | None]:
    """Return the name and the folder of a data set such as `torchvision:CIFAR10?root=DIR`.

    Raises:
        MIAError: an option other than root.
    """
    name, _, query = source.removeprefix(prefix).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options.keys() - {"root"}:
        raise MIAError(f"{source}: unknown option {option!r}; {suggest(option, ['root'])}")
    return name, options.get("root") or None


def zip_kind(source: str) -> str:
    """Return what a zip archive holds: "torch", "arrays" or "other"; "" when the file is not a zip.

    The first entry usually decides, even when the file is cut short; else the archive's own list does.
    """
    start = head(source, 512)
    if not start.startswith(ZIP_MAGIC) or len(start) < 30:
        return ""
    (length,) = struct.unpack_from("<H", start, 26)
    first = start[30 : 30 + length].decode("utf-8", "replace")
    if (content := _kind([first])) != "other":
        return content
    try:
        check_list(Path(source))
        with zipfile.ZipFile(source) as archive:
            return _kind(archive.namelist())
    except (MIAError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return "other"


def _kind(names: list[str]) -> str:
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    return "arrays" if any(name.endswith(".npy") for name in names) else "other"


def check_file(source: str) -> Path:
    """Return the path of a regular file.

    Raises:
        MIAError: it is a folder, named pipe or device.
        FileNotFoundError: it is missing.
    """
    if os.path.isdir(source):
        raise MIAError(f"{Path(source).name}: is {kind_or(source, 'a folder; give the path of a file inside it')}")
    return check_regular(source)


def kind_or(source: str | Path, otherwise: str) -> str:
    """Return ``a Git LFS pointer ...; run: git lfs pull`` for a recognized file or folder, else the given words."""
    recognized = file_kind(source)
    return (
        otherwise
        if recognized is None or recognized.name in ARCHIVES
        else f"{recognized.description}; {recognized.fix}"
    )


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
