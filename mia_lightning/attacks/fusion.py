"""Fusion of attacks by the ranks of their scores."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack
from mia_lightning.attacks.threshold import single_column
from mia_lightning.signals.table import SignalTable


@dataclass
class Fusion(Attack):
    """Equal-weight mean of the attacks' normal scores (van der Waerden).

    Ranks make scores of any scale comparable; the normal quantile of a rank preserves the top of the ranking, which
    determines the TPR at low false-positive rates. Nothing is fitted: ranks are taken among the records that are scored
    together.
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

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return the mean normal score, (N,)."""
        from scipy.special import ndtri
        from scipy.stats import rankdata

        names = table.match(self.members)
        ranks = np.stack([rankdata(single_column(table, name)) for name in names])
        return np.asarray(ndtri((ranks - 0.5) / len(table)).mean(axis=0), dtype=np.float64)
