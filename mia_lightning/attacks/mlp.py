"""A multi-layer perceptron over signals, trained through Lightning."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import ValidationRows
from mia_lightning.attacks.learned import FeatureScaler, LearnedAttack
from mia_lightning.signals.table import SignalTable

if TYPE_CHECKING:
    from mia_lightning.attacks._mlp_training import MLPTraining, Perceptrons


@dataclass
class MLP(LearnedAttack):
    """Multi-layer perceptrons trained with AdamW; the score is their mean output, log-odds where the loss is bce.

    Networks of an ensemble differ in initial weights, record order and dropout; they train as one stacked network.
    """

    hidden: list[int] = field(default_factory=lambda: [64, 32])
    """Width of each hidden layer."""

    ensemble_size: int = 1
    """Networks whose log-odds are averaged."""

    epochs: int = 100
    """Passes over the fitting rows."""

    batch_size: int = 200
    """Records per step and network."""

    learning_rate: float = 1e-3
    """Peak of the one-cycle cosine schedule, or the constant rate."""

    schedule: bool = False
    """Whether the learning rate rises over the first tenth of the steps and then falls to 0 along a cosine."""

    loss: Literal["bce", "focal", "pairwise", "partial_auc"] = "bce"
    """Cross-entropy; focal, which down-weights records that are already classified correctly; pairwise, a smooth AUC of
    the batch; or partial_auc, the same with the highest 5% of the batch's non-members."""

    weight_decay: float = 1e-4
    """Decoupled weight decay."""

    dropout: float = 0.0
    """Share of hidden units dropped while training."""

    accelerator: str = "cpu"
    """Lightning accelerator; a network this small gains little from a GPU."""

    inputs_: FeatureScaler | None = field(default=None, init=False, repr=False, compare=False)
    networks_: Perceptrons | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must hold widths of 1 or more, got {self.hidden}")
        for name in ("ensemble_size", "epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Train the networks; the validation rows' TPR at 5% and 1% FPR is reported after each epoch."""
        from mia_lightning.attacks._mlp_training import train_perceptrons

        self.inputs_ = self.inputs(table)
        watched = None if validation is None else (self.inputs_(validation.table), validation.member, validation.report)
        self.networks_ = train_perceptrons(self.training(), self.inputs_(table), member, seed=seed, watched=watched)
        return self

    def training(self) -> MLPTraining:
        """Return the shape and the optimization of the networks."""
        from mia_lightning.attacks._mlp_training import MLPTraining

        values = {f.name: getattr(self, f.name) for f in fields(MLPTraining)}
        return MLPTraining(**values | {"hidden": tuple(self.hidden)})

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return the mean log-odds of membership, (N,)."""
        assert self.inputs_ is not None, "fit comes before score"
        assert self.networks_ is not None
        return self.networks_.log_odds(self.inputs_(table))
