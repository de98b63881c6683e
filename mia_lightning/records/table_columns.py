"""Columns of a table as arrays: ids, membership, labels, groups, texts and numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, listed, printable
from mia_lightning.records.column_mapping import Columns
from mia_lightning.records.features import coded
from mia_lightning.records.tables import Table, is_number
from mia_lightning.records.vocabulary import (
    LONGEST_ID,
    NUMBER,
    UNKNOWN,
    is_blank,
    label_codes,
    membership_codes,
    names_training,
    split_note,
)

if TYPE_CHECKING:
    import pyarrow as pa

Ids = NDArray[np.int64] | NDArray[np.str_]

PLAIN = re.compile(r"(0|-?[1-9]\d{0,17})(\.0)?", re.ASCII)
"""A whole number, also as pandas writes it in a column of floats (3.0); 007 stays text."""

PANDAS_MISSING = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""Texts of a CSV that `pandas.read_csv` reads as missing."""


def text_column(table: Table, name: str) -> list[str]:
    """Return N texts without surrounding blanks, "" where a value is missing."""
    return [text.strip() for text in _texts(table, name).to_pylist()]


def id_column(table: Table, name: str | None) -> Ids:
    """Return (N,) unique ids: int64 when all are plain whole numbers, else text; row numbers without a column.

    Raises:
        MIAError: an id is missing, repeated, longer than 256 characters or a fraction; the line is named.
    """
    if name is None:
        return np.arange(len(table), dtype=np.int64)
    import pyarrow as pa

    texts = text_column(table, name)
    if pa.types.is_floating(table.columns[name].type) and not all(map(PLAIN.fullmatch, filter(None, texts))):
        raise MIAError(f"{table.source}: ids are {table.columns[name].type}; save whole numbers or text")
    ids = _numbers_or_texts(texts)
    texts = ids.astype(np.str_).tolist()
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        if not text:
            raise MIAError(f"{table.where(row)}: has no id; give every record one")
        if len(text) > LONGEST_ID:
            raise MIAError(f"{table.where(row)}: the id is longer than {LONGEST_ID} characters; shorten it")
        if text in first:
            line = first[text] + table.first_row
            raise MIAError(f"{table.where(row)}: id {printable(text, 40)} duplicates {line}; ids must be unique")
        first[text] = row
    return ids


def membership_column(table: Table, name: str | None) -> tuple[NDArray[np.int8], list[str]]:
    """Return (N,) 1 = member, 0 = non-member, -1 = unknown, and notes about how it was read.

    Raises:
        MIAError: a word is not understood; the line is named.
    """
    if name is None:
        return np.full(len(table), UNKNOWN, dtype=np.int8), []
    words, codes = _distinct(table, name)
    meanings, notes = membership_codes(words, _where(table, name, codes))
    return np.array(meanings, dtype=np.int8)[codes], [f"{table.source}: {note}" for note in notes]


def membership_of(table: Table, columns: Columns) -> tuple[NDArray[np.int8], list[str]]:
    """Return membership as `membership_column`, from a column of splits (train, test) where there is no other.

    Raises:
        MIAError: a word is not understood; the line is named.
    """
    name, split = columns.get("membership"), columns.get("split")
    if name is not None or split is None:
        return membership_column(table, name)
    words, _ = _distinct(table, split)
    membership, notes = membership_column(table, split if names_training(words) else None)
    return membership, [split_note(table.source, split, words), *notes]


def label_column(table: Table, name: str | None) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Return (N,) classes from 0 (-1 = missing), and their names where the column holds names.

    Names are numbered in alphabetical order, as torchvision's ImageFolder does.

    Raises:
        MIAError: the column mixes numbers and names, or holds a fraction; the line is named.
    """
    if name is None:
        return np.full(len(table), UNKNOWN, dtype=np.int64), None
    words, codes = _distinct(table, name)
    classes, names = label_codes(words, _where(table, name, codes))
    return np.array(classes, dtype=np.int64)[codes], names


def group_column(table: Table, name: str | None, ids: Ids) -> Ids | None:
    """Return (N,) groups, int64 when all are plain whole numbers, else text; a record without one is its own group."""
    if name is None:
        return None
    texts = [f"record {i}" if is_blank(text) else text for text, i in zip(text_column(table, name), ids, strict=True)]
    return _numbers_or_texts(texts)


def _numbers_or_texts(texts: list[str]) -> Ids:
    if all(map(PLAIN.fullmatch, texts)):
        return np.array([text.removesuffix(".0") for text in texts], dtype=np.int64)
    return np.array(texts, dtype=np.str_)


def number_column(
    table: Table, name: str, rows: NDArray[np.intp] | None = None, *, missing: bool = False
) -> NDArray[np.float64]:
    """Return the rows of a column as finite float64; all rows by default, and NaN where values may be missing.

    Raises:
        MIAError: a value is text, NaN, infinite or missing; the line and the number of such rows are named.
    """
    import pyarrow as pa

    rows = np.arange(len(table)) if rows is None else rows
    column = table.columns[name]
    if is_number(column.type):
        values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)[rows]
    else:
        values = _from_text(table, name, rows)
    finite = ~np.isinf(values) if missing else np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        form = "infinite" if np.isinf(values[row]) else "NaN or empty"
        raise MIAError(
            f"{table.where(int(rows[row]))}: {printable(name, 40)} is {form} ({int((~finite).sum())} such rows); every "
            "record needs a finite number"
        )
    return values


def feature_column(table: Table, name: str, notes: list[str]) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
    """Return a feature (N,), NaN where a value is missing, and for text the texts that its values are positions of.

    Text is as in the file, blanks around it included. What counts as missing is what pandas takes for it; among
    numbers, a question mark and the like too.

    Raises:
        MIAError: a value is infinite, or all are missing; the line is named.
    """
    if is_number(table.columns[name].type):
        values, texts = number_column(table, name, missing=True), None
    else:
        words, codes = _distinct(table, name)
        is_csv = table.first_row == 2
        blanks = [word for word in words if is_blank(word)]
        if any(NUMBER.fullmatch(word.strip()) for word in words) and all(
            NUMBER.fullmatch(word.strip()) for word in words if word not in blanks
        ):
            values, texts = number_column(table, name, missing=True), None
            if shown := [word for word in blanks if word]:
                notes.append(f"{table.source}: {listed(shown, 3)} in column {printable(name, 40)} is read as missing")
        else:
            missing = [word == "" or (is_csv and word in PANDAS_MISSING) for word in words]
            positions, texts = coded([None if gone else word for word, gone in zip(words, missing, strict=True)])
            values = positions[codes]
    if np.isnan(values).all():
        raise MIAError(f"{table.where(0)}: {printable(name, 40)} is NaN or empty ({len(values)} such rows)")
    return values, texts


def _from_text(table: Table, name: str, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return numbers written as text, such as 0.5 among `inf`; the first that is not a number is an error."""
    values = np.empty(len(rows))
    texts = _texts(table, name).to_numpy()[rows].tolist()
    for position, text in enumerate(texts):
        try:
            values[position] = np.nan if is_blank(text) else float(text)
        except ValueError:
            raise MIAError(
                f"{table.where(int(rows[position]))}: {printable(name, 40)} is {printable(text, 40)!r}; "
                "expected a number"
            ) from None
    return values


def _where(table: Table, name: str, codes: NDArray[np.intp]) -> Callable[[int], str]:
    """Return what names the first row of a distinct text for a message."""
    return lambda position: f"{table.where(int(np.argmax(codes == position)))}: {printable(name, 40)}"


def _texts(table: Table, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    return table.columns[name].cast(pa.string()).fill_null("")


def _distinct(table: Table, name: str) -> tuple[list[str], NDArray[np.intp]]:
    """Return the distinct texts of a column, and which of them each row has, (N,)."""
    coded = _texts(table, name).combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices.to_numpy(zero_copy_only=False), dtype=np.intp)
