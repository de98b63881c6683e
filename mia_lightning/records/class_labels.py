"""Labels of records in memory as class numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.vocabulary import UNKNOWN


def vocabulary(sides: Iterable[NDArray[Any] | None]) -> list[object]:
    """Return the labels of all sides in their order, for functions that return labels; numbers from 0 on."""
    values = [labels.reshape(len(labels), -1)[:, 0] for labels in sides if labels is not None]
    values = [part[~_is_missing(part)] for part in values]
    if not any(map(len, values)):
        return []
    unique = np.unique(np.concatenate(values))
    if unique.dtype.kind in "iufb":
        return list(range(int(unique.max()) + 1))
    return [str(label) for label in unique.tolist()]


def coded(labels: NDArray[Any] | None, count: int, name: str, classes: Sequence[object] | None) -> NDArray[Any]:
    """Return labels as class numbers (N,), -1 where one is missing; unchanged where the classes have no names.

    Args:
        labels: (N,), or one-hot (N, classes); None without labels.
        count: N.
        name: Of the side, for messages.
        classes: Label of each class, in the order of the target's outputs.

    Raises:
        MIAError: a label that is none of the classes.
    """
    if labels is None:
        return np.full(count, UNKNOWN)
    if classes is None or labels.ndim > 1:
        return labels
    index_of = {_key(label): number for number, label in enumerate(classes)}
    values = labels.tolist()
    numbers = np.array([index_of.get(_key(label), UNKNOWN) for label in values])
    if (unseen := (numbers == UNKNOWN) & ~_is_missing(labels)).any():
        label = values[int(np.argmax(unseen))]
        raise MIAError(
            f"{name} has label {printable(label, 40)!r}, which the model has not seen in fitting; its "
            f"{len(index_of)} classes are {printable(', '.join(map(str, list(index_of)[:5])), 80)}, …"
        )
    return numbers


def _is_missing(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (N,) True for None and NaN, which differs from itself."""
    return np.array([label is None or label != label for label in labels.tolist()], np.bool_)


def _key(label: object) -> str:
    return f"{label:g}" if isinstance(label, int | float) and not isinstance(label, bool) else str(label)
