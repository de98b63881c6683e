"""Files of arrays: .npy, .npz, keep matrices in CSV or JSON, and tables with one row per record."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.vocabulary import membership_code
from mia_lightning.references.exchange.conversion import FORMS
from mia_lightning.references.exchange.long_tables import long_arrays, long_columns
from mia_lightning.references.exchange.pool import role_of
from mia_lightning.security.open import open_regular

KEEP_FILES = ("keep", "keep_matrix", "keep_indices", "memberships", "membership_matrix", "splits", "indices")
"""Names of a keep matrix at the top of a folder."""

LARGEST_TEXT = 2**30
"""Bytes of a keep matrix in CSV or JSON."""


def read_array(path: Path, source: str) -> NDArray[Any]:
    """Read one .npy; nothing is unpickled.

    Raises:
        MIAError: it is missing, damaged or holds objects.
    """
    try:
        with open_regular(path) as file:
            return np.asarray(np.load(file, allow_pickle=False))
    except OSError as error:
        raise MIAError(f"{source}: {path.name} cannot be read ({error.strerror or error})") from error
    except MIAError:
        raise
    except Exception as error:  # damaged headers raise many things
        raise MIAError(f"{source}: {path.name} is not an array of plain numbers ({_first(error)})") from error


def read_npz(path: Path, source: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz that have a role; nothing is unpickled.

    Raises:
        MIAError: it is missing, damaged or holds objects.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as stored:
            names = {role: name for name in reversed(stored.files) if (role := role_of(name)) is not None}
            return {role: stored[name] for role, name in names.items()}
    except OSError as error:
        raise MIAError(f"{source}: cannot be read ({error.strerror or error})") from error
    except MIAError:
        raise
    except Exception as error:  # damaged headers and streams raise many things
        raise MIAError(f"{source}: is not an .npz of plain numbers ({_first(error)})") from error


def read_columns(path: Path, source: str) -> dict[str, NDArray[Any]]:
    """Read a table with one row per record: phi_0, phi_1, ... and keep_0, keep_1, ..., or lists in phi and keep.

    A table with a column of models has one row per model and record, see `long_arrays`.

    A cell of phi_0 (or logits_0, probabilities_0) may be a list over views or classes. Columns target (or target_0, ...
    over views), membership, label and id are read as in an .npz.

    Raises:
        MIAError: it cannot be read, or a column holds lists of different lengths.
    """
    columns_by_name = _table(path, source)
    if (long := long_columns(columns_by_name)) is not None:
        roles = {"model": "ids", "view": "ids", "keep": "membership"}
        columns_by_meaning = {
            meaning: _column(columns_by_name[name], source, name, roles.get(meaning, meaning))
            for meaning, name in long.items()
        }
        return long_arrays(columns_by_meaning, source)
    numbered: dict[str, dict[int, NDArray[Any]]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, column in columns_by_name.items():
        match = re.fullmatch(r"(.*?)_?(\d+)", name)
        role = role_of(name)
        if role is None and match is not None and (role := role_of(match[1])) is not None:
            numbered.setdefault(role, {})[int(match[2])] = _column(column, source, name, role)
        elif role is not None and role not in arrays:
            arrays[role] = _column(column, source, name, role)
    for role, columns in numbered.items():
        if len({column.shape for column in columns.values()}) > 1:
            raise MIAError(f"{source}: the columns {role}_0, {role}_1, ... hold lists of different lengths")
        if role in FORMS and role in arrays and "target" not in arrays:  # phi next to phi_0, phi_1, ...
            arrays["target"] = arrays.pop(role)
        if role not in arrays:
            arrays[role] = np.stack([columns[number] for number in sorted(columns)], axis=1)
    for role in ("phi", "logits", "probabilities", "losses", "keep", "drawn"):  # records come first in a table
        if role in arrays and arrays[role].ndim >= 2:
            arrays[role] = arrays[role].swapaxes(0, 1)
    return arrays


def _table(path: Path, source: str) -> Mapping[str, Any]:
    """Return the columns of a CSV, or of a Parquet file, which may hold lists."""
    from mia_lightning.records.tables import read_table

    try:
        with open_regular(path) as file:
            if file.read(4) != b"PAR1":
                return read_table(path).columns
            import pyarrow.parquet as pq

            file.seek(0)
            table = pq.read_table(file)
            return {name: table.column(name) for name in table.column_names}
    except OSError as error:
        raise MIAError(f"{source}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # what pyarrow raises for a damaged file
        raise MIAError(f"{source}: is not a Parquet file ({_first(error)})") from error


def has_keep_columns(path: Path) -> bool:
    """Whether a table has the training records of models: keep, or keep_0, or membership in rows of several models."""
    from mia_lightning.records.csv_header import header_names

    try:
        with open_regular(path) as file:
            if file.read(4) == b"PAR1":
                import pyarrow.parquet as pq

                names = pq.read_schema(path).names
            else:
                file.seek(0)
                names = header_names(file.read(2**20))
    except (OSError, ValueError):
        return False
    if any(role_of(re.sub(r"_?0$", "", name)) == "keep" and "member" not in name for name in names):
        return True
    if not {"ids", "keep"} <= {*(long_columns(names) or ())}:
        return False
    columns = _table(path, path.name)  # a file of scores may have a column of models too, with a single one
    return len(set(columns[(long_columns(columns) or {})["model"]].to_pylist())) > 1


def _column(column: Any, source: str, name: str, role: str) -> NDArray[Any]:
    values = column.to_pylist()
    if role == "ids":
        return np.array(values)
    if role == "membership":
        codes = [membership_code("" if value is None else str(value)) for value in values]
        if None in codes:
            raise MIAError(f"{source}: membership {printable(values[codes.index(None)], 40)!r} is not understood")
        return np.array(codes, np.int8)
    try:
        return np.array([json.loads(v) if isinstance(v, str) and v[:1] == "[" else v for v in values], np.float64)
    except (ValueError, TypeError) as error:
        raise MIAError(
            f"{source}: column {printable(name, 40)} holds text, gaps or lists of different lengths; expected numbers"
        ) from error


def read_keep(folder: Path, source: str) -> NDArray[Any] | list[list[int]]:
    """Read the keep matrix at the top of a folder: 0/1 as .npy or CSV, or lists of record indices as .npy or JSON.

    Raises:
        MIAError: there is none, or it cannot be read.
    """
    for path in (folder / f"{stem}{ending}" for stem in KEEP_FILES for ending in (".npy", ".csv", ".json")):
        if not path.is_file():
            continue
        if path.suffix == ".npy":
            return read_array(path, source)
        return _read_text(path, source)
    raise MIAError(
        f"{source}: has no keep matrix; add keep.npy or keep.csv (models x records, 1 = trained on the record), or "
        "keep.json with the list of record indices of each model"
    )


def _read_text(path: Path, source: str) -> NDArray[Any] | list[list[int]]:
    with open_regular(path) as file:
        text = file.read(LARGEST_TEXT).decode("utf-8-sig", errors="replace")
    try:
        if path.suffix == ".csv":
            lines = [line.replace(";", ",") for line in text.splitlines() if line.strip()]
            header = any(not re.fullmatch(r"[\s\d.,+-]*", line) for line in lines[:1])
            return np.array([[float(cell) for cell in line.split(",")] for line in lines[header:]])
        content = json.loads(text)
        rows = list(content.values()) if isinstance(content, dict) else content
        return [[int(index) for index in row] for row in rows]
    except (ValueError, TypeError) as error:
        raise MIAError(f"{source}: {path.name} cannot be read as a keep matrix ({_first(error)})") from error


def keep_rows(keep: NDArray[Any] | list[list[int]], models: int, records: int, source: str) -> NDArray[np.bool_]:
    """Return a keep matrix (K, N) of 0/1 in either orientation, or of record indices per model.

    Raises:
        MIAError: numbers of models or records that do not fit, or an index beyond the records.
    """
    matrix = np.asarray(keep) if not isinstance(keep, list) else None
    if matrix is not None and np.isin(matrix, (0, 1)).all():
        matrix = matrix[None] if matrix.ndim == 1 else matrix
        matrix = matrix.T if matrix.shape == (records, models) and records != models else matrix
        if matrix.shape != (models, records):
            raise MIAError(f"{source}: the keep matrix is {matrix.shape}; expected ({models}, {records})")
        return matrix.astype(bool)
    rows = list(keep)
    if len(rows) != models:
        raise MIAError(f"{source}: the keep matrix has {len(rows)} rows of record indices; expected {models} models")
    result = np.zeros((models, records), bool)
    for k, row in enumerate(rows):
        index = np.asarray(row).astype(np.int64)
        if index.size and not 0 <= index.min() <= index.max() < records:
            raise MIAError(f"{source}: the keep matrix names record {index.max()}, but there are {records} records")
        result[k, index] = True
    return result


def _first(error: Exception) -> str:
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)
