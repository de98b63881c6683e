"""Outputs of target and reference models, as columns for the attacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.splits import Splits
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD
from mia_lightning.signals import build_table
from mia_lightning.signals.table import SignalTable

if TYPE_CHECKING:
    from mia_lightning.references.result import References
    from mia_lightning.targets.base import Target


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """Target and reference outputs for all records, from which signals and scores are computed."""

    public: SplitInfo
    private: SplitInfo | None
    outputs: Outputs
    """Of the public records."""

    private_outputs: Outputs | None
    target: Mapping[str, object]
    """Architecture, classes, digest and accuracies, as in `AuditResult`."""

    reference_sets: Mapping[str, References]
    """Reference models of each set by its name, "" for those outside `references.sets`; empty without any."""

    notes: list[str]
    unreduced: Outputs | None = None
    """Of the public records, as the target returns them, before `--access` reduces them; None for arrays alone."""

    signals: list[str] | None = None
    """Signals of the table, where these are not the configured ones (arrays alone)."""

    def table(self, config: RunConfig) -> SignalTable:
        """Return the signals and reference scores of all records, (N + M,), public first."""
        if self.signals is not None:
            config = replace(config, signals=replace(config.signals, names=self.signals))
        signals = signal_table(config, self.outputs, self.private_outputs)
        if self.signals is not None:  # of phi alone the outputs have no labels
            signals = replace(signals, labels=self.reference_sets[""].reference_outputs.labels)
        return signals.with_columns(self.reference_columns(config))

    def reference_columns(self, config: RunConfig) -> dict[str, NDArray[np.float64]]:
        """Return the columns of the reference scores, (N + M,) each."""
        if not self.reference_sets:
            return {}
        from mia_lightning.references.sets import columns_of_sets

        outputs = {name: references.reference_outputs for name, references in self.reference_sets.items()}
        return columns_of_sets(config.references, outputs)

    def attacker_view(self) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Return membership and fold of all records, (N + M,) each, as attacks may see them.

        Private records and held-out records have neither, so that no attack has access to their membership.
        """
        private = 0 if self.private is None else len(self.private.ids)
        member = np.where(self.public.held_out, np.int8(UNKNOWN), self.public.membership)
        return _extended(member, private, UNKNOWN), _extended(self.public.fold, private, NOT_IN_ANY_FOLD)


def signal_table(config: RunConfig, public: Outputs, private: Outputs | None) -> SignalTable:
    """Return the signals of both splits in one table, public rows first."""
    names, reduction = config.signals.names, config.signals.query_reduction
    tables = Splits(public, private).map(lambda half: build_table(half, names=names, query_reduction=reduction))
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables.public.columns}
    return SignalTable(columns, tables.concatenate(lambda table: table.labels), public.num_classes)


def _extended(values: NDArray[np.int8], count: int, value: int) -> NDArray[np.int8]:
    return np.append(values, np.full(count, value, np.int8))


def target_facts(target: Target, outputs: Outputs, public: Records) -> dict[str, object]:
    """Return architecture, classes, digest and accuracies; NaN where records have no label to compare with."""
    if outputs.is_multi_label:
        correct = ((outputs.logits[:, 0] > 0) == (outputs.labels == 1)).all(axis=1)
    else:
        correct = outputs.logits[:, 0].argmax(axis=1) == outputs.labels
    members, non_members = ((public.membership == side) & (public.labels != UNKNOWN) for side in (1, 0))
    return {
        "architecture": target.architecture,
        "classes": target.num_classes,
        "digest": target.digest,
        "accuracy_on_members": _rate(correct[members]),
        "accuracy_on_non_members": _rate(correct[non_members]),
    }


def _rate(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else math.nan
