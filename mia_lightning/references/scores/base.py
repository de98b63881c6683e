"""The contract of a score from reference models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.outputs import ReferenceOutputs

if TYPE_CHECKING:
    from mia_lightning.references.target_pool import TargetPool

Columns = dict[str, NDArray[np.float64]]


@dataclass
class ReferenceScore:
    """Comparison of the target's phi with that of reference models.

    A subclass is a dataclass: its fields are its options, their docstrings the help text. It never reads membership
    in the target's training set; it may pool anything over all records, since the references were drawn without it.
    """

    independent_references: ClassVar[bool] = True
    """Whether the references must be independent of the target: trained from random weights, not copies of it."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return finite (N,) columns by suffix.

        "" is the score, higher = more likely a member. Where the method gives them: "p_value", the chance that a
        non-member reaches this score, in (0, 1]; "standard_error" of the score, from the number of
        references. Any further suffix is a column for learned attacks.

        Raises:
            MIAError: fewer references IN or OUT than the method needs, with what is possible instead.
        """
        raise NotImplementedError

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model of a pool as the target of the others, (K, N).

        A score may override it by one pass over all targets; the values are those of `columns` for each target.
        """
        return np.stack([self.columns(pool.of_target(number))[""] for number in range(len(pool))])
