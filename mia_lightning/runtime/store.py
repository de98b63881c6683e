"""The store of outputs: a folder per key, where the key is a hash of everything that determines what is in it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mia_lightning.errors import MIAError
from mia_lightning.runtime.atomic import UNWRITABLE
from mia_lightning.runtime.locks import Lock
from mia_lightning.runtime.memory_maps import Arrays, map_safetensors, new_safetensors

log = logging.getLogger(__name__)


def array_digest(array: Any) -> str:
    """Return the sha256 (hex) of dtype, shape and values of an array, or what is sliced like one, read in blocks."""
    digest = sha256(f"{array.dtype.str} {array.shape}\n".encode())
    for start in range(0, len(array), 4096):
        digest.update(np.ascontiguousarray(array[start : start + 4096]).data)
    return digest.hexdigest()


def key_of(cache_key_inputs: Mapping[str, Any]) -> str:
    """Return the key (hex) of plain values, independent of their order."""
    return sha256(json.dumps(cache_key_inputs, sort_keys=True, allow_nan=False).encode()).hexdigest()


class CacheEntry:
    """The outputs under one key: shards while the work goes on, one file with its checksum once it is done.

    No array is ever held whole: shards are read one at a time, and what is done is a memory map.
    """

    def __init__(self, store: Path, key: str) -> None:
        self.key = key
        self.folder = store / key[:2] / key
        self.final = self.folder / "outputs.safetensors"
        self.shards = self.folder / "shards"

    def load(self) -> Arrays | None:
        """Return the finished arrays as read-only memory maps, or None where there are none or they are damaged."""
        try:
            recorded = json.loads((self.folder / "outputs.json").read_text())["sha256"]
            return map_safetensors(self.final) if _digest(self.final) == recorded else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def exists(self) -> bool:
        """Whether a finished file is there, damaged or not."""
        return self.final.exists()

    def lock(self) -> Lock:
        """Return the lock that whoever makes this entry has to hold.

        Raises:
            MIAError: the store cannot be written.
        """
        with _in_words("a lock"):
            self.folder.mkdir(parents=True, exist_ok=True)
        return Lock(self.folder / "lock")

    def save_shard(self, name: str, arrays: Arrays) -> None:
        """Write a part of the rows; see `load_shards`."""
        payload = save(arrays)
        write_atomically(self.shards / f"{name}.safetensors", sha256(payload).digest() + payload)

    def load_shards(self) -> Iterator[Arrays]:
        """Yield the undamaged shards, one at a time; each holds its rows under "index". Damaged ones are removed."""
        for path in sorted(self.shards.glob("*.safetensors")):
            try:
                data = path.read_bytes()
                if sha256(data[32:]).digest() == data[:32]:
                    yield load(data[32:])
                    continue
                path.unlink()
            except (FileNotFoundError, SafetensorError):  # another process of this run was first to remove it
                continue
            log.warning("a shard of the stored outputs %s is damaged; recomputing it", self.key[:12])

    def finish(self, count: int, key_inputs: Mapping[str, Any], source: str) -> Arrays:
        """Put the shards' rows into one file in the order of the records, let the shards go and return `load`'s arrays.

        Args:
            count: Number of records.
            key_inputs: What the key is made of, for people.
            source: Where the records are from, for the error.

        Raises:
            MIAError: the disk is full or cannot be written.
            RuntimeError: a record is missing or occurs more than once, which no run may ever pass over.
        """
        kinds = {
            name: (array.dtype, (count, *array.shape[1:]))
            for name, array in next(iter(self.load_shards()), {}).items()
            if name != "index"
        }
        partial = self.final.with_name(f".{self.final.name}.{os.getpid()}.partial")
        try:
            with _in_words(self.final.name):
                self.folder.mkdir(parents=True, exist_ok=True)
                with new_safetensors(partial, kinds) as arrays:
                    merge(self.load_shards(), arrays, count, source)
                description = {
                    "sha256": _digest(partial),
                    "arrays": {name: [str(dtype), list(shape)] for name, (dtype, shape) in kinds.items()},
                    "key_inputs": dict(key_inputs),
                }
                partial.replace(self.final)
        finally:
            with suppress(OSError):
                partial.unlink()
        write_atomically(self.folder / "outputs.json", json.dumps(description, indent=2).encode())
        for left in (*self.shards.glob("*"), *self.shards.glob(".*.partial"), *self.folder.glob(".*.partial")):
            left.unlink(missing_ok=True)
        return map_safetensors(self.final)


def merge(shards: Iterable[Arrays], into: Arrays, count: int, source: str) -> None:
    """Write the shards' rows where their "index" says.

    Raises:
        RuntimeError: a record is missing or occurs more than once, which no run may ever pass over.
    """
    times = np.zeros(count, np.int32)
    beyond = 0
    for shard in shards:
        rows = shard["index"]
        inside = (rows >= 0) & (rows < count)
        beyond += int((~inside).sum())
        np.add.at(times, rows[inside], 1)
        for name, array in into.items():
            array[rows[inside]] = shard[name] if inside.all() else shard[name][inside]
    if beyond or (times != 1).any():
        raise RuntimeError(
            f"{source}: {int((times == 0).sum())} records are missing, {int((times > 1).sum())} occur more than once "
            f"and {beyond} are unknown among the shards; every record must occur exactly once"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file that appears under its name only when it is complete.

    Raises:
        MIAError: the disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _in_words(path.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise MIAError(
            f"cannot write {name} into the store: {error.strerror}; free space, or name another --cache_dir"
        ) from error
