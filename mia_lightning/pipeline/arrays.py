"""Audit of arrays alone: phi of target and references stored elsewhere, without images or a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.requirements import check_folders, check_requirements
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.vocabulary import is_signed
from mia_lightning.references.exchange import Pool, is_checkpoint_folder, read_pool
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.scores.scored_records import ScoredRecords
from mia_lightning.signals import expand_names

if TYPE_CHECKING:
    from mia_lightning.references.result import References

FROM_PHI = ("loss", "phi", "phi_original", "phi_std", "phi_min", "phi_max", "phi_contrast")
"""Signals that are functions of phi alone."""


@dataclass(frozen=True, eq=False)
class ArrayInputs:
    """phi of one target and its references, with the records that they are about."""

    records: Records
    """Without images: (N, 1, 0, 0)."""

    reference_outputs: ReferenceOutputs
    logits: NDArray[np.float32] | None
    """(N, Q, C) of the target; None where only phi is stored."""

    notes: tuple[str, ...]

    @property
    def outputs(self) -> Outputs:
        """The target's logits; of phi alone, the logits of the record's class (0) against the rest."""
        phi = self.reference_outputs.target
        labels = self.reference_outputs.labels if self.logits is not None else np.zeros(len(phi), np.int64)
        logits = np.stack([phi, np.zeros_like(phi)], axis=-1) if self.logits is None else self.logits
        empty = np.zeros((len(phi), 0), np.float32)
        return Outputs(logits, empty, empty, labels)

    def signals(self, config: RunConfig) -> list[str]:
        """Return the signals of the configuration that the arrays determine.

        Raises:
            MIAError: a signal that is named by itself needs logits, and only phi is stored.
        """
        if self.logits is not None:
            return list(config.signals.names)
        expanded = expand_names(config.signals.names)
        usable = [name for name in FROM_PHI if name in expanded]
        if needing := [name for name in config.signals.names if name in expanded and name not in usable]:
            raise MIAError(
                f"signal {needing[0]!r} needs the target's logits, but only phi is stored; add target_logits (N, Q, C) "
                "to the file, or leave it out of --signals.names"
            )
        views = self.reference_outputs.target.shape[1]
        few = {"phi_std", "phi_min", "phi_max"} if views < 2 else set()
        return [name for name in usable if name not in few and (name != "phi_contrast" or views in (18, 50))]

    def facts(self) -> dict[str, object]:
        """Return the description of the target, as for a network."""
        accuracy = [math.nan, math.nan]
        if self.logits is not None:
            correct = self.logits[:, 0].argmax(axis=1) == self.reference_outputs.labels
            accuracy = [float(correct[self.records.membership == side].mean()) for side in (1, 0)]
        return {
            "architecture": "not known, its outputs were imported",
            "classes": self.reference_outputs.num_classes,
            "digest": "",
            "accuracy_on_members": accuracy[0],
            "accuracy_on_non_members": accuracy[1],
        }

    def references(self, seed: int) -> References:
        """Return the references that are independent of known membership, with the checks of the import."""
        from mia_lightning.references.fidelity import coverage_check, direction_check, independence_check, scale_check
        from mia_lightning.references.independence import make_independent
        from mia_lightning.references.result import References

        imported = self.reference_outputs
        independent = make_independent(
            imported, self.records.membership, seed=seed, source=self.records.source, order=imported.content_order()
        )
        checks = (
            independence_check(independent, len(imported.references)),
            direction_check(imported),
            scale_check(imported),
            coverage_check(independent.reference_outputs),
        )
        return References(independent.reference_outputs, (), checks)

    def model_outputs(self, config: RunConfig, half: SplitInfo) -> ModelOutputs:
        """Return the outputs of an audit, with the records' folds."""
        references = self.references(config.seed)
        return ModelOutputs(
            public=half,
            private=None,
            outputs=self.outputs,
            private_outputs=None,
            target=self.facts(),
            reference_sets={"": references},
            notes=[*self.notes, *references.notes],
            signals=self.signals(config),
        )


def scored_records(path: str, *, seed: int) -> tuple[ScoredRecords, list[str]]:
    """Return the standard reference scores of stored outputs, on the records of known membership, and notes.

    Raises:
        MIAError: as `array_inputs`; no score is possible with so few references.
    """
    from mia_lightning.references.columns import score_columns
    from mia_lightning.references.standard_scores import standard_scores

    inputs = array_inputs(read_pool(path, option=""), None)
    references = inputs.references(seed)
    rows, notes = np.flatnonzero(inputs.records.membership != UNKNOWN), [*inputs.notes, *references.notes]
    scores: dict[str, NDArray[np.float64]] = {}
    for name, score in standard_scores().items():
        try:
            scores[name] = score_columns(score, references.reference_outputs)[""][rows]
        except MIAError as error:
            notes.append(f"score {name} is left out: {error}")
    if not scores:
        raise MIAError(f"{path}: {notes[-1]}")
    records = inputs.records.rows(rows)
    labels = None if (records.labels == UNKNOWN).any() else records.labels
    return ScoredRecords(records.ids, records.membership, scores, labels, records.source), notes


def is_arrays_only(config: RunConfig) -> bool:
    """Whether the run has stored outputs but neither records nor a target to query."""
    return config.data.public is None and config.references.imported is not None


def load_arrays(config: RunConfig) -> ArrayInputs:
    """Read the stored outputs of `--references.imported` and choose the target.

    Raises:
        MIAError: a file that cannot be read, no target or membership, or an attack that the arrays are too few for.
    """
    path = str(config.references.imported)
    if config.target.checkpoint is not None or config.data.private is not None:
        option = "target.checkpoint" if config.target.checkpoint is not None else "data.private"
        raise MIAError(f"--{option} is given without --data.public; name the records, or leave it out to audit arrays")
    if is_checkpoint_folder(path):
        raise MIAError(f"--references.imported {path}: has checkpoints; name the records to query by --data.public")
    check_folders([("output", Path(config.output))])
    if config.references.sets:
        raise MIAError(
            "references.sets are trained for a target that is queried; name it and --data.public, or leave the sets out"
        )
    inputs = array_inputs(read_pool(path, labels=config.references.labels), config.evaluation.targets)
    views = inputs.reference_outputs.target.shape[1]
    check_requirements(
        replace(
            config,
            extraction=replace(config.extraction, queries=views),
            signals=replace(config.signals, names=inputs.signals(config)),
            references=replace(config.references, queries=None),
        )
    )
    return inputs


def array_inputs(pool: Pool, targets: object) -> ArrayInputs:
    """Return one target of a pool with its references: the stored target, or a model of the pool by its number.

    Records without any reference drawn are left out, and counted in the notes.

    Args:
        pool: The models.
        targets: None, or a sequence of one number.

    Raises:
        MIAError: no target or membership, or a number that is not a model's.
    """
    index = np.arange(len(pool.phi))
    if isinstance(targets, list | tuple):
        number = int(targets[0])
        check_numbers(pool, targets)
        target, membership = pool.phi[number], pool.keep[number].astype(np.int8)
        index = np.delete(index, number)
    elif pool.targets is None:
        raise MIAError(
            f"{pool.source}: has no target; add target (N, Q) and membership (N,), or use its models as targets by "
            f"train.py --references.imported: --evaluation.targets 0 for one of the {len(pool.phi)}, "
            "--evaluation.targets all for each in turn"
        )
    else:
        target, membership = pool.targets[0], _membership(pool)
    drawn = None if pool.drawn is None else pool.drawn[index]
    labels = np.zeros(pool.phi.shape[1], np.int64) if pool.labels is None else pool.labels
    classes = int(labels.max()) + 1 if pool.logits is None else pool.logits.shape[2]
    outputs = ReferenceOutputs(target, pool.phi[index], pool.keep[index], labels, max(classes, 2), drawn)
    records = Records(
        ids=np.arange(len(labels)) if pool.ids is None else pool.ids,
        images=np.zeros((len(labels), 1, 0, 0), np.uint8),
        labels=np.full(len(labels), UNKNOWN) if pool.labels is None else labels,
        membership=membership,
        source=Path(pool.source.removeprefix("--references.imported ")).name,
        ids_invented=pool.ids is None,
    )
    notes, rows = list(pool.notes), np.flatnonzero(outputs.covered)
    if missing := len(labels) - len(rows):
        notes.append(f"{records.source}: {missing:,} of {len(labels):,} records have no reference drawn; left out")
        outputs, records = outputs.records(rows), records.rows(rows)
    if unknown := int((records.membership == UNKNOWN).sum()):
        notes.append(f"{records.source}: {unknown:,} of {len(records):,} records have no known membership")
    logits = pool.logits if targets is None else None
    return ArrayInputs(records, outputs, None if logits is None else logits[rows], tuple(notes))


def check_numbers(pool: Pool, numbers: list[int] | tuple[int, ...]) -> None:
    """Raise MIAError where a number is not a model's of the pool."""
    if wrong := [number for number in numbers if not 0 <= int(number) < len(pool.phi)]:
        raise MIAError(f"--evaluation.targets {wrong[0]}: {pool.source} has models 0 to {len(pool.phi) - 1}")


def _membership(pool: Pool) -> NDArray[np.int8]:
    if pool.membership is None:
        raise MIAError(f"{pool.source}: has no membership of the target; add membership (N,) of 1, 0 and -1 = unknown")
    membership = np.asarray(pool.membership[0], np.int8)
    if is_signed(np.unique(membership).tolist()):  # +1 and -1 alone: members and non-members
        membership = np.maximum(membership, 0)
    if len(np.unique(membership[membership != UNKNOWN])) < 2:
        raise MIAError(f"{pool.source}: membership must include members (1) and non-members (0)")
    return membership
