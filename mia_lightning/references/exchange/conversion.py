"""phi of logits, probabilities and losses that were stored elsewhere."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError

FORMS = ("phi", "logits", "probabilities", "losses")
"""Forms of stored outputs, the most exact first."""

BLOCK = 2**16
"""Records converted at once."""


LABELS = {"--references.imported": "--references.labels", "--pool": "--labels"}
"""Option that names a source to the option of its labels; a source named without an option has none."""


def to_phi(
    values: NDArray[Any], form: str, labels: NDArray[np.int64] | None, name: str, notes: list[str]
) -> NDArray[np.float32]:
    """Return phi (K, N, Q) of stored outputs of K models.

    Args:
        values: phi or losses (K, N[, Q]); logits (K, N[, Q], C); probabilities of all classes, as logits, or of the
            record's class, as phi.
        form: One of `FORMS`.
        labels: (N,) class indices, needed for outputs of all classes.
        name: The array, for messages.
        notes: Gets a sentence where values are rounded to 0 or 1.

    Raises:
        MIAError: outputs of all classes without labels, or values that are not finite.
    """
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise MIAError(f"{name}: holds {values.dtype}; expected numbers")
    if not np.isfinite(values).all():
        raise MIAError(
            f"{name}: {int((~np.isfinite(values)).sum())} values are NaN or infinite (a probability of exactly 0 or 1 "
            "gives such a phi); store logits instead, or compute phi from them"
        )
    by_class = form == "logits" or (form == "probabilities" and _sums_to_one(values))
    if by_class and values.ndim == 5 and values.shape[2] == 1:  # tensorflow/privacy: (N, 1, Q, C) of each model
        values = values[:, :, 0]
    if values.ndim != (3 if by_class else 2) and values.ndim != (4 if by_class else 3):
        shape = "(K, N, Q, C) or (K, N, C)" if by_class else "(K, N, Q) or (K, N)"
        raise MIAError(f"{name}: is {values.shape}; expected {shape}")
    if not by_class:
        values = values if values.ndim == 3 else values[..., None]
        return _of_values(values, form, name, notes).astype(np.float32)
    option = LABELS.get(name.split()[0])
    if labels is None:
        raise MIAError(
            f"{name}: holds outputs of all classes but there are no labels, without which phi is undefined; add labels "
            f"(N,) to it{f', or name their file by {option}' if option else ''}"
        )
    if len(labels) != values.shape[1]:
        raise MIAError(f"{name}: has {values.shape[1]} records but there are {len(labels)} labels; give one per record")
    if labels.max() >= values.shape[-1]:
        raise MIAError(
            f"{name}: has {values.shape[-1]} classes but a label is {labels.max()}; check {option or 'its labels'}"
        )
    values = values if values.ndim == 4 else values[:, :, None]
    return _of_classes(values, form, labels, name, notes)


def _sums_to_one(values: NDArray[Any]) -> bool:
    """Whether the last axis holds the probabilities of all classes."""
    sample = values[:, :1000]
    return values.ndim >= 3 and values.shape[-1] > 1 and bool(np.allclose(sample.sum(axis=-1), 1, atol=0.02))


def _of_values(values: NDArray[Any], form: str, name: str, notes: list[str]) -> NDArray[Any]:
    """Return phi, or phi of probabilities or losses of the record's class."""
    if form == "phi":
        return values
    if form == "losses":
        if values.min() < 0:
            raise MIAError(f"{name}: a cross-entropy loss is never negative, but {values.min():g} occurs")
        loss = np.maximum(values.astype(np.float64), np.finfo(values.dtype if values.dtype.kind == "f" else float).tiny)
        return np.asarray(-loss - np.log(-np.expm1(-loss)))
    if values.min() < 0 or values.max() > 1:
        raise MIAError(f"{name}: a probability lies between 0 and 1, but {values.min():g} to {values.max():g} occur")
    step = float(np.finfo(values.dtype if values.dtype.kind == "f" else np.float64).epsneg) / 2
    p = values.astype(np.float64)
    saturated = int((p > 1 - step).sum())
    if saturated:
        notes.append(
            f"{name}: {saturated:,} of {p.size:,} probabilities are rounded to 1, so these tie at phi = "
            f"{-np.log(step):.1f}; logits would keep them apart"
        )
    p = np.clip(p, np.finfo(np.float32).tiny, 1 - step)
    return np.log(p) - np.log1p(-p)


def _of_classes(
    values: NDArray[Any], form: str, labels: NDArray[np.int64], name: str, notes: list[str]
) -> NDArray[np.float32]:
    """Return phi of logits or probabilities (K, N, Q, C), in blocks of records."""
    from mia_lightning.signals import functional as F

    phi = np.empty(values.shape[:3], np.float32)
    saturated = 0
    for k, start in ((k, start) for k in range(len(values)) for start in range(0, values.shape[1], BLOCK)):
        rows = slice(start, start + BLOCK)
        block = values[k, rows].astype(np.float64)
        if form == "logits":
            phi[k, rows] = F.phi(block, labels[rows, None])
            continue
        if block.min() < 0:
            raise MIAError(f"{name}: a probability lies between 0 and 1, but {block.min():g} occurs")
        true_class = np.take_along_axis(block, labels[rows, None, None], axis=-1)[..., 0]
        other_classes = np.where(np.arange(block.shape[-1]) == labels[rows, None, None], 0.0, block).sum(axis=-1)
        saturated += int((other_classes == 0).sum())
        tiny = np.finfo(np.float32).tiny
        phi[k, rows] = np.log(np.maximum(true_class, tiny)) - np.log(np.maximum(other_classes, tiny))
    if saturated:
        notes.append(
            f"{name}: in {saturated:,} of {phi.size:,} rows the record's class has all of the probability, so these "
            "tie; logits would keep them apart"
        )
    return phi
