"""The contract of every attack: fit on rows of known membership, score any rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.signals.table import SignalTable


@dataclass(frozen=True, eq=False)
class ValidationRows:
    """Rows to evaluate during training, for display only, and the callback for the figures."""

    table: SignalTable
    member: NDArray[np.int8]
    """(N,) 1 or 0."""

    report: Callable[[int, Mapping[str, float]], None]
    """Called with (epoch, {name: value}) once per epoch."""


@dataclass
class Attack:
    """Base class: a membership score computed from signals.

    A subclass is a dataclass: its fields are its hyper-parameters, their docstrings the help text; fitted attributes
    end in an underscore.
    """

    is_trainable: ClassVar[bool] = True
    """False where `fit` reads neither the fitting rows nor their membership."""

    def required_columns(self) -> tuple[str, ...]:
        """Return the columns that the attack reads: signals by name or shell pattern, earlier attacks by full name."""
        raise NotImplementedError

    def fit(
        self, table: SignalTable, member: NDArray[np.int8], *, seed: int = 0, validation: ValidationRows | None = None
    ) -> Self:
        """Fit on rows of known membership and return self.

        Args:
            table: N rows.
            member: (N,) 1 = member, 0 = non-member.
            seed: Random seed.
            validation: Rows to evaluate after each epoch, if the attack has epochs.
        """
        if self.is_trainable:
            raise NotImplementedError
        return self

    def score(self, table: SignalTable) -> NDArray[np.float64]:
        """Return (N,) finite scores on an additive scale (log-odds, log-ratio, rank), higher = more likely a member."""
        raise NotImplementedError
