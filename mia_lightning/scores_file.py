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

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.assessment import ScoredRecords
from mia_lightning.errors import MIAError, suggest
from mia_lightning.unfolding import check_unfolding

if TYPE_CHECKING:
    import pyarrow as pa

Ids = NDArray[np.int64] | NDArray[np.str_]
Array = NDArray[np.float64]

ID = ("id", "ids", "record", "record_id")
MEMBER = ("membership", "member", "is_member")
LABEL = ("label", "labels", "class", "y")
SPLIT = ("split",)
IGNORED = ("fold", "file", "path")
UNKNOWN = -1
LARGEST = 4 * 2**30
"""Bytes of a CSV; it is read whole."""

LONGEST_HEADER, MOST_COLUMNS = 2**20, 2000
"""Characters and columns of a CSV's first line."""

WORDS = {
    **dict.fromkeys(("1", "1.0", "true", "member", "in"), 1),
    **dict.fromkeys(("0", "0.0", "false", "non-member", "nonmember", "out"), 0),
    **dict.fromkeys(("", "-1", "-1.0", "unknown", "none", "nan"), UNKNOWN),
}
"""How membership is written."""


@dataclass(frozen=True, eq=False)
class ScoresFile:
    """What a file of scores holds, as far as it is used."""

    records: ScoredRecords
    columns: Mapping[str, Array]
    """Further columns asked for, (N,) each."""

    notes: list[str]
    """What the user has to know: rows and columns left out."""


@dataclass(frozen=True, eq=False)
class _Table:
    """A file's columns by lower-case name, and how to name a row of it."""

    columns: dict[str, pa.ChunkedArray]
    names: dict[str, str]
    """Lower-case name to the name as written."""

    source: str
    first_row: int
    """2 for a CSV, whose first line is the header."""

    def find(self, names: Sequence[str]) -> str | None:
        """Return the one column with one of these names, or None.

        Raises:
            MIAError: there are several.
        """
        found = [name for name in names if name in self.columns]
        if len(found) > 1:
            raise MIAError(f"{self.source}: has the columns {found[0]} and {found[1]}, which mean the same; keep one")
        return found[0] if found else None

    def where(self, row: int) -> str:
        """Return how a user finds the row."""
        return f"{self.source}, {'line' if self.first_row == 2 else 'row'} {row + self.first_row}"


def read_scores(
    path: str | Path,
    *,
    key: str | Path | None = None,
    attacks: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    split: str | None = None,
) -> ScoresFile:
    """Read scores; a million rows take seconds.

    Args:
        path: CSV (UTF-8, with a header) or Parquet.
        key: A file of id and membership; the scores' own membership column, if there is one, must not contradict it.
        attacks: The score columns; by default all that are nothing else.
        columns: Numeric columns that are no scores but known of the records without the target.
        split: Use the rows with this value in the column `split`; by default "public" where that occurs, because scores
            of another split are not on the same scale, else all.

    Raises:
        MIAError: the file cannot be read; a column is missing, given twice or of the wrong kind; an id is repeated; a
            score is NaN, infinite or text; a side is empty; the key does not match.
    """
    table = _read_table(Path(path))
    ids = _ids(table)
    membership, labels = _membership(table), _labels(table)
    if key is not None:
        membership = _from_key(table.source, ids, membership, read_key(key), Path(key).name)
    elif membership is None:
        raise MIAError(f"{table.source}: has no column membership; add one of 1 and 0, or name a --key file")
    notes: list[str] = []
    used = _used_rows(table, membership, split, notes)
    chosen = _score_columns(table, attacks, columns, notes)
    scores = {table.names[name]: _numbers(table, name, used) for name in chosen}
    scores = _without_copies(scores, notes) if attacks is None else scores
    _check_sides(table.source, membership[used])
    records = ScoredRecords(
        ids=ids[used],
        membership=membership[used].astype(np.int8),
        scores=scores,
        labels=None if labels is None or (labels[used] < 0).any() else labels[used],
        source=table.source,
    )
    return ScoresFile(records, {name: _numbers(table, name.lower(), used) for name in columns}, notes)


def read_key(path: str | Path) -> tuple[Ids, NDArray[np.int64]]:
    """Return ids (N,) and membership (N,) of 1 and 0 of a hidden key.

    Raises:
        MIAError: as `read_scores`, or a membership is unknown.
    """
    table = _read_table(Path(path))
    ids, membership = _ids(table), _membership(table)
    if membership is None:
        raise MIAError(f"{table.source}: has no column membership; a key holds id and membership")
    if (membership == UNKNOWN).any():
        row = int(np.argmax(membership == UNKNOWN))
        raise MIAError(f"{table.where(row)}: membership is unknown; a key holds 1 or 0 for every record")
    _check_sides(table.source, membership)
    return ids, membership


def read_submission(path: str | Path, key: tuple[Ids, NDArray[np.int64]], key_name: str) -> Array:
    """Return the scores of a file `ids,score` in the order of the key, (N,).

    Raises:
        MIAError: as `read_scores`; an id is missing or unknown to the key.
    """
    table = _read_table(Path(path))
    ids = _ids(table)
    others = [name for name in table.columns if name not in (*ID, *MEMBER, *LABEL, *SPLIT, *IGNORED)]
    name = "score" if "score" in table.columns else others[0] if len(others) == 1 else None
    if name is None:
        found = ", ".join(table.names[other] for other in others) or "none"
        raise MIAError(f"{table.source}: has no column score, its other columns are {found}; a submission is ids,score")
    rows = _matched(table.source, ids, key[0], key_name)
    return _numbers(table, name, np.arange(len(ids)))[rows]


def _read_table(path: Path) -> _Table:
    import pyarrow as pa  # slow to import

    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        table, first_row = (_read_parquet(path), 1) if is_parquet else (_read_csv(path), 2)
    except OSError as error:
        raise MIAError(f"{path.name}: cannot be read ({error.strerror or error}); check the path") from error
    except MemoryError as error:
        raise MIAError(f"{path.name}: does not fit into this machine's memory; give fewer records") from error
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        said = " ".join(str(error).split())[:160]
        raise MIAError(f"{path.name}: is no CSV in UTF-8 nor Parquet ({said}); save one record per line") from error
    _check_plain(table, path.name)
    lowered = [name.strip().lower() for name in table.column_names]
    if len(lowered) > MOST_COLUMNS:
        raise MIAError(f"{path.name}: has {len(lowered):,} columns; expected under {MOST_COLUMNS:,}, one per attack")
    if repeated := [name for name in lowered if lowered.count(name) > 1]:
        raise MIAError(f"{path.name}: has two columns named {repeated[0]!r}; give each its own name")
    if table.num_rows == 0:
        raise MIAError(f"{path.name}: holds no records; expected a header with id, and one line per record")
    written = dict(zip(lowered, (name.strip() for name in table.column_names), strict=True))
    return _Table(dict(zip(lowered, table.columns, strict=True)), written, path.name, first_row)


def _read_csv(path: Path) -> pa.Table:
    """Read ids and membership as text, so that 007 stays another id than 7; the rest by what it looks like."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if path.stat().st_size > LARGEST:
        raise MIAError(f"{path.name}: has {path.stat().st_size >> 30} GiB; expected under {LARGEST >> 30}, or Parquet")
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader([file.readline(LONGEST_HEADER)], strict=True), [])
    if not header:
        raise MIAError(f"{path.name}: is empty; expected a header with id, and one line per record")
    texts = {name: pa.string() for name in header if name.strip().lower() in (*ID, *MEMBER, *SPLIT)}
    options = arrow_csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
    return arrow_csv.read_csv(path, convert_options=options)


def _read_parquet(path: Path) -> pa.Table:
    """Read plain columns; a repeated text stays one until its length is known: a few bytes may stand for terabytes."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    with parquet.ParquetFile(path) as probe:
        schema, rows = probe.schema_arrow, probe.metadata.num_rows
    _check_plain(schema.empty_table(), path.name)
    check_unfolding(8 * rows * len(schema), path)
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    table = parquet.ParquetFile(path, read_dictionary=texts).read()
    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_dictionary(column.type):
            longest = (compute.max(compute.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks)
            check_unfolding(rows * max(longest, default=0), path)
            table = table.set_column(place, name, column.cast(pa.string()))
    table.validate(full=True)  # texts that are no UTF-8 among it
    return table


def _check_plain(table: pa.Table, source: str) -> None:
    """Raise MIAError where a column holds anything but numbers or text."""
    import pyarrow as pa

    kinds = pa.types
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_temporal(kind)  # a date prints
        if not (text or _is_number(kind)):
            raise MIAError(f"{source}: column {name} holds {kind}; expected numbers or text")


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


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_null, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def _used_rows(table: _Table, membership: NDArray[np.int64], split: str | None, notes: list[str]) -> NDArray[np.intp]:
    """Return the rows of known membership in the chosen split, and note how many are left out."""
    use = membership != UNKNOWN
    if unknown := int((~use).sum()):
        notes.append(f"{table.source}: {unknown:,} of {len(use):,} records have no known membership; left out")
    name = table.find(SPLIT)
    if name is None:
        if split is not None:
            raise MIAError(f"{table.source}: has no column split; leave --split out")
        return np.flatnonzero(use)
    values = table.columns[name].cast("string").fill_null("").to_numpy()
    known = {str(value) for value in np.unique(values[use].astype(str))}
    if split is not None and split not in known:
        raise MIAError(f"{table.source}: no record of known membership is of split {split!r}; {suggest(split, known)}")
    if split is None and len(known) > 1 and "public" in known:
        split = "public"
    if split is not None:
        inside = values == split
        if left := int((use & ~inside).sum()):
            notes.append(f"{table.source}: {left:,} records of known membership in other splits than {split}; left out")
        use = use & inside
    return np.flatnonzero(use)


def _score_columns(table: _Table, attacks: Sequence[str] | None, columns: Sequence[str], notes: list[str]) -> list[str]:
    """Return the lower-case names of the score columns."""
    other = {name.lower() for name in columns}
    for name in (*(attacks or ()), *columns):
        if name.lower() not in table.columns:
            raise MIAError(f"{table.source}: has no column {name!r}; {suggest(name, table.names.values())}")
    if attacks is not None:
        return [name.lower() for name in attacks]
    special = {*ID, *MEMBER, *LABEL, *SPLIT, *IGNORED, *other}
    found = [name for name in table.columns if name not in special]
    if not found:
        raise MIAError(f"{table.source}: has no score column; give one or more beside id and membership")
    if {"fold", "score", "probability"} <= table.columns.keys() and len(found) > 2:  # our own scores.csv
        notes.append(f"{table.source}: score and probability repeat the submitted attack; left out")
        found = [name for name in found if name not in ("score", "probability")]
    return found


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


def _without_copies(scores: dict[str, Array], notes: list[str]) -> dict[str, Array]:
    """Leave out a column `score` that another column repeats."""
    for name in [name for name in scores if name.lower() == "score"]:
        twin = next((o for o in scores if o != name and np.array_equal(scores[o], scores[name])), None)
        if twin is not None:
            notes.append(f"column {name} repeats {twin}; left out")
            scores = {other: values for other, values in scores.items() if other != name}
    return scores


def _from_key(
    source: str,
    ids: Ids,
    own: NDArray[np.int64] | None,
    key: tuple[Ids, NDArray[np.int64]],
    key_name: str,
) -> NDArray[np.int64]:
    """Return the key's membership in the order of the scores."""
    place = _matched(key_name, key[0], ids, source)
    membership: NDArray[np.int64] = key[1][place]
    if own is not None and (wrong := (own != UNKNOWN) & (own != membership)).any():
        raise MIAError(
            f"{key_name}: does not match {source}: membership differs for {int(wrong.sum())} records, first id "
            f"{ids[int(np.argmax(wrong))]}; name the key of these records"
        )
    return membership


def _matched(source: str, ids: Ids, wanted: Ids, wanted_name: str) -> NDArray[np.intp]:
    """Return the row in `ids` of each wanted id; both hold the same ids, each once."""
    if ids.dtype.kind != wanted.dtype.kind:  # 7 in one file, "7a" somewhere in the other
        ids, wanted = ids.astype(np.str_), wanted.astype(np.str_)
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    absent = ids[place] != wanted
    extra = len(ids) - int((~absent).sum())
    if absent.any():
        raise MIAError(
            f"{source}: {int(absent.sum())} ids of {wanted_name} are missing, first {wanted[int(np.argmax(absent))]}"
            f"{f', and {extra} are unknown to it' if extra else ''}; both files must hold the same records"
        )
    if extra:
        unknown = ids[~np.isin(ids, wanted)][0]
        raise MIAError(
            f"{source}: {extra} ids do not stand in {wanted_name}, first {unknown}; both files must hold the same "
            "records"
        )
    return place


def _check_sides(source: str, membership: NDArray[np.integer[Any]]) -> None:
    inside, outside = int((membership == 1).sum()), int((membership == 0).sum())
    if not inside or not outside:
        raise MIAError(f"{source}: holds {inside} members and {outside} non-members; figures need both")
