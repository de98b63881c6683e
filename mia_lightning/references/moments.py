"""phi reduced over its queries, and moments of the references IN and OUT of each record."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.outputs import ReferenceOutputs

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

Statistic = Literal["mean", "original", "contrast", "spread"]
"""Statistic of the views of a record: their mean, the stored image alone, the stored pixels (and their mirror)
against the shifted ones, or the standard deviation over all views."""

BLOCK = 2**22
"""Values of phi worked on at once: 32 MiB in float64."""

NEAR = 2**16
"""Values that several passes go over: 512 KiB in float64, which stay near the processor."""


def reduce_queries(phi: NDArray[np.floating], statistic: Statistic) -> Array:
    """Return one value per record, (..., Q) to (...), in float64.

    Raises:
        MIAError: too few queries for the statistic.
    """
    queries = phi.shape[-1]
    if statistic == "original":
        return np.asarray(phi[..., 0], np.float64)
    if statistic == "mean":
        return np.asarray(phi.mean(axis=-1, dtype=np.float64))
    if queries <= 2:
        raise MIAError(
            f"statistic {statistic} needs shifted views, but there are {queries} views per record; set "
            "--extraction.queries 18 (and --references.queries, if given)"
        )
    values = phi.astype(np.float64)
    if statistic == "spread":
        return np.asarray(values.std(axis=-1))
    stored = (values[..., 0] + values[..., queries // 2]) / 2
    return np.asarray((stored * queries - values.sum(axis=-1)) / (queries - 2))


def blocks(reference_outputs: ReferenceOutputs) -> list[slice]:
    """Return slices over the records, small enough that memory does not grow with them."""
    count, total, queries = reference_outputs.references.shape
    rows = max(1, BLOCK // max(1, count * queries))
    return [slice(start, min(start + rows, total)) for start in range(0, total, rows)]


@dataclass(frozen=True, eq=False)
class GroupMoments:
    """The references IN or OUT of each record."""

    n: NDArray[np.int64]
    """(N,) how many."""

    mean: Array
    """(N,) 0 where there are none; (N, Q) where each query stands by itself."""

    squares: Array
    """Sum of squared distances from the mean, shaped as it is."""

    @cached_property
    def degrees_of_freedom(self) -> NDArray[np.int64]:
        """(N,) degrees of freedom of the variance, n - 1, at least 0."""
        return np.maximum(self.n - 1, 0)


@dataclass(frozen=True, eq=False)
class Moments:
    """One statistic of target and references."""

    target: Array
    """(N,), or (N, Q) where each query stands by itself."""

    in_: GroupMoments
    out_: GroupMoments


def moments(reference_outputs: ReferenceOutputs, statistic: Statistic) -> Moments:
    """Reduce phi over its queries and take the moments of both sides, in blocks of records."""
    return _moments(reference_outputs, lambda phi: reduce_queries(phi, statistic))


def query_moments(reference_outputs: ReferenceOutputs) -> Moments:
    """Take the moments of every query by itself: target, means and squares are (N, Q), counts (N,)."""
    return _moments(reference_outputs, lambda phi: phi.astype(np.float64))


def _moments(reference_outputs: ReferenceOutputs, reduce: Callable[[NDArray[np.float32]], Array]) -> Moments:
    reference_outputs.require_covered()
    in_out_masks: tuple[list[GroupMoments], list[GroupMoments]] = ([], [])
    for rows in blocks(reference_outputs):
        values = reduce(reference_outputs.references[:, rows])
        for groups, mask in zip(in_out_masks, reference_outputs.in_out_masks(rows), strict=True):
            groups.append(group_moments(values, mask))
    in_, out_ = (
        GroupMoments(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("n", "mean", "squares")))
        for parts in in_out_masks
    )
    return Moments(reduce(reference_outputs.target), in_, out_)


def group_moments(values: Array, mask: Mask) -> GroupMoments:
    """Return the moments of masked values (K, n, ...) over the first axis; the mask is (K, n)."""
    n = mask.sum(axis=0)
    mean, squares = np.empty(values.shape[1:]), np.empty(values.shape[1:])
    width = max(1, NEAR // max(1, values[:, :1].size))
    each = mask.reshape(mask.shape + (1,) * (values.ndim - 2))
    for start in range(0, len(n), width):
        part = slice(start, start + width)
        shown = each[:, part]
        gaps = np.where(shown, values[:, part], 0.0)
        mean[part] = gaps.sum(axis=0) / np.maximum(n[part], 1).reshape(shown.shape[1:])
        gaps -= mean[part]
        gaps *= gaps
        gaps *= shown
        squares[part] = gaps.sum(axis=0)
    return GroupMoments(n, mean, squares)


def log_mean_exp(values: Array, mask: Mask) -> Array:
    """Return log mean exp over the masked entries of the first axis; -inf where there are none."""
    shown = np.where(mask, values, -np.inf)
    top = shown.max(axis=0, initial=-np.inf)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(safe + np.log(np.exp(shown - safe).sum(axis=0) / np.maximum(mask.sum(axis=0), 1)))


def masked_median(values: Array, mask: Mask) -> Array:
    """Return the median over the masked entries of the first axis; 0 where there are none."""
    mask = np.broadcast_to(mask, values.shape)
    ordered = np.sort(np.where(mask, values, np.inf), axis=0)
    n = mask.sum(axis=0)
    low, high = np.maximum(n - 1, 0) // 2, np.maximum(n, 1) // 2
    middle = (np.take_along_axis(ordered, k[None], axis=0)[0] for k in (low, np.minimum(high, len(values) - 1)))
    below, above = middle
    return np.where(n > 0, (below + above) / 2, 0.0)
