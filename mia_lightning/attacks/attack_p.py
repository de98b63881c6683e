"""Attack P, over all non-members or within the class."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack, ValidationRows
from mia_lightning.attacks.threshold import single_column
from mia_lightning.signals.table import SignalTable


@dataclass
class AttackP(Attack):
    """Attack P (Ye et al. 2022): -log of the conformal p-value of the signal among known non-members.

    Within the record's class, one threshold on it is one threshold per class (Song & Mittal 2021). Deviations: the
    p-value of a class of n non-members is mixed with the one over all classes at weight n / (n + shrinkage), and it is
    interpolated between the known non-members so that few records tie.
    """

    column: str = "phi"
    """The signal that is compared."""

    higher_is_member: bool = True
    """Whether members have the higher values."""

    per_class: bool = True
    """Whether a record is compared with the non-members of its own class; false is plain Attack P."""

    shrinkage: float = 50.0
    """Non-members at which a class's own p-value and the overall one weigh the same."""

    classes_: dict[int, NDArray[np.float64]] = field(default_factory=dict, init=False, repr=False, compare=False)
    pool_: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.shrinkage < 0:
            raise ValueError(f"shrinkage must be 0 or more, got {self.shrinkage}")

    def required_columns(self) -> tuple[str, ...]:
        """Return the one column."""
        return (self.column,)

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Keep the sorted signal of the non-members, by class and over all."""
        signal, out = self._signal(table), member == 0
        self.pool_ = np.sort(signal[out])
        labels = np.unique(table.labels[out]) if self.per_class else ()
        self.classes_ = {int(y): np.sort(signal[out & (table.labels == y)]) for y in labels}
        return self

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return -log p, (N,) in [0, log(n + 1)]."""
        signal = self._signal(table)
        p_value = _p_value(signal, self.pool_)
        for label, non_members in self.classes_.items():
            rows = table.labels == label
            weight = len(non_members) / (len(non_members) + self.shrinkage)
            p_value[rows] = weight * _p_value(signal[rows], non_members) + (1 - weight) * p_value[rows]
        return -np.log(p_value)

    def _signal(self, table: SignalTable) -> NDArray[np.float64]:
        return single_column(table, self.column) * (1.0 if self.higher_is_member else -1.0)


def _p_value(signal: NDArray[np.float64], non_members: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (1 + number of the n sorted values that are at least the signal) / (n + 1), interpolated between them."""
    n = len(non_members)
    return np.interp(signal, non_members, np.arange(n + 1, 1, -1) / (n + 1), left=1.0, right=1 / (n + 1))
