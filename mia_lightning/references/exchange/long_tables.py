"""Tables with one row per model and record (and view)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.records import UNKNOWN
from mia_lightning.records.vocabulary import is_signed, normalize_name
from mia_lightning.references.exchange.conversion import FORMS
from mia_lightning.references.exchange.pool import ROLES

Columns = Mapping[str, NDArray[Any]]

MEANINGS: Mapping[str, tuple[str, ...]] = {
    "model": tuple(
        f"{name}{end}"
        for name in ("model", "shadow", "shadow_model", "reference", "reference_model")
        for end in ("", "_id", "_index", "_idx", "_name", "_number")
    ),
    "view": tuple(f"{name}{end}" for name in ("view", "query", "augmentation") for end in ("", "_id", "_index")),
    "ids": (*ROLES["ids"], "index", "row", "row_id", "sample", "example"),
    "labels": ROLES["labels"],
    "keep": (*ROLES["keep"], "in", *ROLES["membership"]),
    **{form: ROLES[form] for form in FORMS},
}
"""Meaning of a column to its names, the best first."""

TARGET = "target"
"""Name of the model whose rows are the target's."""


def long_columns(names: Iterable[str]) -> dict[str, str] | None:
    """Return the columns of a table with one row per model and record by meaning; None for other tables."""
    by_name = {normalize_name(name): name for name in names}
    columns = {
        meaning: by_name[next(name for name in legal if name in by_name)]
        for meaning, legal in MEANINGS.items()
        if any(name in by_name for name in legal)
    }
    return columns if "model" in columns and any(form in columns for form in FORMS) else None


def long_arrays(columns: Columns, source: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a pool from the columns of such a table, in any order of its rows.

    Rows of a model named target are the target's, with its membership in the column of keep. Models are sorted by name
    (2 before 10); records keep the order of their first rows.

    Args:
        columns: By meaning: model and ids of any type; keep of 1, 0 and -1 = unknown; one form (R, ...) of outputs;
            optionally view and labels; R rows.
        source: Name for messages.

    Raises:
        MIAError: a column is missing, pairs of model and record that are missing or occur twice, or values of one
            model, or one record, that contradict each other.
    """
    form = next(form for form in FORMS if form in columns)
    if lacking := [name for name in ("ids", "keep") if name not in columns]:
        column = {"ids": "record (the record's id)", "keep": "keep (1 where the model was trained on the record)"}
        raise MIAError(f"{source}: has one row per model and record, but no column {column[lacking[0]]}; add it")
    models, model = _coded(columns["model"], f"{source}: column of models")
    records, record = _coded(columns["ids"], f"{source}: column of records", in_order=True)
    views, view = _coded(columns["view"], f"{source}: column of views") if "view" in columns else ([0], model * 0)
    shape = (len(models), len(records), len(views))
    cell = (model * shape[1] + record) * shape[2] + view
    order = np.argsort(cell, kind="stable")
    _check_complete(cell[order], models, records, views, source)
    keep = np.asarray(columns["keep"])[order].reshape(shape)
    values = columns[form][order].reshape(*shape, *columns[form].shape[1:])
    if (changing := (keep != keep[..., :1]).any(axis=2)).any():
        k, i = np.argwhere(changing)[0]
        raise MIAError(
            f"{source}: keep of model {models[k]} and record {records[i]} differs between views; give one value"
        )
    keep = keep[..., 0]
    arrays: dict[str, NDArray[Any]] = {"ids": np.array(records)}
    if "labels" in columns:
        labels = columns["labels"][order].reshape(*shape)
        if (differing := (labels != labels[:1, :, :1]).any(axis=(0, 2))).any():
            raise MIAError(f"{source}: record {records[int(differing.argmax())]} has different labels")
        arrays["labels"] = labels[0, :, 0]
    is_target = np.array([normalize_name(name) == TARGET for name in models])
    if is_target.all():
        raise MIAError(f"{source}: has the target alone; add rows of reference models")
    if is_target.any():
        arrays |= {"target": values[is_target][0], "membership": keep[is_target][0]}
    values, keep = values[~is_target], keep[~is_target]
    if is_signed(np.unique(keep).tolist()):
        keep = np.maximum(keep, 0)
    if (keep == UNKNOWN).any():
        k, i = np.argwhere(keep == UNKNOWN)[0]
        name = np.array(models, object)[~is_target][k]
        raise MIAError(
            f"{source}: keep of model {name} and record {records[i]} is empty; give 1 or 0, which only rows of the "
            f"model named {TARGET} may lack"
        )
    return arrays | {form: values, "keep": keep}


def _coded(values: NDArray[Any], name: str, *, in_order: bool = False) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the distinct values, in natural order or that of their first rows, and (R,) their positions."""
    texts = np.where(values == None, "", values).astype(str) if values.dtype == object else values  # noqa: E711
    if texts.dtype.kind == "U" and (empty := texts == "").any():
        raise MIAError(f"{name} has an empty cell in row {int(empty.argmax()) + 1}; fill it in")
    distinct, first, codes = np.unique(texts, return_index=True, return_inverse=True)
    order = (
        np.argsort(first) if in_order else np.array(sorted(range(len(distinct)), key=lambda i: _natural(distinct[i])))
    )
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    return [distinct[i].item() for i in order], position[codes]


def _natural(value: Any) -> list[tuple[float, str]]:
    if not isinstance(value, str):
        return [(float(value), "")]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", value)]


def _check_complete(
    cells: NDArray[np.int64], models: list[Any], records: list[Any], views: list[Any], source: str
) -> None:
    """Raise MIAError where the sorted cells are not 0, 1, ..., one for each model, record and view."""

    def named(cell: int) -> str:
        pair, view = divmod(cell, len(views))
        k, i = divmod(pair, len(records))
        words = f"model {printable(models[k], 40)} and record {printable(records[i], 40)}"
        return words + (f" in view {views[view]}" if len(views) > 1 else "")

    repeated = cells[1:][cells[1:] == cells[:-1]]
    if len(repeated):
        hint = "" if len(views) > 1 else "; number views of a record in a column view"
        raise MIAError(f"{source}: {named(int(repeated[0]))} have more than one row; give one{hint}")
    expected = len(models) * len(records) * len(views)
    if len(cells) < expected:
        missing = int(np.flatnonzero(np.append(cells, expected) != np.arange(len(cells) + 1))[0])
        raise MIAError(
            f"{source}: {named(missing)} have no row, {expected - len(cells):,} of {expected:,} are missing; give a "
            "row for each model and record"
        )
