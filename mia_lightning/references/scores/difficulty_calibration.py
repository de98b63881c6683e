"""Difficulty calibration by the mean of reference models."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.moments import Array, Moments, Statistic, moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.target_pool import TargetPool
from mia_lightning.references.variances import standard_error_of_mean


@dataclass
class DifficultyCalibration(ReferenceScore):
    """phi of the target minus the mean of the references OUT (Watson et al. 2022, eq. 3, on phi instead of the loss).

    A record without a reference on a side takes the mean of the other side, moved by the mean distance of IN from OUT
    over all records.

    >>> import numpy as np
    >>> from mia_lightning.references.outputs import ReferenceOutputs
    >>> phi = np.array([[[2.0], [0.0]], [[1.0], [4.0]]], np.float32)  # 2 references, 2 records, 1 view
    >>> keep = np.array([[True, False], [False, True]])
    >>> target = np.array([[3.0], [1.0]], np.float32)
    >>> outputs = ReferenceOutputs(target, phi, keep, labels=np.array([0, 1]), num_classes=2)
    >>> DifficultyCalibration().columns(outputs)[""].tolist()
    [2.0, 1.0]
    >>> DifficultyCalibration(against="both").columns(outputs)[""].tolist()
    [1.5, -1.0]
    """

    independent_references: ClassVar[bool] = False

    statistic: Statistic = "mean"
    """Reduction of phi over the views of a record."""

    against: Literal["out", "both"] = "out"
    """Mean that is subtracted: of the references OUT, or the mean of the IN mean and the OUT mean (the offset of
    tensorflow/privacy, there with medians)."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score and its standard error from the number of references."""
        return self._columns(moments(reference_outputs, self.statistic))

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model as target, (K, N)."""
        return pool.by_moments(self.statistic, lambda group, _: group.target - self._center(group))

    def _center(self, group: Moments) -> Array:
        shift = mean_shift(group)
        has_in, has_out = group.in_.n > 0, group.out_.n > 0
        mean_out = np.where(has_out, group.out_.mean, group.in_.mean - shift)
        mean_in = np.where(has_in, group.in_.mean, group.out_.mean + shift)
        center = mean_out if self.against == "out" else (mean_in + mean_out) / 2
        return np.asarray(center)

    def _columns(self, group: Moments) -> Columns:
        has_in, has_out = group.in_.n > 0, group.out_.n > 0
        score = {"": group.target - self._center(group)}
        error_in, error_out = standard_error_of_mean(group.in_), standard_error_of_mean(group.out_)
        if error_out is None or (error_in is None and not (self.against == "out" and has_out.all())):
            return score
        if self.against == "out":
            error = error_out if error_in is None else np.where(has_out, error_out, error_in)
        else:
            assert error_in is not None
            both = np.hypot(error_in, error_out) / 2
            error = np.where(has_in & has_out, both, np.maximum(error_in, error_out))
        return score | {"standard_error": error}


def mean_shift(group: Moments) -> float:
    """Return the mean distance of IN from OUT, over records that have both where there are any, else of all means."""
    has_in, has_out = group.in_.n > 0, group.out_.n > 0
    both = has_in & has_out
    if both.any():
        return float((group.in_.mean - group.out_.mean)[both].mean())
    if not (has_in.any() and has_out.any()):
        return 0.0
    return float(group.in_.mean[has_in].mean() - group.out_.mean[has_out].mean())
