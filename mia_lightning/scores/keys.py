"""Hidden keys and submissions: files of id and membership, and of id and score, matched by id."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, listed, printable
from mia_lightning.metrics.ranks import Array
from mia_lightning.records.column_mapping import find_columns
from mia_lightning.records.table_columns import Ids, id_column, membership_of, number_column
from mia_lightning.records.tables import Table, read_table
from mia_lightning.records.vocabulary import UNKNOWN, meaning
from mia_lightning.security.open import open_regular

MEANINGS = ("id", "membership", "label", "group", "split")
"""Meanings of columns that are used as such."""

NOT_SCORES = ("index", "fold", "file", "epoch", "prediction", "class_name", "label", "membership", "id", "split")
"""Meanings of columns that are never taken as scores by default."""


def read_scores_table(path: str | Path) -> Table:
    """Return a table: CSV, Parquet, or the arrays of an .npz with one value per record.

    Raises:
        MIAError: it cannot be read, or the arrays of an .npz differ in length.
    """
    source = Path(path).name
    try:
        with open_regular(path) as file:
            is_zip = file.read(4) == b"PK\x03\x04"
    except OSError:
        is_zip = False  # `read_table` names the error
    if not is_zip:
        return read_table(path)
    import pyarrow as pa

    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: np.squeeze(stored[name]) for name in stored.files}
    except OSError as error:
        raise MIAError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MIAError:
        raise
    except Exception as error:  # damaged headers and streams raise many things
        raise MIAError(f"{source}: is not an .npz of plain numbers ({type(error).__name__})") from error
    columns = {name: values for name, values in arrays.items() if values.ndim == 1}
    if not columns or len({len(values) for values in columns.values()}) > 1:
        shapes = ", ".join(f"{printable(name, 40)} {values.shape}" for name, values in list(arrays.items())[:8])
        raise MIAError(f"{source}: expected arrays of one value per record, found {shapes or 'none'}")
    return Table({name: pa.chunked_array([pa.array(values)]) for name, values in columns.items()}, source, 1)


def read_key(path: str | Path) -> tuple[Ids, NDArray[np.int8]]:
    """Return ids (N,) and membership (N,) of 1 and 0 of a hidden key.

    Raises:
        MIAError: as `read_scores`, or a membership is unknown.
    """
    table = read_scores_table(path)
    meanings = find_columns(table.names, table.source, None, MEANINGS)
    for required in ("id", "membership"):
        if meanings.get(required) is None and (required == "id" or meanings.get("split") is None):
            raise MIAError(f"{table.source}: has no column {required}; a key has the columns id and membership")
    ids, (membership, _) = id_column(table, meanings.get("id")), membership_of(table, meanings)
    if (membership == UNKNOWN).any():
        row = int(np.argmax(membership == UNKNOWN))
        raise MIAError(f"{table.where(row)}: membership is unknown; a key has 1 or 0 for every record")
    check_classes(table.source, membership)
    return ids, membership


def read_submission(path: str | Path, key: tuple[Ids, NDArray[np.int8]], key_name: str) -> Array:
    """Return the scores of a file `ids,score` in the order of the key, (N,).

    Raises:
        MIAError: as `read_scores`; an id is missing from the file or from the key.
    """
    table = read_scores_table(path)
    meanings = find_columns(table.names, table.source, None, MEANINGS)
    if meanings.get("id") is None:
        raise MIAError(f"{table.source}: has no column id; a submission has the columns ids and score")
    ids = id_column(table, meanings.get("id"))
    candidates = [name for name in table.names if meaning(name, NOT_SCORES) is None]
    name = table.find("score") or (candidates[0] if len(candidates) == 1 else None)
    if name is None:
        names = listed(table.names, 8)
        raise MIAError(f"{table.source}: has no column score, its columns are {names}; a submission has ids and score")
    rows = matched_rows(table.source, ids, key[0], key_name)
    return number_column(table, name)[rows]


def membership_from_key(
    source: str, ids: Ids, given: NDArray[np.int8], key: tuple[Ids, NDArray[np.int8]], key_name: str
) -> NDArray[np.int8]:
    """Return the key's membership in the order of the scores."""
    membership: NDArray[np.int8] = key[1][matched_rows(key_name, key[0], ids, source)]
    if (wrong := (given != UNKNOWN) & (given != membership)).any():
        raise MIAError(
            f"{key_name}: does not match {source}: membership differs for {int(wrong.sum())} records, first id "
            f"{printable(ids[int(np.argmax(wrong))], 40)}; name the key of these records"
        )
    return membership


def matched_rows(source: str, ids: Ids, wanted: Ids, wanted_name: str) -> NDArray[np.intp]:
    """Return the row in `ids` of each wanted id; both hold the same ids, each once."""
    if ids.dtype.kind != wanted.dtype.kind:  # 7 in one file, "7a" somewhere in the other
        ids, wanted = ids.astype(np.str_), wanted.astype(np.str_)
    order = np.argsort(ids, kind="stable")
    rows = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    absent = ids[rows] != wanted
    extra = len(ids) - int((~absent).sum())
    if absent.any():
        first = printable(wanted[int(np.argmax(absent))], 40)
        raise MIAError(
            f"{source}: {int(absent.sum())} ids of {wanted_name} are missing, first {first}"
            f"{f', and {extra} are only in {source}' if extra else ''}; both files must hold the same records"
        )
    if extra:
        unknown = ids[~np.isin(ids, wanted)][0]
        raise MIAError(
            f"{source}: {extra} ids are not in {wanted_name}, first {printable(unknown, 40)}; both files must hold the "
            "same records"
        )
    return rows


def check_classes(source: str, membership: NDArray[np.integer[Any]]) -> None:
    """Raise MIAError where there are no members or no non-members."""
    members, non_members = int((membership == 1).sum()), int((membership == 0).sum())
    if not members or not non_members:
        raise MIAError(f"{source}: holds {members} members and {non_members} non-members; figures need both")
