"""Store of outputs: a folder per key, which is a hash of everything that determines the outputs."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mia_lightning.errors import MIAError
from mia_lightning.runtime.atomic import STORE_FIX, make_folder, readable_write_error, replacement, write_atomically
from mia_lightning.runtime.locks import Lock
from mia_lightning.runtime.memory_maps import Arrays, map_safetensors, new_safetensors
from mia_lightning.runtime.own_files import ArraySpec, read_bytes, read_json
from mia_lightning.security.open import open_own

log = logging.getLogger(__name__)


def array_digest(array: Any) -> str:
    """Return the sha256 (hex) of dtype, shape and values of an array, or what is sliced like one, read in blocks."""
    if (content := getattr(array, "content_digest", None)) is not None:  # images that stay in their files
        return str(content)
    digest = sha256(f"{array.dtype.str} {array.shape}\n".encode())
    for start in range(0, len(array), 4096):
        digest.update(np.ascontiguousarray(array[start : start + 4096]).data)
    return digest.hexdigest()


def key_of(cache_key_inputs: Mapping[str, Any]) -> str:
    """Return the key (hex) of plain values, independent of their order."""
    return sha256(json.dumps(cache_key_inputs, sort_keys=True, allow_nan=False).encode()).hexdigest()


def store_lock(folder: Path) -> Lock:
    """Return the lock of a folder in the store, which is created.

    Raises:
        MIAError: the store cannot be written, or the folder or its parent is a symbolic link.
    """
    with readable_write_error("a lock into the store", STORE_FIX):
        make_folder(folder.parent)
        make_folder(folder)
    return Lock(folder / "lock")


@dataclass(frozen=True)
class _Description:
    """Content of outputs.json."""

    sha256: str
    """Of outputs.safetensors (hex)."""

    arrays: dict[str, Any]
    key_inputs: dict[str, Any]


class CacheEntry:
    """The outputs under one key: shards while they are computed, then one file with its checksum.

    Shards are read one at a time and finished outputs are memory maps, so no array is held in memory completely.

    Args:
        store: Folder of the store.
        key: From `key_of`.
        specs: Schema of each array by its name; the first length is the number of records.
    """

    def __init__(self, store: Path, key: str, specs: Mapping[str, ArraySpec]) -> None:
        self.key = key
        self.specs = specs
        self.folder = store / key[:2] / key
        self.final = self.folder / "outputs.safetensors"
        self.shards = self.folder / "shards"

    @property
    def count(self) -> int:
        """Number of records."""
        return int(next(iter(self.specs.values())).shape[0] or 0)

    def load(self) -> Arrays | None:
        """Return the finished arrays as read-only memory maps, or None if there are none or they are damaged."""
        try:
            if _digest(self.final) != read_json(self.folder / "outputs.json", _Description).sha256:
                return None
            arrays = map_safetensors(self.final)
            _check(arrays, self.specs)
        except (OSError, ValueError, KeyError, TypeError, MIAError):
            return None
        return arrays

    @property
    def exists(self) -> bool:
        """Whether a finished file exists, damaged or not."""
        return self.final.exists()

    def lock(self) -> Lock:
        """Return the lock that a process has to hold while it computes this entry.

        Raises:
            MIAError: the store cannot be written.
        """
        return store_lock(self.folder)

    def save_shard(self, name: str, arrays: Arrays) -> None:
        """Write a part of the rows; see `load_shards`."""
        payload = save(arrays)
        write_atomically(self.shards / f"{name}.safetensors", sha256(payload).digest() + payload)

    def load_shards(self) -> Iterator[Arrays]:
        """Yield the shards one at a time, each with its rows under "index"; no row occurs twice.

        Damaged shards, and those with rows of an earlier one, are removed.
        """
        is_new = np.ones(self.count, bool)
        specs = self.specs
        for path in sorted(self.shards.glob("*.safetensors")):
            try:
                shard = _read_shard(path, specs, is_new)
            except FileNotFoundError:  # another process of this run was first to remove it
                continue
            except (OSError, ValueError, SafetensorError, MIAError) as error:
                log.warning("a shard of the stored outputs %s is damaged (%s); recomputing it", self.key[:12], error)
                with suppress(OSError):
                    path.unlink()
                continue
            is_new[shard["index"]] = False
            lengths = {name: shard[name].shape[1:] for name in specs}  # of later shards too
            specs = {name: replace(spec, shape=(self.count, *lengths[name])) for name, spec in specs.items()}
            yield shard

    def finish(self, key_inputs: Mapping[str, Any], source: str) -> Arrays:
        """Merge the shards into one file in the order of the records, remove them and return `load`'s arrays.

        Args:
            key_inputs: Values that the key is computed from, stored for people.
            source: Source of the records, for the error.

        Raises:
            MIAError: the disk is full or cannot be written.
            RuntimeError: a record is missing.
        """
        first = next(self.load_shards(), {})
        headers = {name: (first[name].dtype, (self.count, *first[name].shape[1:])) for name in self.specs if first}
        with readable_write_error(f"{self.final.name} into the store", STORE_FIX):
            make_folder(self.folder)
            with replacement(self.final) as partial:
                with new_safetensors(partial, headers) as arrays:
                    merge(self.load_shards(), arrays, self.count, source)
                description = {
                    "sha256": _digest(partial),
                    "arrays": {name: [str(dtype), list(shape)] for name, (dtype, shape) in headers.items()},
                    "key_inputs": dict(key_inputs),
                }
        write_atomically(self.folder / "outputs.json", json.dumps(description, indent=2).encode())
        partials = [*self.shards.glob(".*.partial"), *self.folder.glob(".*.partial")]
        for path in [*self.shards.glob("*.safetensors"), *partials]:
            with suppress(OSError):
                path.unlink()
        return map_safetensors(self.final)


def _read_shard(path: Path, specs: Mapping[str, ArraySpec], is_new: NDArray[np.bool_]) -> Arrays:
    data = read_bytes(path)
    if sha256(data[32:]).digest() != data[:32]:
        raise ValueError("wrong checksum")
    shard: Arrays = load(data[32:])
    index = ArraySpec(np.int64, (None,), bounds=(0, len(is_new) - 1))
    rows = len(shard.get("index", ()))
    _check(
        shard, {"index": index} | {name: replace(spec, shape=(rows, *spec.shape[1:])) for name, spec in specs.items()}
    )
    if rows == 0 or len(np.unique(shard["index"])) < rows or not is_new[shard["index"]].all():
        raise ValueError("no rows, or rows that occur twice")
    return shard


def _check(arrays: Arrays, specs: Mapping[str, ArraySpec]) -> None:
    if set(arrays) != set(specs):
        raise ValueError("arrays are missing or unknown")
    for name, spec in specs.items():
        spec.check(name, arrays[name])


def merge(shards: Iterable[Arrays], into: Arrays, count: int, source: str) -> None:
    """Write the shards' rows at their "index".

    Raises:
        RuntimeError: a record is missing or occurs more than once.
    """
    times = np.zeros(count, np.int32)
    for shard in shards:
        np.add.at(times, shard["index"], 1)
        for name, array in into.items():
            array[shard["index"]] = shard[name]
    if (times != 1).any():
        raise RuntimeError(
            f"{source}: {int((times == 0).sum())} records are missing and {int((times > 1).sum())} occur more than "
            "once among the shards; every record must occur exactly once"
        )


def _digest(path: Path) -> str:
    with open_own(path) as file:
        return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()


@cache
def source_digest(names: tuple[str, ...]) -> str:
    """Return the sha256 (hex) of the source of some modules, named without the package: part of a store key."""
    digest = sha256()
    for name in names:
        path = import_module(f"mia_lightning.{name}").__file__
        assert path is not None
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()
