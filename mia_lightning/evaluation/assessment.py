"""Results of an assessment: plain data that travels from the statistics to the report.

All of it is about records of known membership; nothing here computes, plots or writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.fraction import Fraction
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
    """Overlap of the records that attacks call members."""

    alpha: float
    """The sets compared are the records above each attack's threshold at this false-positive rate."""

    names: tuple[str, ...]

    jaccard: NDArray[np.float64]
    """(A, A) size of the intersection over size of the union of the two sets; 1 where both are empty."""

    only: Mapping[str, NDArray[np.int64]]
    """Attack to the rows of the members that no other attack finds."""


@dataclass(frozen=True, eq=False)
class Claims:
    """Conformal p-values of one attack per record, and the records that it claims as members."""

    p_value: NDArray[np.float64]
    """(N,) conformal, against the non-members (the record itself left out where it is a non-member)."""

    p_value_in_class: NDArray[np.float64] | None
    """(N,) conformal, against the non-members of the record's class; None without labels."""

    q_value: NDArray[np.float64]
    """(N,) smallest false-discovery rate at which the record is claimed (Benjamini-Hochberg)."""

    claimed: Mapping[float, NDArray[np.int64]]
    """FDR level (0.05, 0.1) to the claimed rows, highest scores first."""


@dataclass(frozen=True)
class Bound:
    """Lower bound on epsilon that an attack's success implies, or the reason why there is none."""

    attack: str

    method: str
    """For example "Clopper-Pearson, Bonferroni" or "one run (Steinke et al. 2023)"."""

    epsilon: float | None
    """At `delta`, with the stated confidence; None where the assumptions are violated."""

    delta: float
    confidence: float

    assumptions: str
    """One or two sentences: conditions under which this is a statement about differential privacy."""

    refusal: str | None
    """Reason why there is no bound; None where there is a bound."""

    reported: bool = False
    """Whether this is the bound declared beforehand; the others show the sensitivity to the method."""


@dataclass(frozen=True)
class SanityCheck:
    """Result of one check of the figures' validity."""

    name: str
    """For example "blind baseline", "column audit", "permutation test (refitted)"."""

    status: Literal["pass", "warn", "skipped"]

    sentence: str
    """Result in plain words, with its figures."""

    details: Mapping[str, float | int | str]


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one attack on the records of one class."""

    label: int
    members: int
    non_members: int

    auc: float | None
    """Within the class, in [0, 1]; None where the class has no members or no non-members."""

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
    """Figures of one score with a number of reference models."""

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
    """Statistics of scores and membership, and the sanity checks that were run with them."""

    records: ScoredRecords
    attacks: Mapping[str, Evaluation]
    differences: tuple[Difference, ...]

    increments: tuple[Difference, ...]
    """Blind baseline and attack together minus the blind baseline alone (`second`), per attack: what the attack
    (`first`) adds; empty where the baseline was not run."""

    agreement: Agreement | None
    """None with one attack."""

    claims: Mapping[str, Claims]

    classes: Mapping[str, tuple[ClassMetrics, ...]]
    """Attack to its figures by class; empty without labels."""

    class_fpr: float
    """The false-positive rate that sets the classes' common threshold."""

    bounds: tuple[Bound, ...]
    checks: tuple[SanityCheck, ...]
    seed: int

    turned: Mapping[str, Evaluation]
    """Attack to the figures of its negated scores, for those whose AUC has an interval wholly below 0.5."""

    notes: tuple[str, ...]
    """Sentences on how the file of records was made; they do not enter the verdict."""

    fraction: Fraction | None = None
    """Share of members in an unlabeled set; None without one."""

    def check(self, name: str) -> SanityCheck | None:
        """Return the sanity check of that name, None where there is none."""
        return next((check for check in self.checks if check.name == name), None)
