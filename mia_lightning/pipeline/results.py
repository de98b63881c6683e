"""Results of a run, and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.metrics.roc import Evaluation
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.records.records import Records
from mia_lightning.references.exposure import Exposure, exposure
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.signals.table import SignalTable

if TYPE_CHECKING:
    from mia_lightning.pipeline.arrays import ArrayInputs
    from mia_lightning.policy.decision import Decision
    from mia_lightning.references.fidelity import FidelityCheck
    from mia_lightning.references.result import References
    from mia_lightning.references.store import ReferenceRecord
    from mia_lightning.targets.base import Target
    from mia_lightning.targets.readings import ReadingCheck


@dataclass(frozen=True, eq=False)
class SplitInfo:
    """Ids, membership and folds of one split, without its images."""

    ids: NDArray[np.int64] | NDArray[np.str_]
    """(N,) in the order of the source."""

    membership: NDArray[np.int8]
    """(N,) 1, 0 or -1 = unknown."""

    fold: NDArray[np.int8]
    """(N,) fold whose held-out set contains the record; -1 = scored by the mean over all folds' models."""

    held_out: NDArray[np.bool_]
    """(N,) True for public records of known membership held out of all folds (`evaluation.holdout`)."""

    groups: NDArray[np.generic] | None = None
    """(N,) group of each record, which stays in one fold; None = independent records."""


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Scores of one attack, and their evaluation."""

    public_scores: NDArray[np.float64]
    """(N,) out-of-fold; higher = more likely a member."""

    public_probabilities: NDArray[np.float64]
    """(N,) calibrated on the other folds' rows."""

    private_scores: NDArray[np.float64]
    """(M,) mean over the folds' models; M = 0 without private records."""

    private_probabilities: NDArray[np.float64]
    """(M,) calibrated on all out-of-fold scores of the public records."""

    public: Evaluation
    """Out-of-fold figures of the scores, on the public records of known membership."""

    public_calibrated: Evaluation
    """Out-of-fold figures of a ranking by calibrated probability, which differs where the calibration ties scores."""

    held_out: Evaluation | None
    """Figures on the public records held out of all folds; None without any."""

    private: Evaluation | None
    """Figures on the private records; None where their membership is unknown."""

    seconds: float
    """Duration of fitting and scoring over all folds."""

    stability: float | None = None
    """`CrossFit.stability`."""

    private_single: NDArray[np.float64] | None = None
    """(M,) `CrossFit.single` of the private records, which thresholds of public scores carry over to."""


@dataclass(frozen=True, eq=False)
class AuditResult:
    """Results of a run."""

    config: RunConfig
    public: SplitInfo
    private: SplitInfo | None
    attacks: Mapping[str, AttackResult]
    notes: list[str]
    """Notes for the user: rows left out, labels predicted, statistics computed."""

    target: Mapping[str, object]
    """Architecture, classes, digest, accuracy in [0, 1] on known members and non-members (NaN without labels)."""

    reference_sets: Mapping[str, References]
    """Reference models of each set by its name, "" for those outside `references.sets`; empty without any."""

    table: SignalTable
    """(N + M,) signals of all records, public first, with the columns of reference scores."""

    seconds: Mapping[str, float]
    """Wall time by stage."""

    decision: Decision | None = None
    """Outcome of the policy; None without --policy, and before the assessment."""

    reading: ReadingCheck | None = None
    """Check of the target's inputs and labels; where its status is "warn", its sentence stands above any verdict. None
    where it could not run (no labels)."""

    outputs: Outputs | None = None
    """Of the public records, before `--access` reduces them; None for arrays alone."""

    @property
    def references(self) -> tuple[ReferenceRecord, ...]:
        """One record per reference model, set by set; empty without references."""
        return tuple(row for each in self.reference_sets.values() for row in each.rows)

    @property
    def fidelity(self) -> tuple[FidelityCheck, ...]:
        """Checks of the references against the target; empty without references."""
        return tuple(check for each in self.reference_sets.values() for check in each.checks)

    @property
    def reference_outputs(self) -> ReferenceOutputs | None:
        """Phi of all records under the references outside `sets`, a memory map where it is large; None without any."""
        return self.reference_sets[""].reference_outputs if "" in self.reference_sets else None

    @cached_property
    def exposure(self) -> Exposure | None:
        """Exposure of the (N + M,) records; None without independent reference models that measure it."""
        if self.reference_outputs is None or self.config.references.training.start == "target":
            return None
        return exposure(self.reference_outputs)


@dataclass(frozen=True, eq=False)
class LoadedInputs:
    """Records and target, read and checked before any work."""

    public: Records
    private: Records | None
    target: Target | None
    """None where arrays alone are audited."""

    seconds: float
    reading: ReadingCheck | None = None
    arrays: ArrayInputs | None = None
    """Stored outputs of target and references; None where a target is queried."""


def accuracies(target: Mapping[str, object]) -> tuple[float, float]:
    """Return the accuracy on members and on non-members among a target's facts, NaN where it is unknown."""
    members, non_members = (float(str(target[f"accuracy_on_{side}"])) for side in ("members", "non_members"))
    return members, non_members


class Clock:
    """Wall time by stage."""

    def __init__(self, **earlier: float) -> None:
        self.seconds: dict[str, float] = dict(earlier)
        self.last = perf_counter()

    def lap(self, stage: str) -> None:
        """Assign the time since the last lap to a stage."""
        now = perf_counter()
        self.seconds[stage], self.last = now - self.last, now
