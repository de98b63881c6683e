"""Scores that need a single reference OUT, or none IN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mia_lightning.references.moments import Statistic, moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.variances import standard_error_of_mean


@dataclass
class DifficultyCalibration(ReferenceScore):
    """Target minus the mean of the references OUT (Watson et al. 2022, eq. 3, on phi instead of the loss).

    A record without reference OUT takes the mean of those IN, less the mean distance of IN from OUT over all records.
    """

    statistic: Statistic = "mean"
    """What is compared of the views of a record."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score and its standard error from the number of references."""
        found = moments(reference_outputs, self.statistic)
        in_, out_ = found.in_, found.out_
        has_in, has_out = in_.n > 0, out_.n > 0
        both = has_in & has_out
        if both.any():
            shift = float((in_.mean - out_.mean)[both].mean())
        else:
            shift = float(in_.mean[has_in].mean() - out_.mean[has_out].mean()) if has_out.any() else 0.0
        score = {"": found.target - np.where(has_out, out_.mean, in_.mean - shift)}
        error, other = standard_error_of_mean(out_), standard_error_of_mean(in_)
        if error is None or (other is None and not has_out.all()):
            return score
        return score | {"standard_error": error if other is None else np.where(has_out, error, other)}
