"""Texts that become cells of the CSV files we write, and that a spreadsheet would take for a formula."""

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a formula begins; the last four are the full-width forms. Source: OWASP, CSV injection."""


def is_formula(text: str) -> bool:
    """Say whether a spreadsheet would compute the text; a plain number such as -1.5 is none."""
    if not text.startswith(FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def formula_safe(cell: Any) -> Any:
    """Return a text with an apostrophe before it where a spreadsheet would take it for a formula; else the cell."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
