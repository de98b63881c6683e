"""The store of outputs: a folder per key, where the key is a hash of everything that determines what is in it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mia_lightning.errors import MIAError

Arrays = dict[str, NDArray[Any]]


def array_digest(array: NDArray[Any]) -> str:
    """Return the sha256 (hex) of dtype, shape and values in order, read in blocks."""
    digest = sha256(f"{array.dtype.str} {array.shape}\n".encode())
    for start in range(0, len(array), 4096):
        digest.update(np.ascontiguousarray(array[start : start + 4096]).data)
    return digest.hexdigest()


def key_of(ingredients: Mapping[str, Any]) -> str:
    """Return the key (hex) of plain values, independent of their order."""
    return sha256(json.dumps(ingredients, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Entry:
    """The outputs under one key: shards while the work goes on, one file with its checksum once it is done."""

    def __init__(self, store: Path, key: str) -> None:
        self.key = key
        self.folder = store / key[:2] / key
        self.final = self.folder / "outputs.safetensors"
        self.shards = self.folder / "shards"

    def load(self) -> Arrays | None:
        """Return the finished arrays, or None where there are none or they are damaged."""
        try:
            recorded = json.loads((self.folder / "outputs.json").read_text())["sha256"]
            if sha256(self.final.read_bytes()).hexdigest() != recorded:
                return None
            return load_file(self.final)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    @property
    def exists(self) -> bool:
        """Whether a finished file is there, damaged or not."""
        return self.final.exists()

    def save(self, arrays: Arrays, ingredients: Mapping[str, Any]) -> None:
        """Write the finished arrays, their checksum and what they are made of, then let the shards go.

        Raises:
            MIAError: the disk is full or cannot be written.
        """
        payload = save(arrays)
        description = {
            "sha256": sha256(payload).hexdigest(),
            "arrays": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
            "made_of": dict(ingredients),
        }
        write_atomically(self.final, payload)
        write_atomically(self.folder / "outputs.json", json.dumps(description, indent=2).encode())
        for shard in self.shards.glob("*"):
            shard.unlink(missing_ok=True)

    def save_shard(self, name: str, arrays: Arrays) -> None:
        """Write a part of the rows; see `load_shards`."""
        payload = save(arrays)
        write_atomically(self.shards / f"{name}.safetensors", sha256(payload).digest() + payload)

    def load_shards(self) -> list[Arrays]:
        """Return all undamaged shards; each holds its rows under "index"."""
        from safetensors.numpy import load

        shards = []
        for path in sorted(self.shards.glob("*.safetensors")):
            data = path.read_bytes()
            if sha256(data[32:]).digest() == data[:32]:
                shards.append(load(data[32:]))
            else:
                path.unlink()  # its rows are done again
        return shards


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file that appears under its name only when it is complete.

    Raises:
        MIAError: the disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT):
            raise
        raise MIAError(
            f"cannot write {path.name} into the store: {error.strerror}; free space, or name another --extraction.store"
        ) from error


def merge(shards: list[Arrays], count: int, source: str) -> Arrays:
    """Return the shards' rows in the order of the records.

    Raises:
        RuntimeError: a record is missing or occurs more than once, which no run may ever pass over.
    """
    index = np.concatenate([shard["index"] for shard in shards])
    times = np.bincount(index, minlength=count)
    if len(times) != count or (times != 1).any():
        raise RuntimeError(
            f"{source}: {int((times[:count] == 0).sum())} records are missing and {int((times > 1).sum())} occur more "
            "than once among the shards; every record must occur exactly once"
        )
    names = [name for name in shards[0] if name != "index"]
    merged = {name: np.empty((count, *shards[0][name].shape[1:]), shards[0][name].dtype) for name in names}
    for shard in shards:
        for name in names:
            merged[name][shard["index"]] = shard[name]
    return merged
