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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mia_lightning.errors import MIAError
from mia_lightning.security.archives import check_unfolding

if TYPE_CHECKING:
    import pyarrow as pa

ID = ("id", "ids", "record", "record_id")


MEMBER = ("membership", "member", "is_member")


LABEL = ("label", "labels", "class", "y")


SPLIT = ("split",)


IGNORED = ("fold", "file", "path")


LARGEST = 4 * 2**30
"""Bytes of a CSV; it is read whole."""


LONGEST_HEADER, MOST_COLUMNS = 2**20, 2000
"""Characters and columns of a CSV's first line."""


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


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_null, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(test(kind) for test in tests)
