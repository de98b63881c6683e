"""Attack R: the target's loss among the losses of references OUT."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.moments import Array, Mask, Statistic, blocks, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.probabilities import log_probability
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.scores.rmia import require_references
from mia_lightning.references.target_pool import TargetPool


@dataclass
class AttackR(ReferenceScore):
    """Share of references OUT whose loss exceeds the target's (Ye et al. 2022, Attack R).

    As in the authors' code, the distribution of the losses runs in straight lines through (0, 0), the sorted losses at
    j / (K + 1), and (1000, 1). With few references most records tie or nearly tie; LiRA offline does not.
    """

    statistic: Statistic = "mean"
    """Reduction of phi over the views of a record, from which the loss is computed."""

    LARGEST = 1000.0
    """Loss at which the distribution reaches 1."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score and, the same thing turned, the OUT p-value.

        Raises:
            MIAError: a record without references OUT.
        """
        require_references(reference_outputs, need_in=False)
        reached = np.empty(len(reference_outputs))
        for rows in blocks(reference_outputs):
            target_loss = -log_probability(reduce_queries(reference_outputs.target[rows], self.statistic))
            losses = -log_probability(reduce_queries(reference_outputs.references[:, rows], self.statistic))
            reached[rows] = _reached(target_loss, losses, reference_outputs.in_out_masks(rows)[1], self.LARGEST)
        return {"": -reached, "p_value": np.maximum(reached, np.finfo(np.float64).tiny)}

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model as target, (K, N), from one sort of each record's losses OUT."""
        if pool.outputs.drawn is not None:
            return super().of_targets(pool)
        score = np.empty(pool.keep.shape)
        for rows, phi, keep in pool.blocks():
            losses = -log_probability(reduce_queries(phi, self.statistic))
            padded = np.vstack([np.where(keep, np.inf, losses), np.full((2, losses.shape[1]), np.inf)])
            ordered, n = np.sort(padded, axis=0), (~keep).sum(axis=0)
            columns = np.arange(losses.shape[1])
            for k, loss in enumerate(losses):
                other = np.nan if pool.partner is None else losses[pool.partner[k, rows], columns]
                removed = np.where(keep[k], other, loss)
                score[k, rows] = -_reached_without(loss, ordered, n, removed, self.LARGEST)
        return score


def _reached_without(loss: Array, ordered: Array, n: Array, removed: Array, largest: float) -> Array:
    """Return `_reached` of sorted losses (K + 2, n) without one of them per record; NaN = none is removed."""
    below = (ordered < loss).sum(axis=0)
    columns = np.arange(len(loss))
    lower = np.where(below > 0, ordered[below - 1, columns], 0.0)
    upper = ordered[below, columns]
    lower = np.where(lower == removed, np.where(below > 1, ordered[below - 2, columns], 0.0), lower)
    upper = np.minimum(np.where(upper == removed, ordered[below + 1, columns], upper), largest)
    below = below - (removed < loss)
    count = n - ~np.isnan(removed)
    at_upper = np.where(below == count, 1.0, (below + 1) / (count + 1))
    at_lower = below / (count + 1)
    share = np.clip((loss - lower) / np.maximum(upper - lower, 1e-300), 0.0, 1.0)
    return np.asarray(at_lower + share * (at_upper - at_lower))


def _reached(target_loss: Array, losses: Array, out_: Mask, largest: float) -> Array:
    """Return the value of each record's own distribution at its loss, (n,) in [0, 1]."""
    n = out_.sum(axis=0)
    ordered = np.sort(np.where(out_, losses, np.inf), axis=0)
    below = (ordered < target_loss).sum(axis=0)
    knots = np.concatenate([np.zeros((1, len(target_loss))), ordered, np.full((1, len(target_loss)), np.inf)])
    lower = np.take_along_axis(knots, below[None], axis=0)[0]
    upper = np.minimum(np.take_along_axis(knots, below[None] + 1, axis=0)[0], largest)
    last = below == n
    right_height = np.where(last, 1.0, (below + 1) / (n + 1))
    left_height = below / (n + 1)
    share = np.clip((target_loss - lower) / np.maximum(upper - lower, 1e-300), 0.0, 1.0)
    return np.asarray(left_height + share * (right_height - left_height))
