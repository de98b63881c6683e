"""The machine-readable files of an assessment.

`metrics.json`, one object:

    source            the file's name
    records           members, non_members: counts
    attacks           by name: the figures of `metrics.Evaluation` (auc, partial_auc with their 95% intervals; points:
                      one object per false-positive rate with tpr, its interval, the threshold, its own FPR interval,
                      whether the records resolve the rate, and precision at shares of members of 1, 10 and 50%;
                      distinct scores, largest_tie), and claimed: number of claimed records by false-discovery rate,
                      each with how many of them are members
    differences       list of `assessment.Difference`
    agreement         null, or alpha, names, jaccard (matrix in the order of names), only (members an attack finds
                      alone: their ids)
    bounds            list of `assessment.Bound`; epsilon is null where refusal says why
    guards            list of `assessment.Guard`
    notes             what was left out of the file
    seed, versions    of this tool and the libraries that compute

`claims.csv`, one row per record: id, membership, then for each attack its score, p-value, class-conditional p-value
(where there are labels) and q-value. A text that a spreadsheet would take for a formula starts with an apostrophe.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from mia_lightning.assessment import Assessment
from mia_lightning.atomic import replacing
from mia_lightning.errors import MIAError
from mia_lightning.spreadsheets import formula_safe

LIBRARIES = ("numpy", "scipy", "lightgbm")


def claim_folder(path: str) -> Path:
    """Create the folder of an evaluation, or take an empty one or an earlier evaluation's.

    Raises:
        MIAError: it holds something else, or cannot be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise MIAError(f"cannot use the output folder {path}: {error.strerror}; name another --output") from error
    if found and ("claims.csv" not in found or "config.yaml" in found):
        raise MIAError(f"{path} holds other files ({min(found)}, …); name an empty or new --output")
    return folder


def write_assessment(assessment: Assessment, folder: Path, *, notes: Sequence[str] = ()) -> list[str]:
    """Write metrics.json and claims.csv, each atomically; return their names.

    Raises:
        MIAError: the disk is full or the folder cannot be written.
    """
    with replacing(folder, "metrics.json") as file:
        json.dump(assessment_metrics(assessment, notes=notes), file, indent=2, allow_nan=False)
    with replacing(folder, "claims.csv") as file:
        write_claims(file, assessment)
    return ["metrics.json", "claims.csv"]


def assessment_metrics(assessment: Assessment, *, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return what metrics.json holds: plain values only, every number finite."""
    records, agreement = assessment.records, assessment.agreement
    member = records.membership
    return {
        "source": records.source,
        "records": {"members": int((member == 1).sum()), "non_members": int((member == 0).sum())},
        "attacks": {
            name: found.to_dict()
            | {
                "claimed": {
                    f"{level:g}": {"records": len(rows), "members": int((member[rows] == 1).sum())}
                    for level, rows in assessment.claims[name].claimed.items()
                }
            }
            for name, found in assessment.attacks.items()
        },
        "differences": [asdict(difference) for difference in assessment.differences],
        "agreement": None
        if agreement is None
        else {
            "alpha": agreement.alpha,
            "names": list(agreement.names),
            "jaccard": agreement.jaccard.tolist(),
            "only": {name: records.ids[rows].tolist() for name, rows in agreement.only.items()},
        },
        "bounds": [asdict(bound) for bound in assessment.bounds],
        "guards": [asdict(guard) for guard in assessment.guards],
        "notes": list(notes),
        "seed": assessment.seed,
        "versions": {name: version(name) for name in ("mia-lightning", *LIBRARIES)},
    }


def write_claims(file: IO[str], assessment: Assessment) -> None:
    """Write one row per record, in the order of the records."""
    header, columns = ["id", "membership"], [assessment.records.ids.tolist(), assessment.records.membership.tolist()]
    for name, claims in assessment.claims.items():
        parts = {
            "score": assessment.records.scores[name],
            "p": claims.p_value,
            "p in class": claims.p_value_in_class,
            "q": claims.q_value,
        }
        for part, values in parts.items():
            if values is not None:
                header.append(f"{name} {part}")
                columns.append(values.tolist())
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([formula_safe(cell) for cell in header])
    columns[0] = [formula_safe(cell) for cell in columns[0]]
    writer.writerows(_rows(columns))


def _rows(columns: Iterable[list[Any]]) -> Iterable[tuple[Any, ...]]:
    return zip(*columns, strict=True)
