"""Equal-weight fusion of other attacks by rank."""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack, ValidationRows
from mia_lightning.attacks.threshold import single_column
from mia_lightning.signals.table import SignalTable


@dataclass
class Fusion(Attack):
    """Mean of the normal scores of the members' ranks, all at the same weight.

    Ranks make scores of any scale comparable; the normal quantile of a rank (van der Waerden) keeps the top of the
    ranking, where low false-positive rates are decided, from being averaged away. Nothing is learned: ranks are taken
    among the records that are scored together.
    """

    members: list[str] = field(default_factory=list)
    """Names of earlier attacks (or signals for which higher = member)."""

    is_trainable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members must name at least one earlier attack")

    def required_columns(self) -> tuple[str, ...]:
        """Return the members."""
        return tuple(self.members)

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Learn nothing."""
        return self

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return the mean normal score, (N,)."""
        from scipy.special import ndtri
        from scipy.stats import rankdata

        names = table.match(self.members)
        ranks = np.stack([rankdata(single_column(table, name)) for name in names])
        return np.asarray(ndtri((ranks - 0.5) / len(table)).mean(axis=0), dtype=np.float64)
