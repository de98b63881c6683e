"""Files of scores from any tool: id, membership and one or many score columns, as CSV or Parquet.

Columns are found by name, upper or lower case:

    id, ids, record, record_id                      one per record, unique
    membership, member, is_member                   1, 0, true, false, member, non-member; empty or -1 = unknown
    label, labels, class, y                         the record's class, a whole number (optional)
    split                                           public, private, ...: which rows are used can be chosen
    fold, file, path                                ignored
    everything else                                 one attack's scores, higher = more likely a member
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.scores._tables import ID, LABEL, MEMBER, _is_number, _Table

if TYPE_CHECKING:
    pass

Ids = NDArray[np.int64] | NDArray[np.str_]


Array = NDArray[np.float64]


UNKNOWN = -1


WORDS = {
    **dict.fromkeys(("1", "1.0", "true", "member", "in"), 1),
    **dict.fromkeys(("0", "0.0", "false", "non-member", "nonmember", "out"), 0),
    **dict.fromkeys(("", "-1", "-1.0", "unknown", "none", "nan"), UNKNOWN),
}
"""How membership is written."""


def _ids(table: _Table) -> Ids:
    """Return unique ids: int64 where all are plain whole numbers, else text."""
    import pyarrow as pa
    from pyarrow import compute

    name = table.find(ID)
    if name is None:
        found = ", ".join(table.names.values())
        raise MIAError(f"{table.source}: has no column id, it has {found[:200]}; name the column of record ids id")
    column = table.columns[name]
    if pa.types.is_floating(column.type):
        raise MIAError(f"{table.source}: ids are {column.type}; expected whole numbers or text")
    texts = column.cast(pa.string())
    blank = compute.fill_null(compute.equal(texts, ""), True).to_numpy(zero_copy_only=False)
    if blank.any():
        raise MIAError(f"{table.where(int(np.argmax(blank)))}: has no id; give every record one")
    plain = compute.all(compute.match_substring_regex(texts, r"^(0|-?[1-9]\d{0,17})$")).as_py()
    counts = texts.value_counts()
    if len(counts) < len(texts):
        repeated = compute.filter(counts.field("values"), compute.greater(counts.field("counts"), 1))[0].as_py()
        rows = np.flatnonzero(compute.equal(texts, repeated).to_numpy(zero_copy_only=False))
        raise MIAError(
            f"{table.where(int(rows[1]))}: id {repeated} stands already at {rows[0] + table.first_row}; "
            f"ids must be unique ({len(texts) - len(counts)} repeats)"
        )
    if plain:
        return np.asarray(texts.cast(pa.int64()).to_numpy(), dtype=np.int64)
    return np.asarray(texts.to_numpy(), dtype=np.str_)


def _membership(table: _Table) -> NDArray[np.int64] | None:
    import pyarrow as pa

    name = table.find(MEMBER)
    if name is None:
        return None
    coded = table.columns[name].cast(pa.string()).fill_null("").combine_chunks().dictionary_encode()
    words = coded.dictionary.to_pylist()
    codes = coded.indices.to_numpy()
    for code, word in enumerate(words):
        if word.strip().lower() not in WORDS:
            where = table.where(int(np.argmax(codes == code)))
            raise MIAError(f"{where}: membership is {word[:40]!r}; expected 1, 0, or empty for unknown")
    meanings = np.array([WORDS[word.strip().lower()] for word in words], dtype=np.int64)
    return np.asarray(meanings[codes])


def _labels(table: _Table) -> NDArray[np.int64] | None:
    """Return classes, -1 where one is missing; None without a column, or where it holds names."""
    import pyarrow as pa

    name = table.find(LABEL)
    if name is None:
        return None
    column = table.columns[name]
    if not _is_number(column.type):
        column = column.cast(pa.string()).fill_null("")
        coded = column.combine_chunks().dictionary_encode()
        return np.asarray(coded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    values = column.cast(pa.float64(), safe=False).fill_null(UNKNOWN).to_numpy()
    if not ((values == np.round(values)) & (np.abs(values) < 2**53)).all():
        row = int(np.argmin((values == np.round(values)) & (np.abs(values) < 2**53)))
        raise MIAError(f"{table.where(row)}: {table.names[name]} is {values[row]:g}; expected a whole number")
    return np.asarray(values, dtype=np.int64)


def _numbers(table: _Table, name: str, rows: NDArray[np.intp]) -> Array:
    """Return the rows of a column as finite float64."""
    import pyarrow as pa

    column, written = table.columns[name], table.names[name]
    if _is_number(column.type):
        values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)[rows]
    else:
        values = _from_text(table, name, rows)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        bad = int((~np.isfinite(values)).sum())
        said = "infinite" if np.isinf(values[row]) else "NaN or empty"
        raise MIAError(
            f"{table.where(int(rows[row]))}: {written} is {said} ({bad} such rows); every record needs a finite score"
        )
    return values


def _from_text(table: _Table, name: str, rows: NDArray[np.intp]) -> Array:
    """Return numbers written as text, such as 0.5 among `inf`; the first that is none is an error."""
    values = np.empty(len(rows))
    for place, text in enumerate(table.columns[name].cast("string").to_numpy()[rows].tolist()):
        try:
            values[place] = float(text) if text else np.nan
        except ValueError:
            raise MIAError(
                f"{table.where(int(rows[place]))}: {table.names[name]} is {text[:40]!r}; expected a number "
                "(name the score columns with --attacks if this is none)"
            ) from None
    return values
