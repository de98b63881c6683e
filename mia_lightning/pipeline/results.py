"""The run, from records to figures: reads like the README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.metrics.roc import Evaluation
from mia_lightning.records.records import Records
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.signals.table import SignalTable

if TYPE_CHECKING:
    from mia_lightning.references.fidelity import FidelityCheck
    from mia_lightning.references.store import ReferenceRecord
    from mia_lightning.targets.base import Target
    from mia_lightning.targets.readings import ReadingCheck


@dataclass(frozen=True, eq=False)
class SplitInfo:
    """What is kept of one half of the records once their images are no longer needed."""

    ids: NDArray[np.int64] | NDArray[np.str_]
    """(N,) in the order of the source."""

    membership: NDArray[np.int8]
    """(N,) 1, 0 or -1 = unknown."""

    fold: NDArray[np.int8]
    """(N,) fold that held the record out; -1 = scored by the mean over all folds' models."""

    held_out: NDArray[np.bool_]
    """(N,) True for public records of known membership that no fold saw (`evaluation.holdout`)."""

    groups: NDArray[np.generic] | None = None
    """(N,) group of each record, which stays in one fold; None = independent records."""


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Scores of one attack, and how good they are."""

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
    """The same for a ranking by calibrated probability: what ties of the calibration cost."""

    held_out: Evaluation | None
    """Figures on the public records that no fold saw, where there are any."""

    private: Evaluation | None
    """Figures on the private records, where their membership is known."""

    seconds: float
    """Time spent in fitting and scoring over all folds."""

    stability: float | None = None
    """`CrossFit.stability`."""


@dataclass(frozen=True, eq=False)
class AuditResult:
    """Everything a run found."""

    config: RunConfig
    public: SplitInfo
    private: SplitInfo | None
    attacks: Mapping[str, AttackResult]
    notes: list[str]
    """What the user has to know: rows left out, labels predicted, statistics computed."""

    target: Mapping[str, object]
    """Architecture, digest, accuracy on known members and non-members."""

    references: tuple[ReferenceRecord, ...]
    """What is known of each reference model; empty without references."""

    fidelity: tuple[FidelityCheck, ...]
    """Checks of the references against the target; empty without references."""

    table: SignalTable
    """(N + M,) signals of all records, public first, with the columns of reference scores."""

    reference_outputs: ReferenceOutputs | None
    """phi of all records under the references, a memory map where it is large; None without references."""

    seconds: Mapping[str, float]
    """Wall time by stage."""

    reading: ReadingCheck | None = None
    """Check of the target's inputs and labels; where its status is "warn", its sentence stands above any verdict. None
    where it could not run (no labels)."""


@dataclass(frozen=True, eq=False)
class LoadedInputs:
    """Everything that was read and checked before the work begins."""

    public: Records
    private: Records | None
    target: Target
    seconds: float
    reading: ReadingCheck | None = None


class Clock:
    """Wall time by stage."""

    def __init__(self, **earlier: float) -> None:
        self.seconds: dict[str, float] = dict(earlier)
        self.last = perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on a stage."""
        now = perf_counter()
        self.seconds[stage], self.last = now - self.last, now
