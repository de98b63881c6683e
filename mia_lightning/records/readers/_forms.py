"""Forms of a pickled data set other than named columns: rows, tuples, wrapped and nested data sets."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.readers._stand_ins import WRAPPERS, Array, DataSet, Picture, Unused
from mia_lightning.records.vocabulary import meaning, membership_code
from mia_lightning.security.archives import check_unfolding
from mia_lightning.security.plain import plain_dict

DEEPEST = 6
"""Data sets within data sets."""


def columns_of(value: Any, path: Path, notes: list[str], depth: int = 0) -> dict[str, Any] | None:
    """Return columns by name, without those that are None, or None for a value of another form.

    Args:
        value: What the file contains: columns by name, a data set of any class, `TensorDataset`, `Subset` or
            `ConcatDataset` of these, members and non-members apart, a tuple of columns, a list of records, or a mapping
            from ids to records.
        path: The file.
        notes: Collects how columns without names were read.
        depth: Data sets around this one.

    Raises:
        MIAError: a selection that is none, or more records than the file has bytes for.
    """
    if depth > DEEPEST:
        return None
    if isinstance(value, DataSet):
        return _wrapped(value, path, notes, depth)
    if isinstance(value, Mapping):
        return _mapping(value, path, notes, depth)
    if isinstance(value, tuple) or (isinstance(value, list) and value and not isinstance(value[0], tuple | Mapping)):
        return _parts(value, path, notes)
    return _rows(value, path, notes) if isinstance(value, list) else None


def _wrapped(value: DataSet, path: Path, notes: list[str], depth: int) -> dict[str, Any] | None:
    state, full = plain_dict(getattr(value, "state", {})), type(value).__name__
    kind = full.rpartition(".")[2] if full in WRAPPERS else ""
    if kind == "TensorDataset":
        return _parts(state.get("tensors"), path, notes)
    if kind == "Subset":
        columns = columns_of(state.get("dataset"), path, notes, depth + 1)
        return None if columns is None else _selected(columns, state.get("indices"), path)
    if kind == "ConcatDataset":
        sets = state.get("datasets")
        parts = [columns_of(part, path, notes, depth + 1) for part in sets] if isinstance(sets, list) else []
        return _joined([part for part in parts if part is not None], path) if parts and None not in parts else None
    columns = _mapping(state, path, notes, depth)
    if (transform := _transform(state.get("transform"))) is not None:
        notes.append(f"{path.name}: its transform ({transform}) is not applied to the stored images")
        columns.pop("transform", None)
    return columns


def _transform(transform: Any) -> str | None:
    """Return the classes of a transform, with mean and std as options where it normalizes."""
    if not isinstance(transform, Unused):
        return None
    state = getattr(transform, "state", None)
    state = plain_dict(state) if isinstance(state, dict) else {}
    name = type(transform).__name__.rpartition(".")[2]
    parts = state.get("transforms")
    if isinstance(parts, list) and parts:
        return ", ".join(text for part in parts[:6] if (text := _transform(part)))
    if name == "Normalize":
        given = " ".join(f"--data.{key} {printable(list(state.get(key) or ()), 60)}" for key in ("mean", "std"))
        return f"Normalize, which is {given}"
    return printable(name, 40)


def _mapping(value: Mapping[Any, Any], path: Path, notes: list[str], depth: int) -> dict[str, Any]:
    columns = {key: part for key, part in plain_dict(value).items() if part is not None}
    named = {key: part for key, part in columns.items() if isinstance(key, str)}
    if len(columns) > 1 and all(isinstance(part, tuple | Mapping) for part in columns.values()):
        sides = {key: membership_code(str(key)) for key in columns} if len(columns) == len(named) else {}
        if sorted(sides.values(), key=str) == [0, 1]:
            return _sides(columns, sides, path, notes, depth) or named
        rows = _rows(list(columns.values()), path, notes)
        return {"ids": list(columns), **rows} if rows is not None else named
    if columns and all(isinstance(part, DataSet) for part in named.values()):
        sides = {key: membership_code(key) for key in named}
        if sorted(sides.values(), key=str) == [0, 1]:
            return _sides(named, sides, path, notes, depth) or named
    for key, part in named.items():
        is_rows = isinstance(part, list) and bool(part) and isinstance(part[0], tuple | Mapping)
        if is_rows or isinstance(part, DataSet | Mapping):
            inner = columns_of(part, path, notes, depth + 1)
            if inner is not None and any(meaning(name, ("image",)) for name in inner):
                return inner | {name: other for name, other in named.items() if name != key}
    return named


def _sides(
    sets: Mapping[str, Any], sides: Mapping[str, int | None], path: Path, notes: list[str], depth: int
) -> dict[str, Any] | None:
    """Return the columns of a file that contains members and non-members apart."""
    parts = []
    for key, part in sets.items():
        columns = columns_of(part, path, notes, depth + 1)
        first = next(iter(columns.values()), None) if columns else None
        if columns is None or first is None:
            return None
        parts.append({**columns, "membership": [sides[key]] * len(first)})
    notes.append(f"{path.name}: {' and '.join(printable(key, 40) for key in sets)} are read as the two memberships")
    return _joined(parts, path)


def _rows(rows: list[Any], path: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return the columns of a list of records, which are mappings or tuples of one form."""
    if not rows:
        return None
    if all(isinstance(row, Mapping) for row in rows):
        records = [plain_dict(row) for row in rows]
        names = dict.fromkeys(name for name in chain.from_iterable(records) if isinstance(name, str))
        check_unfolding(16 * len(names) * len(rows), path)
        return {name: [record.get(name) for record in records] for name in names}
    if not all(isinstance(row, tuple) for row in rows) or len({len(row) for row in rows}) != 1:
        return None
    return _parts(tuple(list(column) for column in zip(*rows, strict=True)), path, notes)


def _parts(parts: Any, path: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return the names of columns in a tuple: ids before the images, labels and membership after them."""
    if not isinstance(parts, tuple | list) or len(parts) < 2:
        return None
    ranks = [_rank(part) for part in parts]
    at = next((i for i, rank in enumerate(ranks) if rank >= 3), None)
    name = "images" if at is not None else "inputs"
    at = next((i for i, rank in enumerate(ranks) if rank == 2), None) if at is None else at
    if at is None or at > 1 or (len(parts) == at + 1):
        return None
    columns = ({"ids": parts[0]} if at else {}) | {name: parts[at]}
    after = [part for part in parts[at + 1 :] if _rank(part) >= 1 and len(part) == len(parts[at])]
    if len(after) > 1 and not _is_membership(after[1]) and _is_membership(after[0]):
        after[0], after[1] = after[1], after[0]
    columns |= {"labels": after[0]} if after else {}
    columns |= {"membership": after[1]} if len(after) > 1 and _is_membership(after[1]) else {}
    notes.append(f"{path.name}: is a tuple without names, read as {', '.join(columns)}")
    unread = len(parts) - len(columns)
    if unread:
        types = sorted({type(part).__name__ for part in parts if not any(part is kept for kept in columns.values())})
        notes.append(f"{path.name}: {unread} of its {len(parts)} entries ({', '.join(types)}) not used")
    return columns


def _is_membership(column: Any) -> bool:
    values = list(_items(column)) if _rank(column) == 1 else [None]
    known = {str(getattr(value, "item", lambda value=value: value)()) for value in values if value is not None}
    return bool(values) and all(membership_code(text) is not None for text in known)


def _rank(column: Any) -> int:
    """Return the number of axes of a column."""
    import torch

    if isinstance(column, torch.Tensor | np.ndarray):
        return column.ndim
    if isinstance(column, Array):
        return column.numpy().ndim
    if isinstance(column, Picture):
        return 2
    if isinstance(column, list | tuple):
        return 1 + (_rank(column[0]) if column and not isinstance(column[0], list | tuple) else 0)
    return 0


def _items(column: Any) -> Any:
    if isinstance(column, Array):
        column = column.numpy()
    return column if isinstance(column, list | tuple | np.ndarray) else list(column)


def _length(columns: Mapping[str, Any]) -> int:
    return max((len(_items(column)) for column in columns.values() if _rank(column)), default=0)


def _selected(columns: Mapping[str, Any], indices: Any, path: Path) -> dict[str, Any]:
    """Return the rows of a `Subset`."""
    count = _length(columns)
    rows = [int(row) for row in _items(indices)] if _rank(indices) == 1 else None
    if rows is None or any(not -count <= row < count for row in rows):
        raise MIAError(f"{path.name}: its Subset has indices that are none of its {count} records; save it again")
    check_unfolding(64 * len(rows) * len(columns), path)
    chosen = {}
    for name, column in columns.items():
        items = _items(column) if _rank(column) else ()
        chosen[name] = [items[row] for row in rows] if len(items) == count else column
    return chosen


def _joined(parts: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    """Return data sets one after the other; a column that one of them lacks is missing there."""
    counts = [_length(part) for part in parts]
    names = dict.fromkeys(chain.from_iterable(parts))
    check_unfolding(64 * sum(counts) * len(names), path)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for part, count in zip(parts, counts, strict=True):
        for name in names:
            items = list(_items(part[name])) if _rank(part.get(name)) else [part.get(name)] * count
            columns[name].extend(items)
    return columns
