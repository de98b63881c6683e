"""Figures of one attack: plain values that travel to the report."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Population = Literal["records", "records and the fit of the attack"]

PRIORS = (0.01, 0.1, 0.5)
"""Shares of members among the records that an attacker examines, for which precision is given."""


@dataclass(frozen=True)
class OperatingPoint:
    """The true-positive rate at one false-positive rate."""

    fpr: float
    """The requested false-positive rate."""

    tpr: float
    """Share of members above the threshold, in [0, 1]."""

    low: float
    """95% interval of the TPR at exactly this FPR in the population; if not resolvable, of the TPR at the highest
    non-member. See `tpr_interval`."""

    high: float

    threshold: float
    """A record is predicted a member if its score is strictly above."""

    false_positives: int
    """Non-members above the threshold, at most fpr * n_non_members."""

    fpr_low: float
    """95% interval of this threshold's FPR in the population, for scores computed as these were; see `fpr_interval`.
    For out-of-fold scores these are scores of one fitted model each, as new records have in `CrossFit.single`. Records
    scored by the mean of the models of all folds exceed the threshold more rarely: for them only `fpr_high` holds."""

    fpr_high: float

    resolvable: bool
    """False where fpr * n_non_members < 1: the TPR is then that at zero false positives, whatever the fpr."""

    precision: tuple[float | None, ...]
    """Share of members among the records above the threshold, were members 1%, 10%, 50% of all (`PRIORS`): from the TPR
    and the observed share of false positives; None where nothing is above the threshold."""

    precision_low: tuple[float, ...]
    """The same at the low end of the TPR's interval and the high end of the FPR's."""


@dataclass(frozen=True)
class Evaluation:
    """All figures of one attack on records of known membership."""

    n_members: int
    n_non_members: int

    auc: float
    """Probability that a member scores above a non-member, ties counting half; in [0, 1]."""

    auc_low: float
    """95% interval; see `mean_interval`."""

    auc_high: float

    auc_standard_error: float
    """DeLong's, with the dependence within groups and the variance of the fit."""

    partial_auc: float
    """Area under the ROC up to FPR 5%, standardized (McClish 1989): 0.5 = chance, 1 = perfect."""

    partial_auc_low: float
    """95% interval; see `partial_auc`."""

    partial_auc_high: float

    points: tuple[OperatingPoint, ...]
    """One per false-positive rate."""

    distinct: int
    """Number of distinct scores."""

    largest_tie: int
    """Most records that share one score among the highest 5% of the records; 1 = no ties there."""

    population: Population = "records"
    """Population that the intervals generalize to: other records scored by the same rule, or also another fit of the
    attack on other records (out-of-fold scores of a trainable attack)."""

    variance_inflation: float = 1.0
    """Factor of the AUC's variance over DeLong's, for groups and fit; at least 1 for refitted attacks."""

    @property
    def points_the_other_way(self) -> bool:
        """Whether the AUC's interval lies below 0.5: non-members score higher than members."""
        return self.auc_high < 0.5

    def at(self, fpr: float) -> OperatingPoint:
        """Return the point of one of the evaluated false-positive rates.

        Raises:
            KeyError: it was not evaluated.
        """
        return {point.fpr: point for point in self.points}[fpr]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; every number is finite."""
        return asdict(self) | {
            "points": [asdict(point) for point in self.points],
            "points_the_other_way": self.points_the_other_way,
        }
