"""What a statistical assessment of scores holds: plain data that travels from the statistics to the report.

Everything is about records of known membership; nothing here computes, plots or writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.metrics.roc import Evaluation
from mia_lightning.scores.scored_records import ScoredRecords


@dataclass(frozen=True)
class Difference:
    """Attack `first` minus attack `second` in one figure, on the same records."""

    first: str
    second: str

    figure: str
    """auc, or tpr@0.01 and the like."""

    value: float
    low: float
    """95% interval of the paired bootstrap."""

    high: float

    p_value: float
    """Two-sided."""

    p_holm: float
    """Adjusted over all differences of the assessment by Holm's method."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far two attacks point at the same records."""

    alpha: float
    """The sets compared are the records above each attack's threshold at this false-positive rate."""

    names: tuple[str, ...]

    jaccard: NDArray[np.float64]
    """(A, A) size of the intersection over size of the union of the two sets; 1 where both are empty."""

    only: Mapping[str, NDArray[np.int64]]
    """Attack to the rows of the members that it alone finds."""


@dataclass(frozen=True, eq=False)
class Claims:
    """One attack's evidence per record, and the list of records that it claims as members."""

    p_value: NDArray[np.float64]
    """(N,) conformal, against the non-members (the record itself left out where it is one)."""

    p_value_in_class: NDArray[np.float64] | None
    """(N,) likewise against the non-members of the record's class; None without labels."""

    q_value: NDArray[np.float64]
    """(N,) smallest false-discovery rate at which the record is claimed (Benjamini-Hochberg)."""

    claimed: Mapping[float, NDArray[np.int64]]
    """FDR level (0.05, 0.1) to the claimed rows, most exposed first."""


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon that follows from an attack's success, or why there is none."""

    attack: str

    method: str
    """For example "Clopper-Pearson, Bonferroni" or "one run (Steinke et al. 2023)"."""

    epsilon: float | None
    """At `delta`, with the stated confidence; None where the assumptions are violated."""

    delta: float
    confidence: float

    assumptions: str
    """One or two sentences: what has to hold for this to be a statement about differential privacy."""

    refusal: str | None
    """Why there is no bound; None where there is one."""


@dataclass(frozen=True)
class SanityCheck:
    """One check that the figures mean what they seem to mean."""

    name: str
    """blind baseline, preprocessing parity, permuted labels, generalization gap."""

    status: Literal["pass", "warn", "not run"]

    sentence: str
    """What was found, in plain words with its figures."""

    details: Mapping[str, float | int | str]


@dataclass(frozen=True)
class ClassMetrics:
    """How well one attack does on the records of one class."""

    label: int
    members: int
    non_members: int

    auc: float | None
    """Within the class, in [0, 1]; None where the class lacks one side."""

    auc_low: float | None
    """95% interval (DeLong)."""

    auc_high: float | None

    tpr: float | None
    """Share of the class's members above the threshold of all records; None without members."""

    tpr_low: float | None
    """Wilson's 95% interval."""

    tpr_high: float | None

    fpr: float | None
    """Share of the class's non-members above that threshold; None without non-members."""


@dataclass(frozen=True)
class CurvePoint:
    """What one score reaches with a number of reference models."""

    references: int
    auc: float
    auc_low: float
    auc_high: float

    fpr: float
    """The false-positive rate of `tpr`."""

    tpr: float
    tpr_low: float
    tpr_high: float


@dataclass(frozen=True, eq=False)
class Assessment:
    """Everything that can be said from scores and membership alone, and the guards that were run beside them."""

    records: ScoredRecords
    attacks: Mapping[str, Evaluation]
    differences: tuple[Difference, ...]

    increments: tuple[Difference, ...]
    """Every attack minus the blind baseline; empty where that could not be run."""

    agreement: Agreement | None
    """None with one attack."""

    claims: Mapping[str, Claims]

    classes: Mapping[str, tuple[ClassMetrics, ...]]
    """Attack to its figures by class; empty without labels."""

    class_fpr: float
    """The false-positive rate that sets the classes' common threshold."""

    bounds: tuple[Bound, ...]
    guards: tuple[SanityCheck, ...]
    seed: int
