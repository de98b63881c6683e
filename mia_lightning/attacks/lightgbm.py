"""Gradient-boosted trees over signals."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import ValidationRows
from mia_lightning.attacks.learned import FeatureScaler, LearnedAttack
from mia_lightning.signals.table import SignalTable


@dataclass
class LightGBM(LearnedAttack):
    """Gradient-boosted trees (LightGBM); the score is the raw log-odds."""

    n_estimators: int = 300
    """Number of boosting rounds."""

    learning_rate: float = 0.03
    """Shrinkage of each tree."""

    num_leaves: int = 15
    """Largest number of leaves of a tree."""

    max_depth: int = -1
    """Largest depth of a tree; -1 = unlimited."""

    min_child_samples: int = 100
    """Fewest records in a leaf."""

    l2: float = 0.0
    """L2 penalty on leaf values."""

    bagging_fraction: float = 1.0
    """Share of the records drawn for each tree."""

    feature_fraction: float = 1.0
    """Share of the inputs drawn for each tree."""

    n_jobs: int = 0
    """Threads; 0 = all cores."""

    inputs_: FeatureScaler | None = field(default=None, init=False, repr=False, compare=False)
    booster_: Any = field(default=None, init=False, repr=False, compare=False)

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Boost."""
        import lightgbm

        self.inputs_ = self.inputs(table)
        options = {
            "objective": "binary",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "max_depth": self.max_depth,
            "min_data_in_leaf": self.min_child_samples,
            "lambda_l2": self.l2,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": int(self.bagging_fraction < 1),
            "feature_fraction": self.feature_fraction,
            "num_threads": self.n_jobs,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,  # the automatic choice is timed, so it would differ from run to run
            "verbosity": -1,
        }
        data = lightgbm.Dataset(self.inputs_(table), label=member, params={"verbosity": -1})
        self.booster_ = lightgbm.train(options, data, num_boost_round=self.n_estimators)
        return self

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return the log-odds of membership, (N,)."""
        assert self.inputs_ is not None, "fit comes before score"
        return np.asarray(self.booster_.predict(self.inputs_(table), raw_score=True), dtype=np.float64)
