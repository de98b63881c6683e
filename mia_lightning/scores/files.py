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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, suggest
from mia_lightning.scores._columns import UNKNOWN, Array, Ids, _ids, _labels, _membership, _numbers
from mia_lightning.scores._tables import ID, IGNORED, LABEL, MEMBER, SPLIT, _read_table, _Table
from mia_lightning.scores.scored_records import ScoredRecords


@dataclass(frozen=True, eq=False)
class ScoresFile:
    """What a file of scores holds, as far as it is used."""

    records: ScoredRecords
    columns: Mapping[str, Array]
    """Further columns asked for, (N,) each."""

    notes: list[str]
    """What the user has to know: rows and columns left out."""


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
