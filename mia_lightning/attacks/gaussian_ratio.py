"""Likelihood ratios of normal distributions fitted over the population of records."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack, ValidationRows
from mia_lightning.attacks.threshold import single_column
from mia_lightning.signals.table import SignalTable


@dataclass
class GaussianLikelihoodRatio(Attack):
    """Log ratio of two normal densities of one signal, members' over non-members'.

    The population form of the likelihood ratio: one pair of distributions for all records, or one pair per class. LiRA
    (Carlini et al. 2022) differs: its distributions are those of one record over reference models.
    """

    column: str = "phi"
    """The signal whose densities are compared."""

    per_class: bool = False
    """Whether each class has its own pair of distributions."""

    shrinkage: float = 20.0
    """Records at which a class's own mean and variance and the overall ones weigh the same."""

    moments_: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), init=False, repr=False, compare=False)
    """(2, classes, 2): non-members and members; per class; mean and variance."""

    def __post_init__(self) -> None:
        if self.shrinkage < 0:
            raise ValueError(f"shrinkage must be 0 or more, got {self.shrinkage}")

    def required_columns(self) -> tuple[str, ...]:
        """Return the one column."""
        return (self.column,)

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Fit mean and variance of both classes; those within a label are shrunk towards those over all labels."""
        signal = single_column(table, self.column)
        floor = 1e-12 * max(float(signal.var()), 1.0)  # equal values still get a density
        self.moments_ = np.empty((2, table.num_classes, 2))
        for side in (0, 1):
            rows = member == side
            mean, variance = signal[rows].mean(), signal[rows].var() + floor
            self.moments_[side] = mean, variance
            if self.per_class:
                self._shrink_classes(side, signal[rows], table.labels[rows])
        return self

    def _shrink_classes(self, side: int, signal: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        mean, variance = self.moments_[side, 0]
        classes = self.moments_.shape[1]
        n = np.bincount(labels, minlength=classes)
        total = np.bincount(labels, weights=signal, minlength=classes)
        means = (total + self.shrinkage * mean) / np.maximum(n + self.shrinkage, 1)
        squares = np.bincount(labels, weights=(signal - means[labels]) ** 2, minlength=classes)
        variances = (squares + self.shrinkage * variance) / np.maximum(n + self.shrinkage, 1)
        seen = (n > 1) | (self.shrinkage > 0)  # without shrinkage a class of one record keeps the overall moments
        self.moments_[side, seen] = np.stack([means, np.maximum(variances, 1e-12)], axis=1)[seen]

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return log N(signal; members) - log N(signal; non-members), (N,)."""
        signal = single_column(table, self.column)
        non_members, members = (_log_density(signal, *self.moments_[side][table.labels].T) for side in (0, 1))
        return members - non_members


def _log_density(
    x: NDArray[np.float64], mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the normal log density up to a constant."""
    return -0.5 * ((x - mean) ** 2 / variance + np.log(variance))
