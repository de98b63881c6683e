"""Sides of records in memory as `Records`: one layout, and labels as class numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.columns import make_records
from mia_lightning.records.in_memory import Batch
from mia_lightning.records.records import Records
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


def _coded(labels: NDArray[Any] | None, count: int, name: str, classes: Sequence[object] | None) -> NDArray[Any]:
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


def to_records(
    sides: Mapping[str, Batch], membership: Mapping[str, int], classes: Sequence[object] | None, *, first_id: int = 0
) -> Records:
    """Return the records of several sides, one after the other.

    Args:
        sides: Argument's name to its content, all in one layout (see `check_alike`).
        membership: Argument's name to 1, 0 or -1.
        classes: Label of each class, in the order of the target's outputs; None reads whole numbers as class numbers
            and names in alphabetical order.
        first_id: Of the first record; the others count on.

    Raises:
        MIAError: labels that are none of the classes, or another mistake that `Records` refuses.
    """
    inputs = np.concatenate([side.inputs for side in sides.values()])
    labels = [_coded(side.labels, len(side), name, classes) for name, side in sides.items()]
    first = next(iter(sides.values()))
    flags = np.concatenate([np.full(len(side), membership[name], np.int8) for name, side in sides.items()])
    other: dict[str, Any] = {} if inputs.ndim == 4 else {"feature_names": first.columns, "as_images": False}
    if inputs.ndim == 2 and first.features is None and inputs.dtype.kind == "f" and np.isnan(inputs).any():
        other["feature_names"] = [f"column {index}" for index in range(inputs.shape[1])]
    if first.features is not None:
        other["categories"] = first.features.categories
    return make_records(
        " and ".join(sides),
        np.moveaxis(inputs, -1, 1) if is_channels_last(inputs) else inputs,
        **other,
        ids=np.arange(first_id, first_id + len(inputs)),
        labels=np.concatenate(labels) if any((values != UNKNOWN).any() for values in labels) else None,
        membership=np.where(flags == UNKNOWN, np.nan, flags) if (flags == UNKNOWN).any() else flags,
    )


def is_channels_last(inputs: NDArray[Any]) -> bool:
    """Whether inputs are images (N, H, W, 1 or 3)."""
    return inputs.ndim == 4 and inputs.shape[3] in (1, 3) and inputs.shape[1] not in (1, 3)


def check_alike(sides: Mapping[str, Batch]) -> None:
    """Raise MIAError where sides differ in the shape of a record, in their columns or in having labels."""
    (name, first), *rest = sides.items()
    for other, side in rest:
        if side.columns != first.columns:
            names = [{*(part.columns or ())} for part in (first, side)]
            difference = printable(min(names[0] ^ names[1], default="their order"), 40)
            raise MIAError(f"{name} and {other} have different columns ({difference}); give both the same features")
        if side.inputs.shape[1:] != first.inputs.shape[1:]:
            raise MIAError(
                f"{name} has records of shape {first.inputs.shape[1:]} but {other} of {side.inputs.shape[1:]}; both "
                "must fit one model"
            )
        if first.inputs.ndim == 4 and (side.inputs.dtype == np.uint8) != (first.inputs.dtype == np.uint8):
            raise MIAError(
                f"{name} has images of {first.inputs.dtype} but {other} of {side.inputs.dtype}, on different scales; "
                "give both in one type"
            )
        if side.labels is not None and first.labels is not None and side.labels.shape[1:] != first.labels.shape[1:]:
            widths = [math.prod(part.labels.shape[1:]) for part in (first, side) if part.labels is not None]
            raise MIAError(
                f"{name} has {widths[0]} label{'s' * (widths[0] > 1)} per record but {other} {widths[1]}; give both "
                "the same labels"
            )
        if (side.labels is None) != (first.labels is None):
            lacking, having = (name, other) if first.labels is None else (other, name)
            raise MIAError(f"{having} has labels but {lacking} has none; give both, such as ({lacking}, labels)")
