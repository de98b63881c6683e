"""Arrays by name: .npz and .safetensors with images, labels, membership and ids."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import _columns, _files
from mia_lightning.records.records import Records
from mia_lightning.runtime.memory_maps import map_npz, map_safetensors
from mia_lightning.security.archives import check_unfolding, check_zip

EXPECTED = "expected arrays named images, and optionally ids, labels and membership"
BESIDE = 256  # bytes that a record takes beside its image while it is read
MAPPED = 64 << 20
"""Bytes from which on an array stays in its file: smaller ones are faster, and safe from changes, in memory."""

NAMES = ("ids", "images", "labels", "membership")


def matches(source: str) -> bool:
    """Say whether the file is a zip of .npy arrays, or begins with a safetensors header."""
    return _files.zip_kind(source) == "arrays" or _is_safetensors(source)


def read(source: str) -> Records:
    """Read named arrays: images (N, C, H, W), (N, H, W, C) or (N, H, W); ids, labels, membership (N,).

    `ids` may be missing (0..N-1 then), as may `labels` and `membership` (unknown then). Nothing is unpickled. Large
    arrays that are not compressed stay in the file, as read-only memory maps.

    Returns:
        Records with images (N, C, H, W), uint8 or float32 (float64 is rounded), values untouched.

    Raises:
        MIAError: the file is missing or damaged, holds Python objects, or lacks images.
    """
    path = _files.check_file(source)
    load = _load_safetensors if _is_safetensors(source) else _load_npz
    arrays, found = load(path)
    if "images" not in arrays:
        kind = "; it looks like a model checkpoint" if any("." in key for key in found) else ""
        raise MIAError(f"{path.name}: has no images, it has {', '.join(found[:12]) or 'no arrays'}{kind}; {EXPECTED}")
    images = _columns.image_column(arrays.pop("images"), path.name)
    check_unfolding(images.nbytes + BESIDE * len(images), path)
    ids = arrays.get("ids", np.arange(len(images)))
    if ids.ndim == 1 and len(ids) != len(images):
        raise MIAError(f"{path.name}: {len(ids)} ids but {len(images)} images; give one of each per record")
    return Records(
        ids=_columns.id_column(ids, path.name),
        images=images,
        labels=_columns.label_column(arrays.get("labels"), len(images), path.name),
        membership=_columns.membership_column(arrays.get("membership"), len(images), path.name),
        source=path.name,
    )


def _load_npz(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    try:
        check_zip(path)
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        with np.load(path, allow_pickle=False) as stored:
            found = [name for name in NAMES if name in stored.files]
            mapped = {name: map_npz(path, name) for name in found if sizes.get(f"{name}.npy", 0) >= MAPPED}
            arrays = {name: array for name, array in mapped.items() if array is not None}
            for name in found:
                if name not in arrays:
                    arrays[name] = stored[name]
            if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{odd[0]} is no array")  # numpy hands out the bytes of what is no .npy
            return arrays, list(stored.files)
    except (MIAError, MemoryError, OSError):
        raise
    except Exception as error:  # damaged headers and streams raise many things: BadZipFile, zlib.error, SyntaxError...
        if "allow_pickle" in str(error):
            raise MIAError(f"{path.name}: refused, an array holds pickled Python objects; save plain numbers") from None
        raise MIAError(f"{path.name}: is cut short or damaged ({_reason(error)}); copy or save it again") from None


def _load_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            names = list(stored.keys())
            mapped = map_safetensors(path) if path.stat().st_size >= MAPPED else {}
            large = {name: mapped[name] for name in NAMES if name in mapped and mapped[name].nbytes >= MAPPED}
            small = {name: stored.get_tensor(name) for name in NAMES if name in names and name not in large}
            return {**small, **large}, names
    except SafetensorError as error:
        raise MIAError(f"{path.name}: is cut short or damaged ({_reason(error)}); copy or save it again") from None
    except (TypeError, AttributeError, KeyError, ValueError) as error:  # a dtype that numpy lacks, such as bfloat16
        raise MIAError(
            f"{path.name}: holds a dtype numpy cannot read ({_reason(error)}); save float32 or uint8"
        ) from None


def _is_safetensors(source: str) -> bool:
    start = _files.head(source, 9)
    if len(start) < 9 or start[8:] != b"{":
        return False
    (length,) = struct.unpack("<Q", start[:8])
    return bool(2 <= length <= 100_000_000)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
