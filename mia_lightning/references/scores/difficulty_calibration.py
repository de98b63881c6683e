"""Scores that need a single reference OUT, or none IN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores._moments import Statistic, moments
from mia_lightning.references.scores._variance import error_of_mean
from mia_lightning.references.scores.base import Columns, ReferenceScore


@dataclass
class DifficultyCalibration(ReferenceScore):
    """Target minus the mean of the references OUT (Watson et al. 2022, eq. 3, on phi instead of the loss).

    A record without reference OUT takes the mean of those IN, less the mean distance of IN from OUT over all records.
    """

    statistic: Statistic = "mean"
    """What is compared of the views of a record."""

    def columns(self, evidence: ReferenceOutputs) -> Columns:
        """Return the score and its standard error from the number of references."""
        found = moments(evidence, self.statistic)
        inside, outside = found.inside, found.outside
        has_in, has_out = inside.n > 0, outside.n > 0
        both = has_in & has_out
        if both.any():
            shift = float((inside.mean - outside.mean)[both].mean())
        else:
            shift = float(inside.mean[has_in].mean() - outside.mean[has_out].mean()) if has_out.any() else 0.0
        score = {"": found.target - np.where(has_out, outside.mean, inside.mean - shift)}
        error, other = error_of_mean(outside), error_of_mean(inside)
        if error is None or (other is None and not has_out.all()):
            return score
        return score | {"standard_error": error if other is None else np.where(has_out, error, other)}
