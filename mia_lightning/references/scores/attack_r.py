"""Attack R: the target's loss among the losses of references OUT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mia_lightning.references.moments import Array, Mask, Statistic, blocks, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.scores.rmia import require_references


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
            target_loss = np.logaddexp(0.0, -reduce_queries(reference_outputs.target[rows], self.statistic))
            losses = np.logaddexp(0.0, -reduce_queries(reference_outputs.references[:, rows], self.statistic))
            reached[rows] = _reached(target_loss, losses, reference_outputs.in_out_masks(rows)[1], self.LARGEST)
        return {"": -reached, "p_value": np.maximum(reached, np.finfo(np.float64).tiny)}


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
