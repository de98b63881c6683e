"""Data-set objects, dicts and tuples saved with torch.save, read without executing their pickle."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, listed, reason
from mia_lightning.records.column_mapping import Columns, find_columns, refuse_masks
from mia_lightning.records.columns import make_records
from mia_lightning.records.readers import _files, _unpickle
from mia_lightning.records.readers._forms import columns_of
from mia_lightning.records.readers._stand_ins import Array, Picture
from mia_lightning.records.records import Records
from mia_lightning.records.vocabulary import RECORD_COLUMNS
from mia_lightning.security.archives import check_unfolding
from mia_lightning.security.plain import plain_dict

FORMATS = "a torch file of a data set (.pt)"

LARGEST_CELL = 100_000
"""Numbers in one cell of a column, such as one-hot classes."""


def matches(source: str) -> bool:
    """Whether the file is a zip that torch.save wrote, or a bare pickle (torch's old form)."""
    return _files.zip_kind(source) == "torch" or _files.head(source, 1) == b"\x80"


def read(source: str, columns: Mapping[str, str] | None = None) -> Records:
    """Read a torch file of records; no code that the file names is run or imported.

    Accepts a data-set object under any module and name, a dict, and the forms of `_forms.columns_of`; images as
    tensors, numpy arrays or PIL images, listed or stacked, uint8 or floating point. All columns but the images may be
    None or missing; names are those of `records.vocabulary`.

    Returns:
        Records with images (N, C, H, W), uint8 or float32, values untouched.

    Raises:
        MIAError: the file is missing, cut short, damaged, requests anything but one data-set class, PIL images, numpy
            arrays and torch tensors, or holds no records.
    """
    path = _files.check_file(source)
    loaded, notes = _columns(_unpickle.load(path), path)
    chosen = _chosen(loaded, path.name, columns)
    values = {means: loaded[name] for means, name in chosen.by_meaning.items()}
    is_image = "image" in values
    try:
        ids = _plain(values.get("id"), path)
        return make_records(
            path.name,
            _stack(values["image"] if is_image else values["input"], ids, path),
            as_images=None if is_image else False,
            ids=ids,
            labels=_plain(values.get("label"), path),
            membership=_plain(values.get("membership"), path),
            splits=_plain(values.get("split"), path),
            groups=_plain(values.get("group"), path),
            class_names=_plain(values.get("class_name"), path),
            notes=[*notes, *chosen.notes(path.name)],
        )
    except (RuntimeError, TypeError, ValueError, OverflowError, AttributeError) as error:  # parts that do not fit
        raise MIAError(f"{path.name}: contains a broken column ({reason(error)}); {_unpickle.EXPECTED}") from None


def _columns(loaded: Any, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return columns by name, without those that are None, and notes about the form."""
    notes: list[str] = []
    if isinstance(loaded, Mapping) and _looks_like_model(plain_dict(loaded)):
        return {key: value for key, value in plain_dict(loaded).items() if isinstance(key, str)}, notes
    if (columns := columns_of(loaded, path, notes)) is None:
        raise MIAError(f"{path.name}: contains a {type(loaded).__name__}; {_unpickle.EXPECTED}")
    return columns, notes


def _chosen(loaded: Mapping[str, Any], name: str, columns: Mapping[str, str] | None) -> Columns:
    is_model = _looks_like_model(loaded)
    chosen = find_columns(list(loaded), name, columns, ("image",) if is_model else RECORD_COLUMNS)
    if chosen.get("image") is not None:
        return chosen
    inputs = None if is_model else find_columns(list(loaded), name, columns, ("input",)).get("input")
    if inputs is not None:  # records of another kind, whatever their shape
        refuse_masks(list(loaded), name)
        chosen.by_meaning["input"] = inputs
        chosen.unused.remove(inputs)
        return chosen
    if is_model:
        raise MIAError(f"{name}: looks like a model checkpoint, not records; {_unpickle.EXPECTED}")
    lacking = f"{name}: has no images, it has {listed(sorted(loaded), 12) or 'nothing'}"
    if loaded and all(isinstance(v, list) and not hasattr(v[0], "shape") for v in loaded.values() if v):
        raise MIAError(f"{lacking}; save a table as CSV or Parquet, such as pandas.DataFrame(rows).to_parquet(PATH)")
    raise MIAError(f"{lacking}; {_unpickle.EXPECTED}")


def _looks_like_model(loaded: Mapping[str, Any]) -> bool:
    import torch

    wrapped = any(isinstance(loaded.get(key), Mapping) for key in ("state_dict", "model_state_dict", "model"))
    return wrapped or any("." in str(key) and isinstance(value, torch.Tensor) for key, value in loaded.items())


def _plain(values: Any, path: Path) -> Any:
    """Return a column of tensors or arrays as a list or numpy array of plain numbers."""
    import torch

    if isinstance(values, torch.Tensor):
        check_unfolding(32 * values.numel(), path)  # each becomes an object
        return _array(values, path)
    if isinstance(values, Array | np.ndarray):
        return values if isinstance(values, np.ndarray) else values.numpy()
    if isinstance(values, list | tuple):
        return [_cell(item, path) if isinstance(item, torch.Tensor | Array | np.ndarray) else item for item in values]
    return values


def _cell(item: Any, path: Path) -> Any:
    """Return one cell of a list: a number, or a short list such as one-hot."""
    array = _array(item, path)
    if array.size > LARGEST_CELL:
        raise MIAError(f"{path.name}: a column holds an array of shape {array.shape} for one record; give one number")
    return array.item() if array.size == 1 else array.tolist()


def _stack(images: Any, ids: Any, path: Path) -> NDArray[Any]:
    """Return images as one array, allocated once; their shapes are compared first.

    Raises:
        MIAError: images have several shapes or dtypes, or an unknown type; the odd record's id is named.
    """
    import torch

    name = path.name
    if not isinstance(images, list | tuple):
        return _array(images, path)
    if not images or (ids is not None and len(images) != len(ids)):
        count = len(images) if ids is None else len(ids)
        raise MIAError(f"{name}: {count} ids but {len(images)} images; give one image per record")
    keys: Any = range(len(images)) if ids is None else ids
    types = {type(image) for image in images}
    first = images[0] if types == {torch.Tensor} else _array(images[0], path)
    _check_size(len(images), tuple(first.shape), first.dtype.itemsize, path)  # one picture may be repeated
    items: list[Any] = list(images) if types == {torch.Tensor} else [_array(image, path) for image in images]
    for row, item in enumerate(items):
        if item.shape != first.shape or item.dtype != first.dtype:
            raise MIAError(
                f"{name}: record {keys[row]} has an image {tuple(item.shape)} {item.dtype}, but record {keys[0]} "
                f"{tuple(first.shape)} {first.dtype}; give all images one shape and dtype"
            )
    return _array(torch.stack(items), path) if types == {torch.Tensor} else np.stack(items)


def _check_size(count: int, shape: tuple[int, ...], itemsize: int, path: Path) -> None:
    check_unfolding(count * math.prod(shape) * itemsize, path)
    _files.check_memory(count, shape, itemsize, path.name)


def _array(image: Any, path: Path) -> NDArray[Any]:
    import torch

    if isinstance(image, torch.Tensor):
        _check_size(1, tuple(image.shape), image.dtype.itemsize, path)  # an expanded tensor claims much
        narrow = image.dtype.is_floating_point and image.dtype not in (torch.float32, torch.float64)
        try:
            array: NDArray[Any] = (image.detach().float() if narrow else image.detach()).numpy()
        except (RuntimeError, TypeError) as error:  # bits, quantized and sub-byte dtypes
            raise MIAError(
                f"{path.name}: holds a tensor of {image.dtype}, which NumPy lacks; save uint8 or float32"
            ) from error
        return array
    if isinstance(image, Picture):
        return image.pixels()
    if isinstance(image, Array | np.ndarray):
        return image if isinstance(image, np.ndarray) else image.numpy()
    raise MIAError(
        f"{path.name}: an image has the type {type(image).__name__}; expected tensors, numpy arrays or PIL images"
    )
