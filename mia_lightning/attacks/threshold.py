"""Threshold on one signal."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack
from mia_lightning.errors import MIAError
from mia_lightning.signals.table import SignalTable


@dataclass
class Threshold(Attack):
    """The signal itself as the score (Yeom et al. 2018 with the loss; Carlini et al. 2022 with phi)."""

    column: str = "phi"
    """The signal that ranks the records."""

    higher_is_member: bool = True
    """Whether members have the higher values; false for a loss or an entropy."""

    is_trainable: ClassVar[bool] = False

    def required_columns(self) -> tuple[str, ...]:
        """Return the one column."""
        return (self.column,)

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return the signal, negated where members have the lower values."""
        return single_column(table, self.column) * (1.0 if self.higher_is_member else -1.0)


def single_column(table: SignalTable, name: str) -> NDArray[np.float64]:
    """Return a column of one value per record, (N,) float64.

    Raises:
        MIAError: no such column, or it is wider than one value.
    """
    table.match((name,))
    column = table.columns[name]
    if column.ndim != 1:
        raise MIAError(f"signal {name!r} has {column.shape[1]} values per record; this attack ranks by a single one")
    return column.astype(np.float64)
