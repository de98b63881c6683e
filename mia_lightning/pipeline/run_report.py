"""Report of a run: assessment, target, records, threat model, time and hardware."""

import math
import os
import platform
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mia_lightning.config.files import strip_paths
from mia_lightning.config.schema import RunConfig
from mia_lightning.evaluation.assess import assess
from mia_lightning.evaluation.assessment import Assessment, Claims, CurvePoint, SanityCheck
from mia_lightning.evaluation.claims import claim_new
from mia_lightning.evaluation.config import FPRS
from mia_lightning.evaluation.learning_curve import learning_curve
from mia_lightning.evaluation.permutation import refitted_permutation_test
from mia_lightning.evaluation.reference_columns import reference_columns
from mia_lightning.evaluation.sanity_checks import generalization_gap
from mia_lightning.outputs.access import DESCRIPTIONS, LEVELS
from mia_lightning.pipeline.explain import explain, methods_not_run, methods_of
from mia_lightning.pipeline.ladder import ladder_of
from mia_lightning.pipeline.results import AuditResult, LoadedInputs, accuracies
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.references.config import column_of
from mia_lightning.report.contents import Reference, Report, RunFacts, Source, Stage
from mia_lightning.report.files import versions
from mia_lightning.report.filing import previous_audit
from mia_lightning.runtime.hardware import torch_device
from mia_lightning.runtime.store import array_digest, key_of
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD
from mia_lightning.scores.scored_records import ScoredRecords
from mia_lightning.signals import find_signal

LIBRARIES = ("torch", "lightning", "scikit-learn", "torchvision", "matplotlib")


def assess_result(result: AuditResult, prepared: LoadedInputs) -> Assessment:
    """Assess the out-of-fold scores of all attacks, with the sanity checks that need images or refitting.

    Args:
        result: From `attack_target`.
        prepared: The inputs of `result`.
    """
    rows = np.flatnonzero(result.public.fold != NOT_IN_ANY_FOLD)
    public, config = prepared.public, result.config
    labels = None if (public.labels == UNKNOWN).any() or public.multi_hot is not None else public.labels[rows]
    records = ScoredRecords(
        ids=public.ids[rows],
        membership=result.public.membership[rows],
        scores={name: attack.public_scores[rows] for name, attack in result.attacks.items()},
        labels=labels,
        source=public.source,
        groups=None if public.groups is None else public.groups[rows],
        stability={name: attack.stability for name, attack in result.attacks.items()},
    )
    refitted = refitted_permutation_test(
        config.attacks, result.table.rows(rows), records.membership, seed=config.seed, groups=records.groups
    )
    audited_rows, audited = _audited_columns(result, rows)
    return assess(
        records,
        fprs=sorted({*FPRS, *config.evaluation.fprs}),
        seed=config.seed,
        folds=config.evaluation.folds,
        pixels=_pixels(public, rows),
        columns={name: values[rows] for name, values in (public.known_columns | _label_columns(public)).items()},
        audited=audited,
        audited_rows=audited_rows,
        checks=(refitted,) if _accuracy_unknown(result, public) else (refitted, _gap(result)),
    )


def _pixels(records: Records, rows: NDArray[np.integer]) -> NDArray[Any] | None:
    """Return the images of some records, None where records are not images or arrays alone are audited."""
    if not records.is_image or 0 in records.images.shape:
        return None
    return records.pixels if len(rows) == len(records) else records.pixels[rows]  # an index would copy them


def _audited_columns(
    result: AuditResult, evaluated: NDArray[np.integer]
) -> tuple[NDArray[np.integer] | None, dict[str, NDArray[np.float64]]]:
    """Return the columns of references for the column audit, and their indices in `evaluated`."""
    if not result.reference_sets:
        return None, {}
    ordered = evaluated[result.table.rows(evaluated).content_order()]
    columns: dict[str, NDArray[np.float64]] = {}
    for name, options in result.config.references.by_set.items():
        outputs = result.reference_sets[name].reference_outputs
        rows, audited = reference_columns(options.scores, outputs, ordered, seed=result.config.seed)
        columns |= {column_of(name, column): values for column, values in audited.items()}
    return np.searchsorted(evaluated, rows), columns


def report_of(result: AuditResult, prepared: LoadedInputs, assessment: Assessment, seconds: float) -> Report:
    """Return the report of a run.

    Args:
        result: From `attack_target`.
        prepared: The inputs of `result`.
        assessment: From `assess_result`.
        seconds: Duration of the assessment.
    """
    rows = np.flatnonzero(result.public.fold != NOT_IN_ANY_FOLD)
    submission = result.config.submission.attack
    with_ray = any(each.count and each.workers for each in result.config.references.by_set.values())
    return Report(
        assessment=assessment,
        headline=result.config.submitted,
        headline_reason="named for submission beforehand" if submission else "the last one configured, as submitted",
        versions=versions(*LIBRARIES, *(("ray",) if with_ray else ())),
        notes=tuple(result.notes),
        filing=result.config.report,
        previous=previous_audit(result.config.report),
        class_names=result.config.report.class_names or prepared.public.class_names,
        run=_facts(result, prepared, seconds),
        pixels=_pixels(prepared.public, rows),
    )


def _facts(result: AuditResult, prepared: LoadedInputs, seconds: float) -> RunFacts:
    config = result.config
    halves = (("public", prepared.public), ("private", prepared.private))
    columns = [name for name in result.table.columns if name in columns_read(result)]
    evaluated = np.flatnonzero(result.public.fold != NOT_IN_ANY_FOLD)
    return RunFacts(
        target={
            name: value if isinstance(value, int | float) else str(value)
            for name, value in result.target.items()
            if not (isinstance(value, float) and math.isnan(value))  # without labels
        },
        sources=tuple(_source(part, half) for part, half in halves if half is not None),
        threat=_threat(result),
        references=tuple(
            Reference(
                row.number, row.status, row.accuracy_in, row.accuracy_out, row.seconds, row.reason, row.losses, name
            )
            for name, each in result.reference_sets.items()
            for row in each.rows
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
        explanation=explain(result, columns, config.evaluation.fprs),
        methods=methods_of(result, columns),
        not_run=methods_not_run(config),
        reading=result.reading,
        fidelity=result.fidelity,
        private_ids=None if result.private is None else result.private.ids,
        private_claims=_private_claims(result),
        top_probability=None if result.exposure is None else result.exposure.top_probability[evaluated],
        searched=config.searched,
        ladder=ladder_of(result, prepared),
    )


def _private_claims(result: AuditResult) -> dict[str, Claims]:
    """Return claims about private records against the public non-members that attacks were fitted with."""
    if result.private is None:
        return {}
    non_members = (result.public.fold != NOT_IN_ANY_FOLD) & (result.public.membership == 0)
    return {
        name: claim_new(
            attack.private_scores if attack.private_single is None else attack.private_single,
            attack.public_scores[non_members],
            groups=None if result.public.groups is None else result.public.groups[non_members],
        )
        for name, attack in result.attacks.items()
    }


def _curve(result: AuditResult) -> dict[str, tuple[CurvePoint, ...]]:
    public, columns = result.public, result.table.columns
    curves: dict[str, tuple[CurvePoint, ...]] = {}
    for name, options in result.config.references.by_set.items():
        full = {score: columns.get(column_of(name, score)) for score in options.scores}
        computed = {score: values for score, values in full.items() if values is not None}
        outputs = result.reference_sets[name].reference_outputs
        curve = learning_curve(options.scores, outputs, public.membership, full_scores=computed, groups=public.groups)
        curves |= {column_of(name, score): points for score, points in curve.items()}
    return curves


def _label_columns(public: Records) -> dict[str, NDArray[Any]]:
    """Return each label of multi-label records."""
    return {} if public.multi_hot is None else {f"label {j}": column for j, column in enumerate(public.multi_hot.T)}


def _accuracy_unknown(result: AuditResult, public: Records) -> bool:
    return bool((public.labels == UNKNOWN).any()) or math.isnan(accuracies(result.target)[0])


def _gap(result: AuditResult) -> SanityCheck:
    """Return the generalization gap over all public records of known membership, held out or not."""
    member = result.public.membership
    counts = int((member == 1).sum()), int((member == 0).sum())
    correct = (round(rate * count) for rate, count in zip(accuracies(result.target), counts, strict=True))
    correct_in, correct_out = correct
    return generalization_gap((correct_in, correct_out), counts)


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
    """Return the attacker's access and knowledge, from the columns that the attacks read."""
    config, read = result.config, columns_read(result)
    views = config.extraction.queries
    if config.data.public is None and result.reference_outputs is not None:  # arrays alone
        views = result.reference_outputs.target.shape[1]
    made = config.extraction.views or "shifts and flips"
    seen = DESCRIPTIONS[min(config.access, "logits", key=LEVELS.index)].replace("the logits", "the target's logits")
    queried = "each record as stored" if views == 1 else f"{views} views of each record ({made})"
    sentences = [f"Query access: the attacker sees {seen} on {queried}."]
    needs = {signal.needs for name in read if (signal := find_signal(name)) is not None}
    if "features" in needs:
        sentences.append("White-box access to penultimate features.")
    if "gradient_norms" in needs:
        sentences.append("White-box access to input gradients.")
    labeled = int((result.public.fold != NOT_IN_ANY_FOLD).sum())
    if any(attack.is_trainable for attack in config.attacks.values()):
        sentences.append(f"The attacker knows the membership of {labeled:,} records and fits attacks on them.")
    if not result.reference_sets:
        sentences.append("The attacker has no reference models.")
    for name, references in result.reference_sets.items():
        count = len(references.reference_outputs.references)
        source = "trained on random halves of the same records" if references.rows else "whose outputs were imported"
        further = f"{count} further" if name and "" in result.reference_sets else str(count)
        sentences.append(f"The attacker has {further} reference models, {source}{f' ({name})' if name else ''}.")
    return tuple(sentences)


def columns_read(result: AuditResult) -> set[str]:
    """Return the signals and scores that the configured attacks read."""
    patterns = [pattern for attack in result.config.attacks.values() for pattern in attack.required_columns()]
    return {name for name in result.table.columns if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _stages(result: AuditResult, assessing: float) -> tuple[Stage, ...]:
    cpu, device = _processor(), _device(result.config)
    hardware = {"extract": device, "references": device}
    seconds = {**result.seconds, "assess": assessing}
    if not result.reference_sets:
        seconds.pop("references", None)
    return tuple(Stage(name, value, hardware.get(name, cpu)) for name, value in seconds.items())


def _device(config: RunConfig) -> str:
    """Return the name of the device that Lightning chooses for the target."""
    import torch

    accelerator = config.hardware.accelerator
    device = torch_device(accelerator)
    if device == "cuda":
        return f"{torch.cuda.get_device_name(0)}, {torch.cuda.device_count()} present"
    if device == "mps":
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
