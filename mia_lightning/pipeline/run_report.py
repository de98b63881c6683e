"""What a run's report says beyond its scores: the target, the records, the attacker, time and hardware."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from mia_lightning.config.files import strip_paths
from mia_lightning.config.schema import RunConfig
from mia_lightning.evaluation.assess import assess
from mia_lightning.evaluation.assessment import Assessment, CurvePoint, SanityCheck
from mia_lightning.evaluation.config import FPRS
from mia_lightning.evaluation.learning_curve import learning_curve
from mia_lightning.evaluation.permutation import refitted_permutation_test
from mia_lightning.evaluation.reference_columns import reference_columns
from mia_lightning.evaluation.sanity_checks import generalization_gap
from mia_lightning.pipeline.results import AuditResult, LoadedInputs
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.report.contents import Reference, Report, RunFacts, Source, Stage
from mia_lightning.report.files import versions
from mia_lightning.runtime.store import array_digest, key_of
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD
from mia_lightning.scores.scored_records import ScoredRecords

LIBRARIES = ("torch", "lightning", "scikit-learn", "torchvision", "matplotlib")


def assess_result(result: AuditResult, prepared: LoadedInputs) -> Assessment:
    """Assess the out-of-fold scores of all attacks as `mia_lightning.evaluate` does, with the guards that a run can do.

    Args:
        result: From `attack_target`.
        prepared: What it was made from.
    """
    known = np.flatnonzero(result.public.fold != NOT_IN_ANY_FOLD)
    public, config = prepared.public, result.config
    labels = None if (public.labels == UNKNOWN).any() else public.labels[known]
    records = ScoredRecords(
        ids=public.ids[known],
        membership=result.public.membership[known],
        scores={name: attack.public_scores[known] for name, attack in result.attacks.items()},
        labels=labels,
        source=public.source,
        groups=None if public.groups is None else public.groups[known],
        stability={name: attack.stability for name, attack in result.attacks.items()},
    )
    refitted = refitted_permutation_test(config.attacks, result.table.rows(known), records.membership, seed=config.seed)
    audited_rows, audited = _audited_columns(result, known)
    return assess(
        records,
        fprs=sorted({*FPRS, *config.evaluation.fprs}),
        seed=config.seed,
        folds=config.evaluation.folds,
        pixels=public.images if len(known) == len(public) else public.images[known],  # an index would copy them
        audited=audited,
        audited_rows=audited_rows,
        checks=(refitted,) if labels is None else (refitted, _gap(result)),
    )


def _audited_columns(
    result: AuditResult, known: NDArray[np.integer]
) -> tuple[NDArray[np.integer] | None, dict[str, NDArray[np.float64]]]:
    """Return the columns of references for the column audit, and the places in `known` that they are about."""
    if result.reference_outputs is None:
        return None, {}
    scores = result.config.references.scores or {}
    rows, columns = reference_columns(scores, result.reference_outputs, known, seed=result.config.seed)
    return np.searchsorted(known, rows), columns


def report_of(result: AuditResult, prepared: LoadedInputs, assessment: Assessment, seconds: float) -> Report:
    """Return the report of a run.

    Args:
        result: From `attack_target`.
        prepared: What it was made from.
        assessment: From `assess_result`.
        seconds: That the assessment took.
    """
    known = np.flatnonzero(result.public.fold != NOT_IN_ANY_FOLD)
    images = prepared.public.images
    submission = result.config.submission.attack
    return Report(
        assessment=assessment,
        headline=result.config.submitted,
        headline_reason="named for submission beforehand" if submission else "the last one configured, as submitted",
        versions=versions(*LIBRARIES, *(("ray",) if result.references and result.config.references.workers else ())),
        notes=tuple(result.notes),
        run=_facts(result, prepared, seconds),
        pixels=images if len(known) == len(images) else images[known],
    )


def _facts(result: AuditResult, prepared: LoadedInputs, seconds: float) -> RunFacts:
    config = result.config
    halves = (("public", prepared.public), ("private", prepared.private))
    return RunFacts(
        target={name: value if isinstance(value, int | float) else str(value) for name, value in result.target.items()},
        sources=tuple(_source(part, half) for part, half in halves if half is not None),
        threat=_threat(result),
        references=tuple(
            Reference(row.number, row.status, row.accuracy_in, row.accuracy_out, row.seconds, row.reason)
            for row in result.references
        ),
        learning_curve=_curve(result),
        by_probability={name: attack.public_calibrated for name, attack in result.attacks.items()},
        held_out={name: attack.held_out for name, attack in result.attacks.items() if attack.held_out is not None},
        private={name: attack.private for name, attack in result.attacks.items() if attack.private is not None},
        fit_seconds={name: attack.seconds for name, attack in result.attacks.items()},
        folds=config.evaluation.folds,
        seed=config.seed,
        stages=_stages(result, seconds),
        configuration=yaml.safe_dump(strip_paths(config), sort_keys=False),
        reading=result.reading,
        searched=config.searched,
    )


def _curve(result: AuditResult) -> dict[str, tuple[CurvePoint, ...]]:
    if result.reference_outputs is None or not result.config.references.scores:
        return {}
    scores, columns = result.config.references.scores, result.table.columns
    known = {name: columns[name] for name in scores if name in columns}
    return learning_curve(scores, result.reference_outputs, result.public.membership, known=known)


def _gap(result: AuditResult) -> SanityCheck:
    """Return the guard over all known public records, held out or not, as the target's accuracies are."""
    member = result.public.membership
    counts = int((member == 1).sum()), int((member == 0).sum())
    rates = (float(str(result.target[f"accuracy_on_{side}"])) for side in ("members", "non_members"))
    inside, outside = (round(rate * count) for rate, count in zip(rates, counts, strict=True))
    return generalization_gap((inside, outside), counts)


def _source(part: str, records: Records) -> Source:
    arrays = {name: array_digest(getattr(records, name)) for name in ("ids", "images", "labels", "membership")}
    return Source(
        part=part,
        name=records.source,
        records=len(records),
        members=int((records.membership == 1).sum()),
        non_members=int((records.membership == 0).sum()),
        digest=key_of(arrays),
    )


def _threat(result: AuditResult) -> tuple[str, ...]:
    """Return what the attacker is given, from what the run asked for."""
    config, columns = result.config, result.table.columns
    views = config.extraction.queries
    asked = "the stored image" if views == 1 else f"{views} views of each record (shifts and mirrors)"
    said = [f"The attacker sees the target's logits on {asked}."]
    if any(name.startswith(("feature", "canonical_feature")) for name in columns):
        said.append("It also sees penultimate features (access to the network's inside).")
    if config.extraction.gradients:
        said.append("It also takes gradients of the input (access to the weights).")
    known = int((result.public.fold != NOT_IN_ANY_FOLD).sum())
    said.append(f"It knows the membership of {known:,} records and fits attacks on them.")
    if result.reference_outputs is None:
        said.append("It has no reference models.")
    else:
        count = len(result.reference_outputs.references)
        source = "trained on halves of these very records" if result.references else "whose answers were imported"
        said.append(f"It has {count} reference models, {source}.")
    return tuple(said)


def _stages(result: AuditResult, assessing: float) -> tuple[Stage, ...]:
    cpu, device = _processor(), _device(result.config)
    hardware = {"extract": device, "references": device}
    seconds = {**result.seconds, "assess": assessing}
    if result.reference_outputs is None:
        seconds.pop("references", None)
    return tuple(Stage(name, value, hardware.get(name, cpu)) for name, value in seconds.items())


def _device(config: RunConfig) -> str:
    """Return what the target ran on: Lightning's choice, in words."""
    import torch

    accelerator = config.hardware.accelerator
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(0)}, {torch.cuda.device_count()} present"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return f"MPS of {_processor()}"
    return _processor() if accelerator in ("auto", "cpu") else accelerator


def _processor() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # not Linux
        pass
    return f"{name}, {os.cpu_count()} cores"
