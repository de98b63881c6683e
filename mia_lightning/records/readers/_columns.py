"""From the columns a file holds to the exact types of Records; checked before any narrowing cast."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.records import UNKNOWN

LONGEST_ID = 256


def id_column(values: Sequence[Any] | NDArray[Any], name: str) -> NDArray[np.int64] | NDArray[np.str_]:
    """Return (N,) ids: int64 when all are integers, strings when all are strings.

    Raises:
        MIAError: ids of another type or of mixed types, above 64 bits, or longer than 256 characters.
    """
    if (numbers := _numbers(values, "ids", name)) is not None:
        return numbers
    items = _items(values, "ids", name)
    kinds = {type(item) for item in items}
    if all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        return _int64(items, "ids", name)
    if all(issubclass(kind, str) for kind in kinds):
        if any(len(item) > LONGEST_ID for item in items):
            raise MIAError(f"{name}: an id is longer than {LONGEST_ID} characters; expected integers or short strings")
        return np.array(items, dtype=np.str_)
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise MIAError(f"{name}: ids are of type {found}; expected all integers or all strings")


def label_column(values: Sequence[Any] | NDArray[Any] | None, count: int, name: str) -> NDArray[np.int64]:
    """Return (N,) int64 labels; a missing column, None and NaN become -1.

    Raises:
        MIAError: a label is not a whole number.
    """
    if values is None:
        return np.full(count, UNKNOWN, dtype=np.int64)
    if (numbers := _numbers(values, "labels", name, count)) is not None:
        return numbers
    return _int64([_whole(item, "label", name) for item in _items(values, "labels", name, count)], "labels", name)


def membership_column(values: Sequence[Any] | NDArray[Any] | None, count: int, name: str) -> NDArray[np.int8]:
    """Return (N,) int8: 1, 0, or -1 for a missing column, None and NaN.

    Raises:
        MIAError: a value is neither 1, 0, -1, true, false nor missing.
    """
    if values is None:
        return np.full(count, UNKNOWN, dtype=np.int8)
    if (whole := _numbers(values, "membership", name, count)) is not None and np.isin(whole, (0, 1, UNKNOWN)).all():
        return whole.astype(np.int8)
    numbers = [_whole(item, "membership", name) for item in _items(values, "membership", name, count)]
    for number in set(numbers) - {0, 1, UNKNOWN}:  # before the cast: 257 would wrap round to 1
        raise MIAError(f"{name}: membership holds {number}; expected 1 (member), 0 (non-member) or None (unknown)")
    return np.array(numbers, dtype=np.int8)


def image_column(array: NDArray[Any], name: str) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return images as (N, C, H, W), uint8 or float32, values untouched.

    Args:
        array: (N, H, W), (N, C, H, W), or (N, H, W, C) where the last axis is 1 or 3 and the second is not; uint8 or
            floating point, of which float64 is rounded to float32.
        name: the file, for error sentences.

    Raises:
        MIAError: another shape, number of channels or dtype.
    """
    mapped = isinstance(array, np.memmap)  # axes may change places, but nothing may be copied
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise MIAError(f"{name}: images have shape {array.shape}; expected (N, channels, height, width)")
    if array.shape[1] not in (1, 3):
        if array.shape[3] not in (1, 3):
            raise MIAError(f"{name}: images have shape {array.shape}; expected 1 or 3 channels on the second axis")
        array = array.transpose(0, 3, 1, 2)
    if mapped and array.dtype in (np.uint8, np.float32):
        return array
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise MIAError(f"{name}: images are {array.dtype}; expected uint8 or float32")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which Records reports with the record's id
        return np.ascontiguousarray(array, dtype=np.float32)


def _numbers(
    values: Sequence[Any] | NDArray[Any], what: str, name: str, count: int | None = None
) -> NDArray[np.int64] | None:
    """Return an array of integers as int64 without a detour by Python's, or None where it is none."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu" and values.dtype != np.uint64:
        _check_count(values, what, name, count)
        return np.array(values, np.int64)
    return None


def _check_count(values: Sequence[Any] | NDArray[Any], what: str, name: str, count: int | None) -> None:
    if count is not None and len(values) != count:  # before each becomes an object
        raise MIAError(f"{name}: {count} ids but {len(values)} {what}; give one of each per record")


def _items(values: Sequence[Any] | NDArray[Any], what: str, name: str, count: int | None = None) -> list[Any]:
    if not isinstance(values, list | tuple | np.ndarray):
        raise MIAError(f"{name}: {what} are a {type(values).__name__}; expected one per record in a list or array")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise MIAError(f"{name}: {what} have shape {values.shape}; expected one per record")
    _check_count(values, what, name, count)
    if isinstance(values, np.ndarray):
        return list(values.tolist())
    return list(values)


def _whole(value: Any, what: str, name: str) -> int:
    if value is None:
        return UNKNOWN
    if isinstance(value, int | np.integer | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return UNKNOWN
        if np.isfinite(value) and value == int(value):
            return int(value)
    shown = (
        f"{str(value)[:40]!r} " if isinstance(value, str | float | np.floating) else ""
    )  # a list may print without end
    raise MIAError(f"{name}: {what} holds {shown}({type(value).__name__}); expected a whole number")


def _int64(items: list[Any], what: str, name: str) -> NDArray[np.int64]:
    try:
        return np.array(items, dtype=np.int64)
    except OverflowError:
        raise MIAError(f"{name}: {what} hold a number of more than 64 bits; expected smaller ones") from None
