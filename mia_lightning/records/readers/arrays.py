"""Arrays by name: .npz and .safetensors with images, labels, membership and ids."""

import json
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, listed, reason
from mia_lightning.records.column_mapping import find_columns, refuse_masks
from mia_lightning.records.columns import make_records
from mia_lightning.records.readers import _files
from mia_lightning.records.records import Records
from mia_lightning.records.vocabulary import RECORD_COLUMNS, SPLITS, meaning, normalize_name, training_and_test
from mia_lightning.runtime.memory_maps import map_npz, map_safetensors
from mia_lightning.security.archives import check_unfolding, check_zip

FORMATS = "arrays by name (.npz, .safetensors)"

EXPECTED = "expected arrays named images or inputs, and optionally ids, labels, membership and groups"
OVERHEAD = 256
"""Bytes that a record takes in addition to its image while it is read."""

MAPPED = 64 << 20
"""Bytes from which on an array stays in its file: smaller ones are faster, and safe from changes, in memory."""

SPLIT = re.compile("({0})_(.+)|(.+)_({0})".format("|".join((*SPLITS[0], *SPLITS[1]))))
"""Names such as train_images or x_test: members and non-members in arrays of their own."""

Arrays = dict[str, NDArray[Any]]


def matches(source: str) -> bool:
    """Whether the file is a zip of .npy arrays, or begins with a safetensors header."""
    return _files.zip_kind(source) == "arrays" or _is_safetensors(source)


def read(source: str, columns: Mapping[str, str] | None = None) -> Records:
    """Read named arrays: images (N, C, H, W), (N, H, W, C) or (N, H, W), or tables (N, features); ids, labels,
    membership, groups (N,). An array named inputs, features or signals may have any shape (N, ...).

    All but the images may be missing. Names are those of `records.vocabulary`; or train_images, train_labels,
    test_images, test_labels (also x_train, y_train, ...), where the train arrays are read as members and the test
    arrays as non-members. Nothing is unpickled. Large arrays that are not compressed stay in the file, as read-only
    memory maps.

    Returns:
        Records with images (N, C, H, W), uint8 or float32 (float64 is rounded), or other inputs (N, ...), values
        untouched.

    Raises:
        MIAError: the file is missing or damaged, holds Python objects, or lacks images.
    """
    path = _files.check_file(source)
    stored = _safetensors_names(path) if _is_safetensors(source) else npz_names(path)
    load = _load_safetensors if _is_safetensors(source) else load_npz
    halves = _splits(stored)
    if halves and not any(meaning(name, ("image",)) for name in (*stored, *(columns or ()))):
        return _read_splits(path, load(path, [name for half in halves for name in half.values()]), halves, stored)
    chosen = find_columns(stored, path.name, columns, RECORD_COLUMNS)
    arrays = load(path, list(chosen.by_meaning.values()))
    by_meaning = {means: arrays.pop(name) for means, name in chosen.by_meaning.items() if name in arrays}
    as_images = None
    if "image" not in by_meaning:  # records of another kind, whatever their shape
        inputs = find_columns(stored, path.name, columns, ("input",)).get("input")
        if inputs is not None:
            refuse_masks(stored, path.name)
            by_meaning["image"], as_images = load(path, [inputs])[inputs], False
            chosen.unused.remove(inputs)
    if "image" not in by_meaning:
        hint = "; it looks like a model checkpoint" if any("." in name for name in stored) else ""
        raise MIAError(f"{path.name}: has no images, it has {listed(stored, 12) or 'no arrays'}{hint}; {EXPECTED}")
    images = by_meaning["image"]
    check_unfolding(images.nbytes + OVERHEAD * (len(images) if images.ndim else 0), path)
    ids = by_meaning.get("id")
    if ids is not None and ids.ndim == 1 and images.ndim >= 2 and len(ids) != len(images):
        raise MIAError(f"{path.name}: {len(ids)} ids but {len(images)} images; give one of each per record")
    return make_records(
        path.name,
        images,
        as_images=as_images,
        ids=ids,
        labels=by_meaning.get("label"),
        membership=by_meaning.get("membership"),
        splits=by_meaning.get("split"),
        groups=by_meaning.get("group"),
        class_names=by_meaning.get("class_name", _safetensors_class_names(path) if _is_safetensors(source) else None),
        notes=chosen.notes(path.name),
    )


def _splits(names: Sequence[str]) -> list[dict[str, str]] | None:
    """Return the image and label array of the train and of the test split by their names; None without both images."""
    splits: dict[str, dict[str, str]] = {}
    for name in names:
        if match := SPLIT.fullmatch(normalize_name(name)):
            column = meaning(match[2] or match[3], ("image", "label"))
            if column is not None:
                splits.setdefault(match[1] or match[4], {}).setdefault(column, name)
    chosen = training_and_test(split for split, half in splits.items() if "image" in half)
    return None if chosen is None else [splits[split] for split in chosen]


def _read_splits(path: Path, arrays: Arrays, halves: Sequence[dict[str, str]], stored: Sequence[str]) -> Records:
    train, test = halves
    check_unfolding(sum(array.nbytes for array in arrays.values()), path)
    images, labels = ([arrays[half[column]] for half in halves if column in half] for column in ("image", "label"))
    _check_alike(images, "images", train["image"], test["image"], path)
    if len(labels) == 1:
        labeled, other = (train, test) if "label" in train else (test, train)
        raise MIAError(f"{path.name}: has labels {labeled['label']} but none for {other['image']}; give both or none")
    if labels:
        _check_alike(labels, "labels", train["label"], test["label"], path)
    unused = [name for name in stored if name not in {*train.values(), *test.values()}]
    notes = [f"{path.name}: {train['image']} is read as members, {test['image']} as non-members"]
    notes += [f"{path.name}: not used: {listed(unused, 8)}"] if unused else []
    return make_records(
        path.name,
        np.concatenate(images),
        labels=np.concatenate(labels) if labels else None,
        membership=np.repeat([1, 0], [len(half) for half in images]),
        notes=notes,
    )


def _check_alike(arrays: Sequence[NDArray[Any]], what: str, first: str, second: str, path: Path) -> None:
    """Raise MIAError where the arrays of the two splits differ in shape, in being text, or in their scale."""
    forms = [(array.ndim, array.shape[1:], array.dtype.kind in "SU") for array in arrays]
    if forms[0] != forms[1] or 0 in (array.ndim for array in arrays):
        shapes = f"{arrays[0].dtype} {arrays[0].shape} and {arrays[1].dtype} {arrays[1].shape}"
        raise MIAError(f"{path.name}: the {what} {first} and {second} differ, {shapes}; give both one form")
    kinds = {array.dtype.kind for array in arrays}
    if what == "images" and "f" in kinds and len(kinds) == 2:  # joined, uint8 would become floats on another scale
        raise MIAError(
            f"{path.name}: the images {first} are {arrays[0].dtype} and {second} {arrays[1].dtype}; store both on one "
            "scale"
        )


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz file. Raises MIAError: it is damaged, or would decompress too far."""
    try:
        check_zip(path)
        with np.load(path, allow_pickle=False) as stored:
            return list(stored.files)
    except (MIAError, MemoryError, OSError):
        raise
    except Exception as error:
        raise _damaged(path, error) from None


def load_npz(path: Path, wanted: Sequence[str]) -> Arrays:
    """Return arrays of an .npz file by name, large ones as memory maps. Raises MIAError: damaged, or Python objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        with np.load(path, allow_pickle=False) as stored:
            mapped = {name: map_npz(path, name) for name in wanted if sizes.get(f"{name}.npy", 0) >= MAPPED}
            arrays = {name: array for name, array in mapped.items() if array is not None}
            for name in wanted:
                if name not in arrays:
                    arrays[name] = stored[name]
            if not_arrays := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{not_arrays[0]} is not an array")  # numpy returns the bytes of what is not a .npy
            return arrays
    except (MIAError, MemoryError, OSError):
        raise
    except Exception as error:  # damaged headers and streams raise many things: BadZipFile, zlib.error, SyntaxError...
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> MIAError:
    if "allow_pickle" in str(error):
        return MIAError(f"{path.name}: refused, an array holds pickled Python objects; save plain numbers")
    return MIAError(f"{path.name}: is cut short or damaged ({reason(error)}); copy or save it again")


def _safetensors_names(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            return list(stored.keys())
    except SafetensorError as error:
        raise _damaged(path, error) from None


def _load_safetensors(path: Path, wanted: Sequence[str]) -> Arrays:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            mapped = map_safetensors(path) if path.stat().st_size >= MAPPED else {}
            large = {name: mapped[name] for name in wanted if name in mapped and mapped[name].nbytes >= MAPPED}
            small = {name: stored.get_tensor(name) for name in wanted if name not in large}
            return {**small, **large}
    except SafetensorError as error:
        raise _damaged(path, error) from None
    except (TypeError, AttributeError, KeyError, ValueError) as error:  # a dtype that numpy lacks, such as bfloat16
        raise MIAError(
            f"{path.name}: holds a dtype that NumPy cannot read ({reason(error)}); save float32 or uint8"
        ) from None


def _safetensors_class_names(path: Path) -> object:
    """Return the class names in the file's metadata, a JSON list under `class_names`; None without one."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as stored:
        text = (stored.metadata() or {}).get("class_names")
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_safetensors(source: str) -> bool:
    start = _files.head(source, 9)
    if len(start) < 9 or start[8:] != b"{":
        return False
    (length,) = struct.unpack("<Q", start[:8])
    return bool(2 <= length <= 100_000_000)
