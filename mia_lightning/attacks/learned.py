"""Base of the learned attacks: input columns and their standardization."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack
from mia_lightning.signals.table import SignalTable


@dataclass
class LearnedAttack(Attack):
    """A classifier of members and non-members over columns of signals."""

    columns: list[str] = field(default_factory=lambda: ["*"])
    """Signals to read, by name or shell pattern, and earlier attacks by their full names."""

    within_class: list[str] = field(default_factory=list)
    """Columns to read a second time, standardized within the record's class."""

    components: dict[str, int] = field(default_factory=dict)
    """Wide columns to read as their leading principal components: name to how many."""

    class_one_hot: bool = False
    """Whether to read the record's class as one 0/1 input per class."""

    def required_columns(self) -> tuple[str, ...]:
        """Return every column or pattern this attack reads."""
        return (*self.columns, *self.within_class, *self.components)

    def inputs(self, table: SignalTable) -> "FeatureScaler":
        """Fit the scaling on the fitting rows (membership is not used)."""
        return FeatureScaler(self, table)


class FeatureScaler:
    """A fitted transformation of a table to a standardized matrix."""

    LIMIT = 8.0
    """Standard deviations at which an input is clipped, so that a saturated record cannot dominate a network."""

    def __init__(self, attack: LearnedAttack, table: SignalTable) -> None:
        self.attack = attack
        self.class_scale = ClassScale.fit(table.matrix(attack.within_class), table.labels, table.num_classes)
        self.bases = {name: _principal_axes(table.matrix((name,)), count) for name, count in attack.components.items()}
        raw = self._raw(table)
        self.mean = raw.mean(axis=0)
        deviation = raw.std(axis=0)
        self.scale = np.where(deviation > 1e-12, deviation, 1.0)  # a constant column stays 0 instead of dividing by 0

    def __call__(self, table: SignalTable) -> NDArray[np.float32]:
        """Return (N, F) float32, every column at mean 0 and variance 1 over the fitting rows."""
        scaled = (self._raw(table) - self.mean) / self.scale
        return np.asarray(np.clip(scaled, -self.LIMIT, self.LIMIT), dtype=np.float32)

    def _raw(self, table: SignalTable) -> NDArray[np.float32]:
        parts: list[NDArray[np.float32]] = [table.matrix(self.attack.columns)] if self.attack.columns else []
        if self.attack.within_class:
            parts.append(self.class_scale(table.matrix(self.attack.within_class), table.labels))
        for name, (mean, axes) in self.bases.items():
            parts.append(np.asarray((table.matrix((name,)) - mean) @ axes, dtype=np.float32))
        if self.attack.class_one_hot:
            parts.append(np.eye(table.num_classes, dtype=np.float32)[table.labels])
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True, eq=False)
class ClassScale:
    """Mean and standard deviation of columns within each class, shrunk towards those over all classes."""

    SHRINKAGE = 20.0

    mean: NDArray[np.float32]
    """(classes, F)."""

    deviation: NDArray[np.float32]
    """(classes, F)."""

    @classmethod
    def fit(cls, values: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> Self:
        """Fit on (N, F) values; a class of n records weighs n against a prior of 20 records of the overall moments."""
        mean, variance = values.mean(axis=0), values.var(axis=0)
        means = np.tile(mean, (classes, 1))
        variances = np.tile(variance, (classes, 1))
        for label in np.unique(labels):
            rows = values[labels == label]
            weight = len(rows) / (len(rows) + cls.SHRINKAGE)
            means[label] += weight * (rows.mean(axis=0) - mean)
            variances[label] += weight * (rows.var(axis=0) - variance)
        return cls(mean=means, deviation=np.sqrt(np.maximum(variances, 1e-12)))

    def __call__(self, values: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (N, F) values, standardized within their class."""
        scaled: NDArray[np.float32] = (values - self.mean[labels]) / self.deviation[labels]
        return scaled


def _principal_axes(values: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean (F,) and the leading axes (F, count) of (N, F) values, by the covariance's eigenvectors."""
    mean = values.mean(axis=0)
    centered = values - mean
    _, vectors = np.linalg.eigh(centered.T @ centered)  # ascending
    return mean, vectors[:, ::-1][:, :count]
