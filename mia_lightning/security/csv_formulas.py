"""Texts that a spreadsheet would evaluate as a formula in a CSV file."""

import csv
from collections.abc import Mapping
from typing import IO, Any

from numpy.typing import NDArray

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a formula; the last four are the full-width forms. Source: OWASP, CSV injection."""


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would evaluate the text; a plain number such as -1.5 is not a formula."""
    if not text.startswith(FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def formula_safe(cell: Any) -> Any:
    """Return a text with an apostrophe before it where a spreadsheet would evaluate it; any other cell unchanged."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def write_records(file: IO[str], ids: NDArray[Any], columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a row of CSV per record: its id, then columns by name; ids and names are `formula_safe`."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", *map(formula_safe, columns)])
    writer.writerows(
        zip(map(formula_safe, ids.tolist()), *(column.tolist() for column in columns.values()), strict=True)
    )
