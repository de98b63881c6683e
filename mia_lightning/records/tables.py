"""Tables: CSV of any common delimiter and encoding, and Parquet, as columns by name.

The one table reader of records and of scores. Columns keep their names as written; what they mean is decided by
`records.vocabulary`, and `records.table_columns` turns them into ids, membership, labels and numbers:

    table = read_table(path, mapping)
    columns = find_columns(table.names, table.source, mapping, ("id", "membership", "label", "split"))
    ids, codes = id_column(table, columns.get("id")), membership_column(table, columns.get("membership"))
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.csv_header import DELIMITERS, WIDE, decoded_start, delimiter_of, split_header
from mia_lightning.records.vocabulary import IGNORE, NUMBER, meaning, normalize_name
from mia_lightning.security.archives import check_unfolding
from mia_lightning.security.file_kinds import HEAD, bytes_kind, kind_sentence
from mia_lightning.security.open import open_regular

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 4 * 2**30
"""Bytes of a CSV; it is read completely."""

BLOCK = 16 << 20

LONGEST_HEADER, MOST_COLUMNS = 2**20, 2000
"""Characters and columns of a CSV's first line."""

TEXT_MEANINGS = ("id", "membership", "label", "group", "file", "class_name", "split")
"""Meanings whose columns are kept as text, so that id 007 differs from 7."""


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one file."""

    columns: Mapping[str, pa.ChunkedArray]
    """Name as written in the file, surrounding blanks removed, to N values."""

    source: str
    """Name for messages: the file's name without its folder."""

    first_row: int
    """Number of the first record for messages: 2 in a CSV, whose first line is the header, else 1."""

    notes: tuple[str, ...] = ()
    """Detected properties of the file's form, such as its delimiter."""

    @property
    def names(self) -> list[str]:
        """Names of the columns, in the order of the file."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def find(self, name: str) -> str | None:
        """Return the column of this name, upper or lower case, as written; None when there is none."""
        normal = normalize_name(name)
        return name if name in self.columns else next((n for n in self.columns if normalize_name(n) == normal), None)

    def where(self, row: int) -> str:
        """Return how a user finds a row: the file and its line (CSV) or row."""
        return f"{self.source}, {'line' if self.first_row == 2 else 'row'} {row + self.first_row}"


def read_table(path: str | Path, mapping: Mapping[str, str] | None = None, *, largest: int = LARGEST) -> Table:
    """Read a CSV or Parquet file; a million rows take about a second.

    Args:
        path: CSV (UTF-8 or UTF-16; commas, tabs, semicolons or vertical bars; a header) or Parquet.
        mapping: the user's mapping of column names to meanings: which columns stay text.
        largest: bytes that a CSV may have.

    Raises:
        MIAError: it is missing, not a table, too large, damaged, or has columns of one name or without plain values.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            start = file.read(4)
            if start == b"PAR1":
                return checked_table(_parquet(path), path.name, 1)
            size = path.stat().st_size
            if size > largest:
                raise MIAError(f"{path.name}: has {size >> 20:,} MiB; expected under {largest >> 20:,} MiB; split it")
            file.seek(0)
            header = file.read(LONGEST_HEADER)
        recognized = bytes_kind(header[:HEAD], path.name)
        if recognized is not None and recognized.is_placeholder:
            raise MIAError(f"{path.name}: is {recognized.description}; {recognized.fix}")
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            return parse_csv(path.read_bytes(), path.name, mapping)
        quotes, has_nul = _scan(path)
        if has_nul:
            raise _nul(path.name, kind_sentence(path))
        if quotes % 2:
            raise _open_quote(path.name, kind_sentence(path))
        return _csv(path, header, path.name, mapping)
    except MemoryError:
        raise MIAError(f"{path.name}: does not fit into memory; give fewer records") from None
    except OSError as error:
        raise MIAError(f"{path.name}: cannot be read ({error.strerror or error}); check the path") from None
    except Exception as error:
        raise _readable_error(error, path.name, kind_sentence(path)) from None


def parse_csv(content: bytes, name: str, mapping: Mapping[str, str] | None = None) -> Table:
    """Parse the bytes of a CSV, as `read_table`.

    Args:
        content: the file's bytes.
        name: the file, for messages.
        mapping: the user's mapping of column names to meanings.
    """
    try:
        for mark, encoding in WIDE:
            if content.startswith(mark):
                content = content.decode(encoding).encode()
        if content.count(b'"') % 2:
            raise _open_quote(name)
        if b"\0" in content:
            raise _nul(name)
        return _csv(content, content[:LONGEST_HEADER], name, mapping)
    except Exception as error:
        raise _readable_error(error, name, "") from None


def _scan(path: Path) -> tuple[int, bool]:
    """Return the number of quotes of a file, and whether it has a NUL byte."""
    quotes, has_nul = 0, False
    with open_regular(path) as file:
        while block := file.read(BLOCK):
            quotes, has_nul = quotes + block.count(b'"'), has_nul or b"\0" in block
    return quotes, has_nul


def _nul(name: str, recognized: str = "") -> MIAError:
    return MIAError(f"{name}: {recognized or 'holds NUL bytes, so it is not text; save the table as CSV in UTF-8'}")


def _open_quote(name: str, recognized: str = "") -> MIAError:
    return MIAError(
        f"{name}: {recognized}"
        if recognized
        else f"{name}: a quote is never closed, so rows could be lost; quote every field or none"
    )


def _readable_error(error: Exception, name: str, recognized: str) -> Exception:
    """Return the MIAError for what reading a table raised; a defect of ours is returned as it is."""
    import pyarrow as pa

    if isinstance(error, UnicodeError):
        return MIAError(f"{name}: {recognized or 'is not UTF-8 text; save the table as CSV in UTF-8'}")
    if isinstance(error, pa.ArrowException | csv.Error | OverflowError):
        reason = printable(" ".join(str(error).split()), 160)
        return MIAError(
            f"{name}: {recognized or f'is not a CSV or Parquet table ({reason}); save one record per line'}"
        )
    return error


def _csv(source: Path | bytes, start: bytes, name: str, mapping: Mapping[str, str] | None) -> Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    lines = decoded_start(start).split("\n", 3)
    delimiter = delimiter_of(lines[0])
    names = split_header(lines[0], delimiter)
    if not any(names):
        raise MIAError(f"{name}: is empty; expected a header with id, and one line per record")
    _check_names(names, name)
    comma = delimiter != "," and any(re.search(rf"(^|{re.escape(delimiter)})\s*-?\d+,\d+", line) for line in lines[1:3])
    mapped = {normalize_name(column) for column, means in (mapping or {}).items() if means != IGNORE}
    texts = [n for n in names if meaning(n, TEXT_MEANINGS) or normalize_name(n) in mapped]
    table = arrow_csv.read_csv(
        source if isinstance(source, Path) else pa.BufferReader(source),
        read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(texts, pa.string()),
            strings_can_be_null=False,
            decimal_point="," if comma else ".",
        ),
    )
    notes = [] if delimiter == "," else [f"{name}: read as separated by {DELIMITERS[delimiter]}"]
    notes += [f"{name}: read with decimal commas"] if comma else []
    return checked_table(table, name, 2, notes)


def _parquet(path: Path) -> pa.Table:
    """Read plain columns; a repeated text stays one until its length is checked: few bytes may stand for terabytes."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    with parquet.ParquetFile(path) as probe:
        schema, rows = probe.schema_arrow, probe.metadata.num_rows
    _check_plain(unfolded(schema.empty_table()), path.name)
    check_unfolding(8 * rows * len(schema), path)
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    table = parquet.ParquetFile(path, read_dictionary=texts).read()
    for position, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_dictionary(column.type):
            longest = (compute.max(compute.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks)
            check_unfolding(rows * max(longest, default=0), path)
            table = table.set_column(position, name, column.cast(column.type.value_type))
    table.validate(full=True)  # texts that are not UTF-8 among it
    return table


def checked_table(table: pa.Table, source: str, first_row: int, notes: Sequence[str] = ()) -> Table:
    """Return an Arrow table with its columns checked, see `read_table`."""
    names = [name.strip() for name in table.column_names]
    _check_names(names, source)
    table = unfolded(table)
    _check_plain(table, source)
    if table.num_rows == 0:
        raise MIAError(f"{source}: contains no records; expected a header with id, and one line per record")
    return Table(dict(zip(names, table.columns, strict=True)), source, first_row, tuple(notes))


def unfolded(table: pa.Table) -> pa.Table:
    """Return a table whose categorical columns (of pandas) hold their values."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(field.type.value_type))
    return table


def _check_names(names: Sequence[str], source: str) -> None:
    if len(names) > MOST_COLUMNS:
        raise MIAError(f"{source}: has {len(names):,} columns; expected at most {MOST_COLUMNS:,}")
    name, count = Counter(map(normalize_name, names)).most_common(1)[0]
    if count > 1 and all(NUMBER.fullmatch(column.strip()) for column in names):
        raise MIAError(f"{source}: has no header; add a first line with the columns' names, such as id,score")
    if count > 1:
        raise MIAError(f"{source}: has two columns named {printable(name, 40)!r}; give each its own name")


def _check_plain(table: pa.Table, source: str) -> None:
    """Raise MIAError where a column holds anything but numbers or text."""
    import pyarrow as pa

    for name, type_ in zip(table.column_names, table.schema.types, strict=True):
        is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_temporal(type_)
        if not (is_text or is_number(type_)):
            raise MIAError(f"{source}: column {printable(name, 40)} holds {type_}; expected numbers or text")


def is_number(type_: pa.DataType) -> bool:
    """Whether a column's type is an integer, float, boolean or null."""
    import pyarrow as pa

    tests = (pa.types.is_null, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(test(type_) for test in tests)
