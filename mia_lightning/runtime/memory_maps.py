"""Memory maps of .safetensors and of uncompressed .npz entries, for arrays larger than memory."""

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.security.open import create_own, open_regular

Arrays = dict[str, NDArray[Any]]

DTYPES = {
    **{"BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2"},
    **{"U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8"},
}
"""NumPy dtype of each safetensors dtype; bfloat16 and float8 have none."""

NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}

BLOCK = 16 << 20
"""Bytes that are read or written at once."""

HEADER_BYTES = 100_000_000
"""Largest header, as in safetensors."""


def map_safetensors(path: Path) -> Arrays:
    """Return all arrays of a .safetensors file whose dtype NumPy has, as read-only memory maps.

    Args:
        path: A file whose header has been checked, by its checksum or by safetensors itself.

    Raises:
        OSError, ValueError, KeyError, TypeError: it does not exist, or is not of this format.
        MIAError: it is not a regular file.
    """
    with open_regular(path) as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if not 2 <= length <= min(os.fstat(file.fileno()).st_size - 8, HEADER_BYTES):
            raise ValueError(f"{path.name}: wrong length of the header")
        try:
            header = json.loads(file.read(length))
        except RecursionError:
            raise ValueError(f"{path.name}: the header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path.name}: the header is not a mapping")
    header.pop("__metadata__", None)
    return {
        name: _map(path, DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if entry["dtype"] in DTYPES
    }


@contextmanager
def new_safetensors(path: Path, arrays: Mapping[str, tuple[DTypeLike, tuple[int, ...]]]) -> Iterator[Arrays]:
    """Create a .safetensors file whose arrays are filled through writable memory maps within the block.

    Disk space is allocated first: a full disk would kill (SIGBUS) a process that writes through a map.

    Args:
        path: It must not exist.
        arrays: dtype and shape of each array, by name.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    headers = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in arrays.items()}
    offset = 0
    header: dict[str, dict[str, Any]] = {}
    for name in sorted(headers, key=lambda name: (-headers[name][0].itemsize, name)):  # so that each is aligned
        dtype, shape = headers[name]
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with create_own(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.flush()
        _allocate(file, 8 + len(text) + offset)
        maps = {
            name: _map(path, headers[name][0], headers[name][1], 8 + len(text) + entry["data_offsets"][0], mode="r+")
            for name, entry in header.items()
        }
        yield maps
        for array in maps.values():
            if isinstance(array, np.memmap):
                array.flush()
        os.fsync(file.fileno())


def _allocate(file: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    file.seek(0, os.SEEK_END)
    for start in range(file.tell(), size, BLOCK):
        file.write(bytes(min(BLOCK, size - start)))
    file.flush()


def map_npz(path: Path, name: str) -> NDArray[Any] | None:
    """Return one array of an .npz as a read-only memory map, after a check of its CRC-32.

    None if it is compressed, encrypted, in Fortran order or not numeric.

    Args:
        path: An .npz file.
        name: Of the array.

    Raises:
        zipfile.BadZipFile, ValueError, OSError: the entry is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        return None
    with open_regular(path) as file:
        file.seek(entry.header_offset)
        local = file.read(30)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"{name} has no local header")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
        _check_crc(file, start, entry)
        file.seek(start)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            return None
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        offset = file.tell()
    if dtype.hasobject or fortran:
        return None
    if offset - start + math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"{name} has shape {shape}, more than its size")
    return _map(path, dtype, shape, offset)


def _check_crc(file: BinaryIO, start: int, entry: zipfile.ZipInfo) -> None:
    file.seek(start)
    crc, remaining = 0, entry.file_size
    while remaining:
        block = file.read(min(BLOCK, remaining))
        if not block:
            raise zipfile.BadZipFile(f"{entry.filename} is truncated")
        crc, remaining = zlib.crc32(block, crc), remaining - len(block)
    if crc != entry.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")


@dataclass(frozen=True)
class MappedArray:
    """Place of a memory-mapped array in its file; picklable, for other processes on this machine."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    """Byte of the file at which the mapped part begins."""

    size: int
    """Bytes of the mapped part."""

    offset: int
    """Byte of the mapped part at which the array's first element lies."""

    state: tuple[int, ...]
    """Device, inode, size and time of the last change of the file."""

    def open(self) -> NDArray[Any]:
        """Return the array, mapped again and read-only.

        Raises:
            MIAError: the file is gone or was changed since.
        """
        try:
            state, mapped = file_state(self.path), np.memmap(self.path, np.uint8, "r", self.start, (self.size,))
        except (OSError, ValueError):
            state, mapped = (), None
        if mapped is None or state != self.state:
            raise MIAError(f"{printable(self.path, 300)}: was changed during the run; start again")
        return np.ndarray(self.shape, self.dtype, mapped, self.offset, self.strides)


def mapped_array(array: object) -> MappedArray | None:
    """Return where an array, or the array that it is a view of, lies in a file; None for arrays in memory."""
    if not isinstance(array, np.ndarray):
        return None
    root: object = array
    while isinstance(root, np.ndarray) and isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or root.mode != "r" or root.filename is None:
        return None
    path = os.path.abspath(root.filename)
    offset = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    location = (root.offset, root.nbytes, offset, file_state(path))
    return MappedArray(path, array.dtype, array.shape, array.strides, *location)


def file_state(path: str) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written to."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _map(path: Path, dtype: DTypeLike, shape: tuple[int, ...], offset: int, mode: Any = "r") -> NDArray[Any]:
    if 0 in shape:  # an empty map is an error
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode, offset, shape)
