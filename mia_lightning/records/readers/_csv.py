"""The table beside the images: id, and optionally label, membership and file."""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import _columns
from mia_lightning.records.records import UNKNOWN

LARGEST = 256 * 2**20  # bytes
MOST_ROWS, MOST_CELLS = 5 * 10**6, 4 * 10**7  # far above any set of candidates; each row and cell is an object here
WHOLE = re.compile(r"(-?\d{1,18})(\.0*)?")  # pandas writes 3.0 when a column has gaps
BLANK = ("", "-1", "unknown", "none", "nan")
MEMBERSHIP = {"1": 1, "true": 1, "0": 0, "false": 0, **dict.fromkeys(BLANK, UNKNOWN)}


@dataclass(frozen=True)
class Table:
    """The columns of one CSV, in its order."""

    ids: NDArray[np.int64] | NDArray[np.str_]
    labels: NDArray[np.int64]
    membership: NDArray[np.int8]
    files: list[str] | None
    """The column `file`, where the CSV has one."""


def header(start: bytes) -> set[str]:
    """Return the column names of a CSV's first line, in lower case; empty when it is no text."""
    try:
        line = start.split(b"\n", 1)[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        return set()
    return set() if "\0" in line else {field.strip().strip('"').lower() for field in line.split(",")}


def parse(content: bytes, name: str) -> Table:
    """Parse a CSV with columns id (or ids), label, membership, file; all but the first may be missing.

    Raises:
        MIAError: it is no UTF-8 text, lacks the id column, repeats an id, or holds a value of the wrong kind; the line
            is named.
    """
    if len(content) > LARGEST:
        raise MIAError(f"{name}: has {len(content) >> 20} MiB; expected a table of records, under {LARGEST >> 20} MiB")
    if b"\0" in content:  # numpy would cut it off the end of an id
        raise MIAError(f"{name}: holds NUL bytes, so it is no text; save the table as CSV in UTF-8")
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows, cells = [], 0
        for row in lines:
            if row:
                rows.append((lines.line_num, row))
                cells += len(row)
            if lines.line_num > MOST_ROWS or cells > MOST_CELLS:
                raise MIAError(f"{name}: has over {MOST_ROWS:,} lines or {MOST_CELLS:,} cells; split it")
    except UnicodeDecodeError:
        raise MIAError(f"{name}: is no UTF-8 text; save the table as CSV in UTF-8") from None
    except csv.Error as error:
        raise MIAError(f"{name}: is no CSV ({error}); save the table with one record per line") from None
    columns = _split(rows, name)
    texts = columns.get("id", columns.get("ids"))
    if texts is None:
        found = ", ".join(list(columns)[:12]) or "none"
        raise MIAError(f"{name}: has no column id, it has {found}; expected id, and optionally label, membership, file")
    numbers = [line for line, _ in rows[1:]]
    ids: list[Any] = [int(text) for text in texts] if all(map(_is_plain, texts)) else texts
    _check_unique(ids, numbers, name)
    return Table(
        ids=_columns.id_column(ids, name),
        labels=_numbers(columns.get("label", columns.get("labels")), numbers, "label", name),
        membership=_numbers(columns.get("membership"), numbers, "membership", name).astype(np.int8),
        files=columns.get("file"),
    )


def _split(rows: list[tuple[int, list[str]]], name: str) -> dict[str, list[str]]:
    if len(rows) < 2:
        raise MIAError(f"{name}: holds no records; expected a header with id, and one line per record")
    names = [field.strip().lower() for field in rows[0][1]]
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise MIAError(f"{name}: has the column {twice[:40]!r} twice; keep one")
    for line, row in rows[1:]:
        if len(row) != len(names):
            raise MIAError(f"{name}, line {line}: has {len(row)} fields; expected {len(names)}, as in the header")
    return {column: [row[place].strip() for _, row in rows[1:]] for place, column in enumerate(names)}


def _is_plain(text: str) -> bool:
    # "007" stays text: as a number it would come back as another id
    return re.fullmatch(r"0|-?[1-9]\d{0,17}", text, re.ASCII) is not None


def _check_unique(ids: list[Any], numbers: list[int], name: str) -> None:
    first: dict[Any, int] = {}
    for line, key in zip(numbers, ids, strict=True):
        if key == "":
            raise MIAError(f"{name}, line {line}: has no id; give every record one")
        if key in first:
            raise MIAError(f"{name}, line {line}: id {key} stands already on line {first[key]}; ids must be unique")
        first[key] = line


def _numbers(texts: list[str] | None, numbers: list[int], what: str, name: str) -> NDArray[np.int64]:
    values = np.full(len(numbers), UNKNOWN, dtype=np.int64)
    for row, text in enumerate(texts or ()):
        whole = WHOLE.fullmatch(text)
        plain = whole.group(1) if whole else text.lower()
        if what == "membership" and plain in MEMBERSHIP:
            values[row] = MEMBERSHIP[plain]
        elif what == "label" and (whole or plain in BLANK):
            values[row] = int(plain) if whole else UNKNOWN
        else:
            legal = "1, 0, true, false, or empty for unknown" if what == "membership" else "a whole number, or empty"
            raise MIAError(f"{name}, line {numbers[row]}: {what} is {text[:40]!r}; expected {legal}")
    return values
