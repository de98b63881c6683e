"""The files of an assessment: report.html, audit_card.md, metrics.json and records.csv.

`metrics.json` is described by `report/metrics.schema.json` (JSON Schema), the same for a run and for a file of scores;
facts of a run are under `run`, which is null otherwise.

`records.csv`, one row per record: id, membership, then for each attack A its columns A_score, A_p_value,
A_class_p_value (where there are labels) and A_q_value. A text that a spreadsheet would take for a formula starts with
an apostrophe. `private_records.csv`, from a run with private records: id, then A_p_value and A_q_value against the
public non-members.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.access_ladder import AccessLadder
from mia_lightning.evaluation.assessment import Assessment, Claims
from mia_lightning.evaluation.fraction import Fraction
from mia_lightning.policy.files import write_decision
from mia_lightning.report.contents import Report, RunFacts
from mia_lightning.report.figures import Drawn
from mia_lightning.report.page import card, html
from mia_lightning.report.verdict import verdict
from mia_lightning.runtime.atomic import atomic_write
from mia_lightning.runtime.output_folder import OutputFolder, remove
from mia_lightning.security.csv_formulas import write_records

if TYPE_CHECKING:
    from mia_lightning.targets.readings import ReadingCheck

LIBRARIES = ("numpy", "scipy", "lightgbm")


@contextmanager
def claimed_folder(path: str, *, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """Reserve the folder of an evaluation, which is new, empty, or of an earlier evaluation, for this process.

    Args:
        path: The folder.
        replaceable: Names of the files of an earlier result, which are removed first where nothing else is there.

    Raises:
        MIAError: it holds something else, cannot be written, or another process is writing it. A folder that is new is
            removed again where the block fails.
    """
    folder = OutputFolder(path)
    foreign = [name for name in folder.names if name not in replaceable]
    is_evaluation = "config.yaml" not in folder.names and {"records.csv", "leaderboard.csv"} & set(folder.names)
    if foreign and not is_evaluation:
        has_run = "config.yaml" in folder.names and not replaceable
        overwrite = ", or --overwrite to replace an earlier run" if has_run else ""
        raise MIAError(f"{folder.other_files(foreign[0])}{overwrite}")
    if foreign or not replaceable:
        folder.check_kinds()
    with folder.acquired():
        for name in folder.names if not foreign else ():
            remove(folder.path / name)
        yield folder.path


def write_report(report: Report, folder: Path, drawn: Iterable[Drawn]) -> list[str]:
    """Write the files, each atomically; return their names.

    Args:
        report: Their content.
        folder: An existing folder.
        drawn: From `report.figures.draw`.

    Raises:
        MIAError: the disk is full or the folder cannot be written.
    """
    with atomic_write(folder, "records.csv") as file:  # first: it marks the folder as an evaluation's
        write_claims(file, report.assessment)
    texts = {
        "report.html": html(report, drawn),
        "audit_card.md": card(report),
        "metrics.json": json.dumps(metrics(report), indent=2, allow_nan=False),
    }
    for name, text in texts.items():
        with atomic_write(folder, name) as file:
            file.write(text)
    written = [*texts, "records.csv"]
    if report.decision is not None:
        written += write_decision(report.decision, folder)
    if report.run is None or report.run.private_ids is None or not report.run.private_claims:
        return written
    with atomic_write(folder, "private_records.csv") as file:
        write_private_claims(file, report.run.private_ids, report.run.private_claims)
    return [*written, "private_records.csv"]


def metrics(report: Report) -> dict[str, Any]:
    """Return the content of metrics.json: plain values only, every number finite, no path of this machine."""
    assessment, conclusion = report.assessment, verdict(report)
    member = assessment.records.membership
    return {
        "source": assessment.records.source,
        "headline": report.headline,
        "verdict": {"level": conclusion.level, "heading": conclusion.heading, "sentences": list(conclusion.sentences)},
        "records": {"members": int((member == 1).sum()), "non_members": int((member == 0).sum())},
        "attacks": {name: _attack(assessment, name) for name in assessment.attacks},
        "class_fpr": assessment.class_fpr,
        "differences": [asdict(difference) for difference in assessment.differences],
        "increments": [asdict(difference) for difference in assessment.increments],
        "agreement": _agreement(assessment),
        "bounds": [asdict(bound) for bound in assessment.bounds],
        "sanity_checks": [asdict(check) for check in assessment.checks],
        "notes": [*report.notes, *assessment.notes],
        "turned": {name: evaluation.to_dict() for name, evaluation in assessment.turned.items()},
        "filing": {name: value for name, value in asdict(report.filing).items() if name != "previous"},
        "previous": None if report.previous is None else asdict(report.previous),
        "seed": assessment.seed,
        "versions": dict(report.versions),
        "fraction": None if assessment.fraction is None else _fraction(assessment, assessment.fraction),
        "decision": None if report.decision is None else report.decision.to_dict(),
        "run": None if report.run is None else _run(report.run),
    }


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of this tool and of the libraries that every assessment and those that the caller uses."""
    return {name: version(name) for name in dict.fromkeys(("mia-lightning", *LIBRARIES, *libraries))}


def _attack(assessment: Assessment, name: str) -> dict[str, Any]:
    member, claims = assessment.records.membership, assessment.claims[name]
    return assessment.attacks[name].to_dict() | {
        "claimed": {
            f"{level:g}": {"records": len(rows), "members": int((member[rows] == 1).sum())}
            for level, rows in claims.claimed.items()
        },
        "classes": [asdict(row) for row in assessment.classes.get(name, ())],
    }


def _fraction(assessment: Assessment, fraction: Fraction) -> dict[str, Any]:
    points = [point for point in assessment.attacks[fraction.attack].points if point.resolvable]
    shares = [(point.fpr, *fraction.precision(point)) for point in points]
    return asdict(fraction) | {"precision": [{"fpr": fpr, "value": value, "low": low} for fpr, value, low in shares]}


def _agreement(assessment: Assessment) -> dict[str, Any] | None:
    agreement = assessment.agreement
    if agreement is None:
        return None
    return {
        "alpha": agreement.alpha,
        "names": list(agreement.names),
        "jaccard": agreement.jaccard.tolist(),
        "only": {name: assessment.records.ids[rows].tolist() for name, rows in agreement.only.items()},
    }


def _run(run: RunFacts) -> dict[str, Any]:
    return {
        "target": dict(run.target),
        "sources": [asdict(item) for item in run.sources],
        "threat": list(run.threat),
        "references": [asdict(item) for item in run.references],
        "learning_curve": {name: [asdict(item) for item in curve] for name, curve in run.learning_curve.items()},
        "by_probability": {name: evaluation.to_dict() for name, evaluation in run.by_probability.items()},
        "held_out": {name: evaluation.to_dict() for name, evaluation in run.held_out.items()},
        "private": {name: evaluation.to_dict() for name, evaluation in run.private.items()},
        "fit_seconds": dict(run.fit_seconds),
        "explanation": {
            "columns": {name: evaluation.to_dict() for name, evaluation in run.explanation.columns.items()},
            "importance": {name: dict(values) for name, values in run.explanation.importance.items()},
            "reliability": {
                name: [asdict(part) for part in bins] for name, bins in run.explanation.reliability.items()
            },
        },
        "methods": [asdict(item) for item in run.methods],
        "not_run": [{"name": name, "sentence": sentence, "reason": reason} for name, sentence, reason in run.not_run],
        "folds": run.folds,
        "seed": run.seed,
        "stages": [asdict(item) for item in run.stages],
        "configuration": run.configuration,
        "reading": _check(run.reading),
        "fidelity": [asdict(check) for check in run.fidelity],
        "private_claimed": {
            name: {f"{level:g}": len(rows) for level, rows in claims.claimed.items()}
            for name, claims in run.private_claims.items()
        },
        "ladder": None if run.ladder is None else _ladder(run.ladder),
        "searched": None if run.searched is None else asdict(run.searched),
    }


def _ladder(ladder: AccessLadder) -> dict[str, Any]:
    return {
        "reason": ladder.reason,
        "notes": list(ladder.notes),
        "rungs": [
            {
                "name": rung.name,
                "access": rung.access,
                "queries": rung.queries,
                "records": rung.records,
                "models": rung.models,
                "seconds": rung.seconds,
                "attack": rung.attack,
                "evaluation": rung.evaluation.to_dict(),
                "gain": [asdict(gain) for gain in rung.gain],
            }
            for rung in ladder.rungs
        ],
    }


def _check(check: ReadingCheck | None) -> dict[str, str] | None:
    return None if check is None else {"status": check.status, "sentence": check.sentence}


def write_claims(file: IO[str], assessment: Assessment) -> None:
    """Write one row per record, in the order of the records."""
    columns: dict[str, NDArray[Any]] = {"membership": assessment.records.membership}
    for name, claims in assessment.claims.items():
        parts = {
            "score": assessment.records.scores[name],
            "p_value": claims.p_value,
            "class_p_value": claims.p_value_in_class,
            "q_value": claims.q_value,
        }
        columns |= {f"{name}_{part}": values for part, values in parts.items() if values is not None}
    write_records(file, assessment.records.ids, columns)


def write_private_claims(
    file: IO[str], ids: NDArray[np.int64] | NDArray[np.str_], claims: Mapping[str, Claims]
) -> None:
    """Write one row per private record: id, then p-value and q-value of each attack against the public non-members."""
    columns: dict[str, NDArray[Any]] = {}
    for name, values in claims.items():
        columns |= {f"{name}_p_value": values.p_value, f"{name}_q_value": values.q_value}
    write_records(file, ids, columns)
