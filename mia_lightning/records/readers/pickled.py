"""The assignment's form: a data-set object or dict saved with torch.save, read without executing its pickle."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import _columns, _files
from mia_lightning.records.readers import _unpickle as _pickles
from mia_lightning.records.readers._stand_ins import Array, Picture
from mia_lightning.records.records import Records
from mia_lightning.security.archives import check_unfolding

ATTRIBUTES = {
    "ids": ("ids", "id"),
    "images": ("imgs", "images", "data"),
    "labels": ("labels", "targets"),
    "membership": ("membership", "members"),
}


def matches(source: str) -> bool:
    """Say whether the file is a zip that torch.save wrote, or a bare pickle (torch's old form)."""
    return _files.zip_kind(source) == "torch" or _files.head(source, 1) == b"\x80"


def read(source: str) -> Records:
    """Read a torch file of records; no code that the file names is run or imported.

    Accepts the assignment's data-set class under any module and name, or a dict; images as tensors, numpy arrays or
    PIL images, listed or stacked, uint8 or floating point; `labels` and `membership` may be None or missing.

    Returns:
        Records with images (N, C, H, W), uint8 or float32, values untouched.

    Raises:
        MIAError: the file is missing, cut short, damaged, asks for anything but one data-set class, PIL images, numpy
            arrays and torch tensors, or holds no records.
    """
    path = _files.check_file(source)
    columns = _named_columns(_pickles.load(path), path.name)
    try:
        ids = _columns.id_column(_plain(columns["ids"], path), path.name)
        return Records(
            ids=ids,
            images=_columns.image_column(_stack(columns.pop("images"), ids, path), path.name),
            labels=_columns.label_column(_plain(columns["labels"], path), len(ids), path.name),
            membership=_columns.membership_column(_plain(columns["membership"], path), len(ids), path.name),
            source=path.name,
        )
    except (RuntimeError, TypeError, ValueError, OverflowError, AttributeError) as error:  # parts that do not fit
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MIAError(f"{path.name}: holds a broken column ({reason[:200]}); {_pickles.EXPECTED}") from None


def _named_columns(loaded: Any, name: str) -> dict[str, Any]:
    """Find the four columns under any of their names; absent labels and membership are None."""
    if not isinstance(loaded, Mapping):
        raise MIAError(f"{name}: holds a {type(loaded).__name__}; {_pickles.EXPECTED}")
    columns = {
        column: next((loaded[key] for key in keys if loaded.get(key) is not None), None)
        for column, keys in ATTRIBUTES.items()
    }
    absent = [ATTRIBUTES[column][0] for column in ("ids", "images") if columns[column] is None]
    if absent and _looks_like_model(loaded):
        raise MIAError(f"{name}: looks like a model checkpoint, not records; {_pickles.EXPECTED}")
    if absent:
        found = ", ".join(sorted(map(str, loaded))[:12]) or "nothing"
        raise MIAError(f"{name}: has no {' and no '.join(absent)}, it has {found}; {_pickles.EXPECTED}")
    return columns


def _looks_like_model(loaded: Mapping[Any, Any]) -> bool:
    import torch

    wrapped = any(isinstance(loaded.get(key), Mapping) for key in ("state_dict", "model_state_dict", "model"))
    return wrapped or any("." in str(key) and isinstance(value, torch.Tensor) for key, value in loaded.items())


def _plain(values: Any, path: Path) -> Any:
    """Turn a column of tensors or arrays into a list or numpy array of plain numbers."""
    import torch

    if isinstance(values, torch.Tensor):
        check_unfolding(32 * values.numel(), path)  # each becomes an object
        return values.tolist()
    if isinstance(values, Array):
        return values.numpy()
    if isinstance(values, list | tuple):
        return [
            item.item() if isinstance(item, torch.Tensor) else item.numpy().item() if isinstance(item, Array) else item
            for item in values
        ]
    return values


def _stack(images: Any, ids: Sequence[Any] | NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring images into one array with one allocation; their shapes are compared first.

    Raises:
        MIAError: images are of several shapes or dtypes, or of no known kind; the odd record's id is named.
    """
    import torch

    name = path.name
    if not isinstance(images, list | tuple):
        return _array(images, path)
    kinds = {type(image) for image in images}
    if len(images) != len(ids) or not images:
        raise MIAError(f"{name}: {len(ids)} ids but {len(images)} images; give one image per record")
    first = images[0] if kinds == {torch.Tensor} else _array(images[0], path)
    _check_size(len(images), tuple(first.shape), first.dtype.itemsize, path)  # one picture may stand in every place
    items: list[Any] = list(images) if kinds == {torch.Tensor} else [_array(image, path) for image in images]
    for row, item in enumerate(items):
        if item.shape != first.shape or item.dtype != first.dtype:
            raise MIAError(
                f"{name}: record {ids[row]} has an image {tuple(item.shape)} {item.dtype}, but record {ids[0]} "
                f"{tuple(first.shape)} {first.dtype}; give all images one shape and dtype"
            )
    return _array(torch.stack(items), path) if kinds == {torch.Tensor} else np.stack(items)


def _check_size(count: int, shape: tuple[int, ...], itemsize: int, path: Path) -> None:
    check_unfolding(count * math.prod(shape) * itemsize, path)
    _files.check_memory(count, shape, itemsize, path.name)


def _array(image: Any, path: Path) -> NDArray[Any]:
    import torch

    if isinstance(image, torch.Tensor):
        _check_size(1, tuple(image.shape), image.dtype.itemsize, path)  # an expanded tensor claims much
        half = image.dtype in (torch.bfloat16, torch.float16)
        array: NDArray[Any] = (image.detach().float() if half else image.detach()).numpy()
        return array
    if isinstance(image, Picture):
        return image.pixels()
    if isinstance(image, Array):
        return image.numpy()
    raise MIAError(f"{path.name}: an image is a {type(image).__name__}; expected tensors, numpy arrays or PIL images")
