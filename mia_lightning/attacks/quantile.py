"""Quantile regression: the distribution of a non-member's signal predicted from columns that describe the record."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import ValidationRows
from mia_lightning.attacks.learned import FeatureScaler, LearnedAttack
from mia_lightning.attacks.threshold import single_column
from mia_lightning.errors import MIAError
from mia_lightning.signals.table import SignalTable

if TYPE_CHECKING:
    from mia_lightning.attacks._density_network import Regression, Training

Array = NDArray[np.float64]


@dataclass
class _Conditional(LearnedAttack):
    """Base: the compared signal, the columns it is predicted from, and the network."""

    column: str = "phi_original"
    """The signal that is compared; higher = more likely a member."""

    columns: list[str] = field(default_factory=lambda: ["shifted_logits"])
    """Columns that describe the record: outputs for other views of its image. Columns that determine the compared
    signal (loss, logits or features of the same view) leave nothing to compare."""

    class_one_hot: bool = True
    """Whether to read the record's class as one 0/1 input per class."""

    hidden: list[int] = field(default_factory=lambda: [128, 64])
    """Width of each hidden layer."""

    epochs: int = 30
    """Passes over the fitting rows."""

    batch_size: int = 500
    """Records per step."""

    learning_rate: float = 3e-3
    """Peak of a one-cycle cosine schedule."""

    weight_decay: float = 1e-2
    """Decoupled weight decay."""

    dropout: float = 0.1
    """Share of hidden units dropped while training."""

    inputs_: FeatureScaler | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if any(fnmatchcase(self.column, pattern) for pattern in self.columns):
            raise ValueError(f"columns {self.columns} hold the compared signal {self.column!r} itself; leave it out")
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")

    def required_columns(self) -> tuple[str, ...]:
        """Return the compared signal and every column or pattern it is predicted from."""
        return (self.column, *super().required_columns())

    def _fitted(
        self,
        inputs: NDArray[np.float32],
        signal: Array,
        head: Literal["gaussian", "quantiles"],
        *,
        seed: int,
        population: str,
    ) -> Regression:
        from mia_lightning.attacks._density_network import regress

        if len(signal) < 2:
            raise MIAError(f"there are {len(signal)} {population} to fit a distribution on; at least 2 are needed")
        return regress(inputs, signal, head, self._training(), seed=seed)

    def _training(self) -> Training:
        from mia_lightning.attacks._density_network import Training

        return Training(
            hidden=tuple(self.hidden),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            dropout=self.dropout,
        )


@dataclass
class QuantileRegression(_Conditional):
    """Position of the signal in the distribution predicted for a non-member like this record (Bertran et al. 2023,
    "Scalable Membership Inference Attacks via Quantile Regression").

    Fitted on known non-members only. gaussian scores by (s - mu) / sigma, quantiles by -log10 of the share of
    non-members predicted to lie above. Deviations: the network reads columns (outputs for other views) instead of
    being fine-tuned on the image; quantiles are sorted so that they do not cross, interpolated between levels and
    extended beyond the last, so that few records tie.
    """

    head: Literal["gaussian", "quantiles"] = "gaussian"
    """gaussian predicts mean and standard deviation; quantiles predicts 41 levels from 0 to 0.9999."""

    non_member_model_: Regression | None = field(default=None, init=False, repr=False, compare=False)

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Fit the distribution of the non-members' signal.

        Raises:
            MIAError: fewer than two non-members.
        """
        self.inputs_ = self.inputs(table)
        inputs, signal, out = self.inputs_(table), single_column(table, self.column), member == 0
        self.non_member_model_ = self._fitted(inputs[out], signal[out], self.head, seed=seed, population="non-members")
        return self

    def score(self, table: SignalTable) -> Array:
        """Return the score, (N,)."""
        from mia_lightning.attacks._density_network import LEVELS, clipped

        assert self.inputs_ is not None, "fit comes before score"
        assert self.non_member_model_ is not None
        predicted = self.non_member_model_.predict(self.inputs_(table))
        signal = self.non_member_model_.standardized(single_column(table, self.column))
        if self.head == "gaussian":
            return np.asarray((signal - predicted[:, 0]) * np.exp(-clipped(predicted[:, 1])))
        return _tail_score(signal, np.sort(predicted, axis=1), -np.log10(1 - LEVELS))


def _tail_score(signal: Array, quantiles: Array, heights: Array) -> Array:
    """Return the height at which each row's ascending quantiles (N, L) are reached by the signal, in straight lines.

    Below the first and beyond the last quantile the line goes on with the row's mean slope.
    """
    last = quantiles.shape[1] - 1
    slope = (heights[-1] - heights[0]) / np.maximum(quantiles[:, -1] - quantiles[:, 0], 1e-6)
    above = (quantiles <= signal[:, None]).sum(axis=1)
    lower, upper = np.clip(above - 1, 0, last), np.clip(above, 0, last)
    rows = np.arange(len(signal))
    low, high = quantiles[rows, lower], quantiles[rows, upper]
    inner = heights[lower] + (heights[upper] - heights[lower]) * (signal - low) / np.maximum(high - low, 1e-12)
    outer = heights[lower] + slope * (signal - low)
    return np.asarray(np.where(lower == upper, outer, inner))
