"""Differences from single references, for learned attacks where references are too few for statistics over them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.moments import Array, Mask, Statistic, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore

QUANTILES = np.linspace(0, 1, 101)


@dataclass
class PerReferenceDifference(ReferenceScore):
    """The target's phi minus that of single references (Watson et al. 2022, difficulty calibration, one by one).

    The score is the mean difference from all references, with phi of a reference IN the record mapped to what it would
    be OUT of it: the quantiles of its phi IN onto those OUT. The columns in_0, in_1, ... and out_0, out_1, ... are the
    differences from a record's first references IN and OUT, as many as every record has. So no column is empty for
    some records, and none holds which or how many references are IN.
    """

    independent_references: ClassVar[bool] = False

    statistic: Statistic = "mean"
    """Reduction of phi over the views of a record."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the mean difference as score, and the differences from references IN and OUT."""
        reference_outputs.require_covered()
        target = reduce_queries(reference_outputs.target, self.statistic)
        in_, out_ = reference_outputs.in_out_masks(slice(None))
        total, count = np.zeros(len(target)), np.maximum((in_ | out_).sum(axis=0), 1)
        gaps = {
            f"{name}_{rank}": np.zeros(len(target))
            for name, mask in (("in", in_), ("out", out_))
            for rank in range(int(mask.sum(axis=0).min()))
        }
        for k, phi in enumerate(reference_outputs.references):
            values = reduce_queries(phi, self.statistic)
            total += np.where(in_[k] | out_[k], target - out_equivalent(values, in_[k], out_[k]), 0.0)
            for name, mask in (("in", in_), ("out", out_)):
                rank = mask[:k].sum(axis=0)
                for number in np.unique(rank[mask[k]]):
                    if f"{name}_{number}" in gaps:
                        rows = mask[k] & (rank == number)
                        gaps[f"{name}_{number}"][rows] = (target - values)[rows]
        return {"": total / count} | gaps


def out_equivalent(values: Array, in_: Mask, out_: Mask) -> NDArray[np.float64]:
    """Return one reference's values (N,) with those IN mapped by quantiles onto the distribution of those OUT.

    Beyond the outermost quantiles the map is a shift; where all records are on one side nothing is mapped.
    """
    if not in_.any() or not out_.any():
        return values
    start, end = (np.quantile(values[mask], QUANTILES) for mask in (in_, out_))
    start = start + np.arange(len(start)) * np.finfo(np.float64).eps * max(1.0, float(np.abs(start).max()))
    moved = np.interp(values, start, end)
    moved = moved + np.minimum(values - start[0], 0.0) + np.maximum(values - start[-1], 0.0)
    return np.where(in_, moved, values)
