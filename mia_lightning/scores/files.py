"""Files of scores from any tool: id, membership and one or many score columns, as CSV or Parquet.

Columns are recognized by the vocabulary of `records.vocabulary` (the same as for records):

    id, ids, record_id, ...                one per record, unique; row numbers if there is no such column
    membership, member, is_member, ...     1, 0, true, false, member, non-member, ...; empty or -1 = unknown
    label, target, class, y, ...           the record's class (optional)
    group, person, patient, ...            records that depend on each other (optional)
    split                                  public, private, ...: which rows are used can be chosen
    index, fold, file, epoch, prediction   not scores
    everything else                        one attack's scores, higher = more likely a member
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable, suggest
from mia_lightning.metrics.ranks import Array
from mia_lightning.records.column_mapping import Columns, find_columns
from mia_lightning.records.table_columns import (
    Ids,
    group_column,
    id_column,
    label_column,
    membership_column,
    membership_of,
    number_column,
    text_column,
)
from mia_lightning.records.tables import Table, is_number
from mia_lightning.records.vocabulary import UNKNOWN, meaning
from mia_lightning.scores.keys import (
    MEANINGS,
    NOT_SCORES,
    check_classes,
    membership_from_key,
    read_key,
    read_scores_table,
    read_submission,
)
from mia_lightning.scores.scored_records import ScoredRecords

__all__ = ["ScoresFile", "read_key", "read_scores", "read_submission"]

SILENT = ("fold", "file")
"""Meanings that are left out without a note."""

FEWEST = 20
"""Records from which a column of consecutive whole numbers is taken as a numbering of the rows."""


@dataclass(frozen=True, eq=False)
class ScoresFile:
    """Contents of a file of scores."""

    records: ScoredRecords
    columns: Mapping[str, Array]
    """Requested covariates, (N,) each."""

    notes: list[str]
    """Notes for the user: rows and columns left out, how the file was read."""


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
        path: CSV with a header (any common delimiter and encoding) or Parquet.
        key: File of id and membership; the scores' own membership column must not contradict it.
        attacks: The score columns; by default every column without another meaning that is not constant, a numbering of
            the rows or a copy of the ids. What is left out is noted.
        columns: Covariates: numeric columns known without the target.
        split: Use the rows with this value in the column `split`; by default "public" where that occurs, because scores
            of another split are not on the same scale, else all.

    Raises:
        MIAError: the file cannot be read; a column is missing, given twice or of the wrong type; an id is repeated; a
            score is NaN, infinite or text; there are no members or no non-members; the key does not match.
    """
    table = read_scores_table(path)
    meanings = find_columns(table.names, table.source, None, MEANINGS)
    notes = list(table.notes)
    if key is not None and meanings.get("id") is None:
        raise MIAError(f"{table.source}: has no column id, by which --key is matched; name the column of record ids id")
    ids = id_column(table, meanings.get("id"))
    if key is not None:
        membership, membership_notes = membership_column(table, meanings.get("membership"))
        membership = membership_from_key(table.source, ids, membership, read_key(key), Path(key).name)
    else:
        membership, membership_notes = membership_of(table, meanings)
        if meanings.get("membership") is None and (membership == UNKNOWN).all():
            raise MIAError(_without_membership(table, meanings))
    notes += membership_notes
    used = _used_rows(table, meanings, membership, split, notes)
    check_classes(table.source, membership[used])
    covariates = {name: number_column(table, _column(table, name), used) for name in columns}
    if attacks is not None:
        scores = {(name := _column(table, given)): number_column(table, name, used) for given in attacks}
    else:
        scores = _score_columns(table, meanings, {_column(table, name) for name in columns}, ids, used, notes)
    labels, _ = label_column(table, meanings.get("label"))
    groups = group_column(table, meanings.get("group"), ids)
    records = ScoredRecords(
        ids=ids[used],
        membership=membership[used].astype(np.int8),
        scores=scores,
        labels=None if (labels[used] < 0).any() else labels[used],
        source=table.source,
        groups=None if groups is None else groups[used],
    )
    return ScoresFile(records, covariates, notes)


def _without_membership(table: Table, meanings: Columns) -> str:
    """Return the error for a file without membership; a label of 0 and 1 may be meant as one."""
    label = meanings.get("label")
    if label is not None and {*text_column(table, label)} <= {"0", "1", "0.0", "1.0", "True", "False", "true", "false"}:
        return (
            f"{table.source}: has no column membership, and {printable(label, 40)} is read as the record's class; if "
            "its 1 and 0 mean member and non-member, rename it to membership"
        )
    return f"{table.source}: has no column membership; add one of 1 and 0, or name a file of id and membership by --key"


def _column(table: Table, name: str) -> str:
    """Return a column's name as written in the file."""
    written = table.find(name)
    if written is None:
        raise MIAError(f"{table.source}: has no column {printable(name, 40)!r}; {suggest(name, table.names)}")
    return written


def _used_rows(
    table: Table, meanings: Columns, membership: NDArray[np.int8], split: str | None, notes: list[str]
) -> NDArray[np.intp]:
    """Return the rows of known membership in the chosen split, and note how many are left out."""
    use = membership != UNKNOWN
    if unknown := int((~use).sum()):
        notes.append(f"{table.source}: {unknown:,} of {len(use):,} records have no known membership; left out")
    name = meanings.get("split")
    if name is None:
        if split is not None:
            raise MIAError(f"{table.source}: has no column split; leave --split out")
        return np.flatnonzero(use)
    values = np.array(text_column(table, name), dtype=np.str_)
    splits = {str(value) for value in np.unique(values[use])}
    if split is not None and split not in splits:
        raise MIAError(f"{table.source}: no record of known membership is of split {split!r}; {suggest(split, splits)}")
    if split is None and len(splits) > 1 and "public" in splits:
        split = "public"
    if split is not None:
        in_split = values == split
        if left_out := int((use & ~in_split).sum()):
            notes.append(
                f"{table.source}: {left_out:,} records of known membership in other splits than {split}; left out"
            )
        use = use & in_split
    return np.flatnonzero(use)


def _score_columns(
    table: Table, meanings: Columns, covariates: set[str], ids: Ids, used: NDArray[np.intp], notes: list[str]
) -> dict[str, Array]:
    """Return the score columns, and note every column that is not taken as one."""
    special = {*covariates, *meanings.by_meaning.values()}
    left_out: dict[str, str] = {}
    scores: dict[str, Array] = {}
    constant: dict[str, Array] = {}
    for name in table.names:
        if name in special:
            continue
        if (means := meaning(name, NOT_SCORES)) is not None:
            if means not in SILENT:
                left_out[name] = f"its name means {means.replace('_', ' ')}"
        elif _is_text(table, name):
            left_out[name] = "text"
        else:
            values = number_column(table, name, used)
            if len(used) > 1 and (values == values[0]).all():
                constant[name] = values
            elif _numbers_rows(values, ids[used]):
                left_out[name] = "it numbers the records"
            else:
                scores[name] = values
    _leave_out_copies(table, scores, left_out)
    if scores:
        left_out |= dict.fromkeys(constant, "constant")
    scores = scores or constant
    if left_out:
        listed = ", ".join(
            f"{printable(name, 40) or 'a column without name'} ({why})" for name, why in left_out.items()
        )
        notes.append(f"{table.source}: not taken as attacks: {printable(listed, 600)}; name the attacks by --attacks")
    if not scores:
        raise MIAError(f"{table.source}: has no score column; add at least one, or name it by --attacks")
    return scores


def _leave_out_copies(table: Table, scores: dict[str, Array], left_out: dict[str, str]) -> None:
    """Move out the columns score and probability where they repeat the attack that was submitted."""
    lower = {name.lower(): name for name in scores}
    if table.find("fold") and {"score", "probability"} <= lower.keys() and len(scores) > 2:  # our own scores.csv
        for name in ("score", "probability"):
            left_out[lower[name]] = "it repeats the submitted attack"
            del scores[lower[name]]
    elif (score := lower.get("score")) is not None:
        copy = next((name for name in scores if name != score and np.array_equal(scores[name], scores[score])), None)
        if copy is not None:
            left_out[score] = f"it repeats {printable(copy, 40)}"
            del scores[score]


def _is_text(table: Table, name: str) -> bool:
    """Whether no value of a column is a number (a column that mixes both is a mistake that `number_column` names)."""
    if is_number(table.columns[name].type):
        return False
    return not any(_is_numeric(text) for text in text_column(table, name))


def _is_numeric(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _numbers_rows(values: Array, ids: Ids) -> bool:
    """Whether a column repeats whole-number ids or counts the records up or down in the order of the file."""
    if len(values) < FEWEST:
        return False
    if ids.dtype.kind == "i" and np.array_equal(values, ids):
        return True
    steps = np.diff(values)
    return bool((values == np.round(values)).all() and (steps == steps[0]).all() and abs(steps[0]) == 1)
