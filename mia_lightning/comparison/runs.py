"""Runs and files of scores to be compared, matched record by record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable, suggest
from mia_lightning.metrics.ranks import Array
from mia_lightning.records.table_columns import id_column, number_column
from mia_lightning.records.tables import is_number, read_table
from mia_lightning.scores.files import read_scores
from mia_lightning.scores.keys import matched_rows
from mia_lightning.security.open import open_regular

LARGEST = 2**28
"""Bytes of a metrics.json that are read."""

NOT_SCORES = ("_p_value", "_standard_error")
"""Endings of columns of references.csv that are not scores."""


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """Scores of one target on records of known membership."""

    name: str
    ids: NDArray[np.int64] | NDArray[np.str_]
    membership: NDArray[np.int8]
    scores: Mapping[str, Array]
    """Attack to (N,) scores."""

    references: Mapping[str, Array]
    """Scores against reference models, (N,) each; empty without references."""

    notes: tuple[str, ...] = ()
    target: str = ""
    """sha256 (hex) of the target; empty where it is not known."""

    records: str = ""
    """sha256 (hex) of the public records; empty where it is not known."""

    accuracies: tuple[float, float] | None = field(default=None)
    """Accuracy of the target on members and on non-members."""


def read_run(path: str) -> ScoredRun:
    """Read the scores of a run's folder, or a file of scores.

    Raises:
        MIAError: neither, or as `scores.files.read_scores`.
    """
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "scores.csv").exists():
            raise MIAError(f"{path}: has no scores.csv; name the output folder of train.py, or a file of scores")
        file = read_scores(folder / "scores.csv")
    else:
        file = read_scores(folder)
    facts = facts_of(run_metrics(folder / "metrics.json")) if folder.is_dir() else {}
    records = file.records
    references = folder / "references.csv"
    sources = {part.get("part"): part.get("digest") for part in facts.get("sources", ()) if isinstance(part, dict)}
    target = facts.get("target", {})
    accuracies = [target.get(f"accuracy_on_{side}") for side in ("members", "non_members")]
    return ScoredRun(
        name=path,
        ids=records.ids,
        membership=records.membership,
        scores=records.scores,
        references=_reference_scores(references, records.ids) if references.is_file() else {},
        notes=tuple(file.notes),
        target=str(target.get("digest", "")),
        records=str(sources.get("public") or ""),
        accuracies=(float(accuracies[0]), float(accuracies[1])) if _numbers(accuracies) else None,
    )


def matched(before: ScoredRun, after: ScoredRun) -> ScoredRun:
    """Return the second run in the order of the first's records.

    Raises:
        MIAError: the two are of other records, or of other memberships.
    """
    if before.records and after.records and before.records != after.records:
        raise MIAError(f"{after.name} is of other records than {before.name}; compare two targets on the same records")
    rows = matched_rows(after.name, after.ids, before.ids, before.name)
    membership = after.membership[rows]
    if (differ := membership != before.membership).any():
        first = printable(before.ids[int(np.argmax(differ))], 40)
        raise MIAError(
            f"{after.name}: membership differs from {before.name} for {int(differ.sum())} records, first id {first}; "
            "compare two targets on records of one membership"
        )
    return ScoredRun(
        name=after.name,
        ids=before.ids,
        membership=membership,
        scores={name: scores[rows] for name, scores in after.scores.items()},
        references={name: scores[rows] for name, scores in after.references.items()},
        notes=after.notes,
        target=after.target,
        records=after.records,
        accuracies=after.accuracies,
    )


def common_attacks(before: ScoredRun, after: ScoredRun, chosen: tuple[str, ...] | None) -> list[str]:
    """Return the attacks to compare, by default those that both have.

    Raises:
        MIAError: a chosen attack is missing, or they have none in common.
    """
    common = [name for name in before.scores if name in after.scores]
    for name in chosen or ():
        if name not in common:
            raise MIAError(
                f"--attacks: {printable(name, 40)!r} is not an attack of both; {suggest(name, common, see='')}"
            )
    if not common:
        raise MIAError(
            f"{before.name} and {after.name} have no attack in common ({', '.join(before.scores)} and "
            f"{', '.join(after.scores)}); run the same attacks on both"
        )
    return list(chosen) if chosen else common


def _reference_scores(path: Path, ids: NDArray[Any]) -> dict[str, Array]:
    """Return the columns of references.csv in the order of the records."""
    table = read_table(path)
    name = table.find("id")
    if name is None:
        raise MIAError(f"{table.source}: has no column id; run train.py again, or remove the file")
    file_ids = id_column(table, name)
    file_ids, wanted = file_ids.astype(np.str_), ids.astype(np.str_)
    order = np.argsort(file_ids, kind="stable")
    rows = order[np.minimum(np.searchsorted(file_ids, wanted, sorter=order), len(order) - 1)]
    if (file_ids[rows] != wanted).any():
        raise MIAError(f"{table.source}: does not contain the records of scores.csv; run train.py again, or remove it")
    columns = [
        column
        for column in table.names
        if column not in (name, "split") and not column.endswith(NOT_SCORES) and is_number(table.columns[column].type)
    ]
    return {column: number_column(table, column)[rows] for column in columns}


def facts_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a run among its metrics, nothing where there are none."""
    facts = metrics.get("run") or {}
    return facts if isinstance(facts, dict) and isinstance(facts.get("target"), dict) else {}


def run_metrics(path: Path) -> dict[str, Any]:
    """Return the content of a run's metrics.json, nothing where there is none.

    Raises:
        MIAError: it is not one.
    """
    if not path.is_file():
        return {}
    try:
        with open_regular(path) as file:
            content = json.loads(file.read(LARGEST))
        if not isinstance(content, dict):
            raise ValueError("a mapping is expected")
    except (OSError, ValueError, RecursionError) as error:
        raise MIAError(f"{path}: is not the metrics.json of a run; run train.py again, or remove it") from error
    return content


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
