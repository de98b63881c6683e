"""Header of a CSV: its encoding, delimiter and names of columns."""

import csv

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}

WIDE = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def header_names(start: bytes) -> list[str]:
    """Return the column names of a CSV by the file's first bytes; empty when they are not text."""
    try:
        text = decoded_start(start)
    except UnicodeDecodeError:
        return []
    line = text.split("\n", 1)[0]
    return [] if "\0" in line else split_header(line, delimiter_of(line))


def decoded_start(start: bytes) -> str:
    """Return the first bytes of a CSV as text, a character that is cut at their end left out."""
    for mark, encoding in WIDE:
        if start.startswith(mark):
            return start[: len(start) // 2 * 2].decode(encoding, "ignore")
    text = start.decode("utf-8-sig", "strict" if len(start) < 4096 else "ignore")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def delimiter_of(line: str) -> str:
    """Return the delimiter that splits a header into most fields; a comma when none does."""
    return max(DELIMITERS, key=lambda delimiter: (line.count(delimiter), delimiter == ","))


def split_header(line: str, delimiter: str) -> list[str]:
    """Return the names of a header line; empty where its quotes are broken."""
    try:
        fields = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
    return [field.strip() for field in fields]
