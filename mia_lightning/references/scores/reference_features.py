"""Scores that need a single reference OUT, or none IN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mia_lightning.references.moments import Statistic, moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore


@dataclass
class ReferenceFeatures(ReferenceScore):
    """Columns for learned attacks, from references on both sides of each record; no count of references is among them.

    Counts of a pool that was drawn together with the target would give membership away by themselves.
    """

    statistic: Statistic = "mean"
    """What is compared of the views of a record."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return LiRA's log ratio as score, and its parts.

        Raises:
            MIAError: no record has two references on a side.
        """
        from mia_lightning.references.scores.lira import fit_groups
        from mia_lightning.references.variances import log_density, log_survival

        fit = fit_groups(moments(reference_outputs, self.statistic), "empirical_bayes", shrink_shift=True)
        in_, out_ = fit.in_, fit.out_
        gap = fit.target - out_.center
        return {
            "": log_density(fit.target, **in_.density) - log_density(fit.target, **out_.density),
            "offline": -log_survival(fit.target, **out_.density),
            "gap_out": gap,
            "gap_in": fit.target - in_.center,
            "u_out": gap / np.sqrt(out_.within),
            "center_out": out_.center,
            "shift": fit.shift,
            "scale_out": np.sqrt(out_.within),
            "scale_in": np.sqrt(in_.within),
        }
