"""The contract of a signal: a plain function of the target's outputs, one value or vector per record."""

from collections.abc import Callable
from inspect import signature
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from mia_lightning.outputs.outputs import Outputs

Direction = Literal[1, -1, 0]
Need = Literal["features", "gradient_norms"]
Formula = TypeVar("Formula", bound=Callable[..., NDArray[np.floating]])


class Signal(Protocol):
    """A function marked by `signal`, or derived from a formula by `logit_signal`."""

    __name__: str

    direction: Direction
    """1 = higher means more likely a member, -1 = lower does, 0 = neither (vectors, contexts of other signals)."""

    per_query: bool
    """Whether the values are per query, (N, Q) or (N, Q, width), and still to be reduced over the queries."""

    multi_label: bool
    """Whether it is defined for multi-label targets, whose labels are (N, C) of 0 and 1."""

    needs: Need | None
    """The field of `Outputs` that may be empty and without which the signal has no value."""

    def __call__(self, outputs: Outputs, /) -> NDArray[np.floating]:
        """Return (N,) or (N, width), or with a query axis after the first if `per_query`; finite."""
        ...


def signal(
    *, direction: Direction, per_query: bool, needs: Need | None = None, multi_label: bool = False
) -> Callable[[Callable[[Outputs], NDArray[np.floating]]], Signal]:
    """Mark a function of the outputs as a signal; only attributes are added.

    The value of a record must depend on that record alone: tables are computed block by block, and a signal that
    looked at other records would carry them into folds where they do not belong.

    Args:
        direction: 1 = higher means more likely a member, -1 = lower does, 0 = neither.
        per_query: Whether the function returns one value per record and query, for the table to reduce.
        needs: The field of `Outputs` that must not be empty.
        multi_label: Whether it is defined for multi-label targets, whose labels are (N, C) of 0 and 1.
    """

    def mark(function: Callable[[Outputs], NDArray[np.floating]]) -> Signal:
        marked = cast(Signal, function)
        marked.direction, marked.per_query, marked.needs, marked.multi_label = direction, per_query, needs, multi_label
        return marked

    return mark


def logit_signal(*, direction: Direction, multi_label: bool = False) -> Callable[[Formula], Formula]:
    """Make a per-query signal of the same name from a formula of the logits; the formula itself is returned.

    The formula takes float64 logits (..., C), and where it has a second parameter int64 labels that broadcast to
    (...). It returns (...) or (..., width).

    Args:
        direction: 1 = higher means more likely a member, -1 = lower does, 0 = neither.
        multi_label: Whether the formula also takes labels (..., C) of 0 and 1, of multi-label targets.
    """

    def mark(formula: Formula) -> Formula:
        takes_labels = len(signature(formula).parameters) > 1

        @signal(direction=direction, per_query=True, multi_label=multi_label)
        def of_outputs(outputs: Outputs) -> NDArray[np.floating]:
            logits = outputs.logits.astype(np.float64)
            return formula(logits, outputs.labels[:, None]) if takes_labels else formula(logits)

        of_outputs.__name__, of_outputs.__doc__ = formula.__name__, formula.__doc__
        cast(Any, formula).signal = of_outputs
        return formula

    return mark
