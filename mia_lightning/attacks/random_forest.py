"""A random forest over signals."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import ValidationRows
from mia_lightning.attacks.learned import FeatureScaler, LearnedAttack
from mia_lightning.signals.table import SignalTable


@dataclass
class RandomForest(LearnedAttack):
    """Random forest (scikit-learn); the score is the mean of the trees' leaf fractions, in [0, 1]."""

    n_estimators: int = 300
    """Number of trees."""

    max_depth: int | None = None
    """Largest depth of a tree; none = unlimited."""

    min_samples_split: int = 2
    """Fewest records in a node that may be split."""

    min_samples_leaf: int = 20
    """Fewest records in a leaf; small leaves make many tied scores."""

    max_features: float | None = None
    """Share of the inputs tried at a split; none = their square root."""

    n_jobs: int = -1
    """Threads; -1 = all cores."""

    inputs_: FeatureScaler | None = field(default=None, init=False, repr=False, compare=False)
    forest_: Any = field(default=None, init=False, repr=False, compare=False)

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Grow the trees."""
        from sklearn.ensemble import RandomForestClassifier

        self.inputs_ = self.inputs(table)
        self.forest_ = RandomForestClassifier(
            n_estimators=self.n_estimators,
            max_depth=self.max_depth,
            min_samples_split=self.min_samples_split,
            min_samples_leaf=self.min_samples_leaf,
            max_features=self.max_features or "sqrt",
            n_jobs=self.n_jobs,
            random_state=seed,
        )
        self.forest_.fit(self.inputs_(table), member)
        self.forest_.set_params(n_jobs=1)  # threads add up the trees in any order, which would change the last digit
        return self

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return the share of members in the leaves, (N,) in [0, 1]."""
        assert self.inputs_ is not None, "fit comes before score"
        return np.asarray(self.forest_.predict_proba(self.inputs_(table))[:, 1], dtype=np.float64)
