"""Values of a column, whatever holds them: arrays of integers, lists of objects, columns of one cell per row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.vocabulary import UNKNOWN, is_blank

Values = Sequence[Any] | NDArray[Any]


def flat(values: Values) -> Values:
    """Return an (N, 1) column as (N,), in an array or in a list of lists of one."""
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if (
        isinstance(values, list | tuple)
        and values
        and all(isinstance(item, list) and len(item) == 1 for item in values)
    ):
        return [item[0] for item in values]
    return values


def integer_array(values: Values, what: str, name: str, count: int | None = None) -> NDArray[np.int64] | None:
    """Return an array of integers as int64 without a detour through Python's integers, else None."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu" and values.dtype != np.uint64:
        check_count(values, what, name, count)
        return np.array(values, np.int64)
    return None


def check_count(values: Values, what: str, name: str, count: int | None) -> None:
    """Raise MIAError when a column has another length than the records; None checks nothing."""
    if count is not None and len(values) != count:  # before each becomes an object
        raise MIAError(f"{name}: {count} records but {len(values)} {what}; give one of each per record")


def value_list(values: Values, what: str, name: str, count: int | None = None) -> list[Any]:
    """Return a column as a list of Python values; MIAError when it is not one value per record."""
    if not isinstance(values, list | tuple | np.ndarray):
        raise MIAError(f"{name}: {what} are a {type(values).__name__}; expected one per record in a list or array")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise MIAError(f"{name}: {what} have shape {values.shape}; expected one per record")
    if isinstance(values, np.ndarray) and values.dtype.kind not in "biufUS":
        raise MIAError(f"{name}: {what} are {values.dtype}; expected numbers or text")
    check_count(values, what, name, count)
    if isinstance(values, np.ndarray):
        values = np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values
        return list(values.tolist())
    return list(values)


def is_missing(item: object) -> bool:
    """Whether a value is None, NaN or a text that stands for a missing one."""
    return item is None or (isinstance(item, float) and np.isnan(item)) or (isinstance(item, str) and is_blank(item))


def whole_number(value: Any, what: str, name: str) -> int:
    """Return a value as an int, -1 for None and NaN; MIAError when it is not a whole number."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int | np.integer | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return UNKNOWN
        if np.isfinite(value) and value == int(value):
            return int(value)
    is_short = isinstance(value, str | float | np.floating)  # a list may print without end
    shown = f"{printable(value, 40)!r} " if is_short else ""
    hint = ", the class of the record; regression is not audited" if what == "label" else ""
    raise MIAError(f"{name}: {what} holds {shown}({type(value).__name__}); expected a whole number{hint}")


def is_whole_float(item: object) -> bool:
    """Whether a value is a float that is a whole number."""
    return isinstance(item, float | np.floating) and bool(np.isfinite(item)) and item == int(item)


def shown(item: object) -> str:
    """Return a value as text, 3.0 as 3."""
    return str(int(item)) if is_whole_float(item) else str(item)  # type: ignore[call-overload]


def int64_array(items: list[Any], what: str, name: str) -> NDArray[np.int64]:
    """Return whole numbers as int64; MIAError beyond 64 bits."""
    try:
        return np.array(items, dtype=np.int64)
    except OverflowError:
        raise MIAError(f"{name}: {what} contain a number of more than 64 bits; expected smaller ones") from None
