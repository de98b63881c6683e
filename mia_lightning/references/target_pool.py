"""Pool of models, each of which is a target with the others as its references.

Where every record is IN the same number of models, a target's own membership is the count of the others that it is IN.
There each target leaves out a partner besides itself, per record: a model of the other side, so that the counts IN and
OUT of every record are one less than in the pool, whatever the target's membership.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.moments import Array, GroupMoments, Moments, Statistic, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.probabilities import log_probability

BLOCK = 2**19
"""Values of phi worked on at once: 4 MiB in float64."""


@dataclass(frozen=True, eq=False)
class TargetPool:
    """phi of K models on N records under Q views; every model is a target once."""

    outputs: ReferenceOutputs
    """The models as references; its target is not read."""

    _moments: dict[str, LeaveOneOutMoments] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.outputs.references)

    @property
    def keep(self) -> NDArray[np.bool_]:
        """(K, N), the membership of each target."""
        return self.outputs.keep

    @cached_property
    def partner(self) -> NDArray[np.int16] | None:
        """(K, N) number of the model that target k leaves out for record i; None where counts IN vary by chance."""
        return partners(self.keep) if self.outputs.drawn is None else None

    def mate(self, number: int) -> tuple[int, ...]:
        """Return the model with the complementary records, if every model has one."""
        if self.partner is None or (self.partner != self.partner[:, :1]).any():
            return ()
        return (int(self.partner[number, 0]),)

    def of_target(self, number: int) -> ReferenceOutputs:
        """Return one model as the target and the others as its references."""
        numbers = np.delete(np.arange(len(self)), [number, *self.mate(number)])
        drawn = None if self.outputs.drawn is None else self.outputs.drawn[numbers]
        if self.partner is not None and not self.mate(number):
            drawn = numbers[:, None] != self.partner[number]
        return replace(
            self.outputs,
            target=np.asarray(self.outputs.references[number]),
            references=self.outputs.references[numbers],
            keep=self.keep[numbers],
            drawn=drawn,
        )

    def by_moments(self, statistic: Statistic, score: Callable[[Moments, NDArray[np.int64]], Array]) -> Array:
        """Return a score of the moments of both sides for every target, (K, N).

        Args:
            statistic: Reduction of phi over the views.
            score: From the moments and the labels (N,) to (N,).
        """
        if statistic not in self._moments:
            self._moments[statistic] = LeaveOneOutMoments.of(self, statistic)
        moments = self._moments[statistic]
        return np.stack([score(moments.of_target(k), self.outputs.labels) for k in range(len(self))])

    def by_probability(self, log_mean: Callable[[Array, Array, tuple[Array, Array]], Array]) -> Array:
        """Return log p of every model as target minus a log mean of its references, averaged over the views, (K, N).

        Args:
            log_mean: From the sums of p over the references IN and OUT, (K, n, Q) each, and their numbers (K, n, 1).

        Raises:
            MIAError: a record without references on a side.
        """
        score = np.empty(self.keep.shape)
        for rows, phi, keep in self.blocks():
            log_p = log_probability(phi)
            p = np.exp(log_p)
            same_side = np.where(keep[..., None], without_each(p, keep), without_each(p, ~keep))
            both_sides = (np.einsum("knq,kn->nq", p, keep), np.einsum("knq,kn->nq", p, ~keep))
            in_, out_ = self.sides(same_side, both_sides, rows)
            n_in = keep.sum(axis=0).astype(np.float64)
            counts = (n_in, len(keep) - n_in)
            n = self.sides(np.where(keep, *counts) - 1.0, counts, rows)
            if min(part.min() for part in n) < 1:
                raise MIAError("some records have no reference on a side once a model is the target; use more models")
            with np.errstate(divide="ignore"):
                mean = log_mean(in_, out_, (n[0][..., None], n[1][..., None]))
            score[:, rows] = (log_p - mean).mean(axis=-1)
        return score

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.bool_]]]:
        """Yield blocks of records with phi (K, n, Q) and keep (K, n)."""
        count, total, queries = self.outputs.references.shape
        width = max(1, BLOCK // max(1, count * queries))
        for start in range(0, total, width):
            rows = slice(start, min(start + width, total))
            yield rows, np.asarray(self.outputs.references[:, rows]), self.keep[:, rows]

    def sides(self, same_side: Array, both_sides: tuple[Array, Array], rows: slice) -> tuple[Array, Array]:
        """Return a statistic of the references IN and OUT of each target.

        Args:
            same_side: (K, n, ...) statistic of model k's side of each record, without k.
            both_sides: (n, ...) statistics of all models IN, and OUT.
            rows: The records of the block.
        """
        shape = (len(self), -1) + (1,) * (same_side.ndim - 2)
        keep = self.keep[:, rows].reshape(shape)
        if self.partner is None:
            return np.where(keep, same_side, both_sides[0]), np.where(keep, both_sides[1], same_side)
        other = np.take_along_axis(same_side, self.partner[:, rows].astype(np.intp).reshape(shape), axis=0)
        return np.where(keep, same_side, other), np.where(keep, other, same_side)


def partners(keep: NDArray[np.bool_]) -> NDArray[np.int16] | None:
    """Return a model of the other side for every model and record, (K, N); None unless all counts IN are K / 2.

    Each model is the partner of its partner. Where two models have complementary records they are partners throughout;
    else partners are matched at random within each record.
    """
    count = len(keep)
    if count % 2 or (keep.sum(axis=0) != count // 2).any():
        return None
    codes = {row.tobytes(): k for k, row in enumerate(keep)}
    mates = [codes.get((~row).tobytes()) for row in keep]
    if None not in mates and sorted(mates) == list(range(count)):  # type: ignore[type-var]
        return np.broadcast_to(np.array(mates, np.int16)[:, None], keep.shape)
    order = np.random.default_rng(0).random(keep.shape)
    in_order = np.where(keep, order, 2.0).argsort(axis=0)  # models IN first, then OUT, each at random
    result = np.empty(keep.shape, np.int16)
    half = count // 2
    np.put_along_axis(result, in_order, np.roll(in_order, half, axis=0).astype(np.int16), axis=0)
    return result


@dataclass(frozen=True, eq=False)
class LeaveOneOutMoments:
    """Moments of the references of every target, by one pass over phi.

    Without one of n values x the mean moves by (mean - x) / (n - 1) and the sum of squares falls by
    (x - mean)^2 n / (n - 1).
    """

    pool: TargetPool
    values: Array
    """(K, N) phi reduced over the views."""

    n: tuple[NDArray[np.int64], NDArray[np.int64]]
    mean: tuple[Array, Array]
    squares: tuple[Array, Array]
    """(N,) of all models IN, and OUT."""

    @classmethod
    def of(cls, pool: TargetPool, statistic: Statistic) -> LeaveOneOutMoments:
        """Reduce phi and take the moments of both sides of the pool."""
        values = np.empty(pool.keep.shape)
        for rows, phi, _ in pool.blocks():
            values[:, rows] = reduce_queries(phi, statistic)
        n, mean, squares = [], [], []
        for mask in pool.outputs.in_out_masks(slice(None)):
            count = mask.sum(axis=0)
            center = np.einsum("kn,kn->n", values, mask) / np.maximum(count, 1)
            gap = values - center
            gap *= mask
            n.append(count)
            mean.append(center)
            squares.append(np.einsum("kn,kn->n", gap, gap))
        return cls(pool, values, (n[0], n[1]), (mean[0], mean[1]), (squares[0], squares[1]))

    def of_target(self, number: int) -> Moments:
        """Return the moments of the references of one target."""
        keep, records = self.pool.keep[number], np.arange(self.values.shape[1])
        target = self.values[number]
        partner = self.pool.partner
        groups = []
        for side, own in ((0, keep), (1, ~keep)):
            removed = own if partner is None else np.ones_like(own)
            if self.pool.outputs.drawn is not None:
                removed = removed & self.pool.outputs.drawn[number]
            left_out = target if partner is None else np.where(own, target, self.values[partner[number], records])
            count = self.n[side] - removed
            gap = np.where(removed, self.mean[side] - left_out, 0.0)
            rest = np.maximum(count, 1)
            squares = np.maximum(self.squares[side] - gap**2 * (self.n[side] / rest), 1e-12 * self.squares[side])
            mean = self.mean[side] + gap / rest
            groups.append(GroupMoments(count, np.where(count > 0, mean, 0.0), np.where(count > 1, squares, 0.0)))
        return Moments(target, groups[0], groups[1])


def without_each(values: Array, mask: NDArray[np.bool_]) -> Array:
    """Return the sum over the masked models without each model in turn, (K, n, ...), without cancellation."""
    shown = np.where(mask.reshape(mask.shape + (1,) * (values.ndim - 2)), values, 0.0)
    result = np.zeros_like(shown)
    np.cumsum(shown[:-1], axis=0, out=result[1:])
    result[:-1] += np.cumsum(shown[:0:-1], axis=0)[::-1]
    return result
