"""Arrays that stay in their file: memory maps of uncompressed .npz entries and of .safetensors."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

Arrays = dict[str, NDArray[Any]]

DTYPES = {
    **{"BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2"},
    **{"U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8"},
}
"""Names that safetensors gives to the dtypes NumPy has."""

NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}

BLOCK = 16 << 20
"""Bytes that are worked on at once."""


def map_safetensors(path: Path) -> Arrays:
    """Return all arrays of a .safetensors file whose dtype NumPy has, as read-only memory maps.

    Args:
        path: A file whose header has been checked, by its checksum or by safetensors itself.

    Raises:
        OSError, ValueError, KeyError, TypeError: no such file, or not one of this form.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError(f"{path.name}: the header is said to have {length} bytes")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: _map(path, DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if entry["dtype"] in DTYPES
    }


@contextmanager
def new_safetensors(path: Path, arrays: Mapping[str, tuple[DTypeLike, tuple[int, ...]]]) -> Iterator[Arrays]:
    """Create a .safetensors file whose arrays are filled through writable memory maps within the block.

    The room is taken on the disk before anything is written, since a full disk would end a process that writes through
    a map.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    kinds = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in arrays.items()}
    offset = 0
    header: dict[str, dict[str, Any]] = {}
    for name in sorted(kinds, key=lambda name: (-kinds[name][0].itemsize, name)):  # so that each begins aligned
        dtype, shape = kinds[name]
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.flush()
        _reserve(file, 8 + len(text) + offset)
        maps = {
            name: _map(path, kinds[name][0], kinds[name][1], 8 + len(text) + entry["data_offsets"][0], mode="r+")
            for name, entry in header.items()
        }
        yield maps
        for array in maps.values():
            if isinstance(array, np.memmap):
                array.flush()
        os.fsync(file.fileno())


def _reserve(file: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    file.seek(0, os.SEEK_END)
    for start in range(file.tell(), size, BLOCK):
        file.write(bytes(min(BLOCK, size - start)))
    file.flush()


def map_npz(path: Path, name: str) -> NDArray[Any] | None:
    """Return one array of an .npz as a read-only memory map after checking its checksum, or None where it is no plain
    uncompressed array of numbers.

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
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        local = file.read(30)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no entry where {name} should begin")
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
        raise ValueError(f"{name} is said to have shape {shape}, more than there is")
    return _map(path, dtype, shape, offset)


def _check_crc(file: BinaryIO, start: int, entry: zipfile.ZipInfo) -> None:
    file.seek(start)
    found, left = 0, entry.file_size
    while left:
        block = file.read(min(BLOCK, left))
        if not block:
            raise zipfile.BadZipFile(f"{entry.filename} is cut short")
        found, left = zlib.crc32(block, found), left - len(block)
    if found != entry.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")


def _map(path: Path, dtype: DTypeLike, shape: tuple[int, ...], offset: int, mode: Any = "r") -> NDArray[Any]:
    if 0 in shape:  # nothing can be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode, offset, shape)
