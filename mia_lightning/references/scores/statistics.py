"""Scores that need a single reference OUT, or none IN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores._moments import Statistic, moments
from mia_lightning.references.scores.base import Columns, ReferenceScore


@dataclass
class ReferenceFeatures(ReferenceScore):
    """Columns for learned attacks, from references on both sides of each record; no count of references is among them.

    Counts of a pool that was drawn together with the target would give membership away by themselves.
    """

    statistic: Statistic = "mean"
    """What is compared of the views of a record."""

    def columns(self, evidence: ReferenceOutputs) -> Columns:
        """Return LiRA's log ratio as score, and its parts.

        Raises:
            MIAError: no record has two references on a side.
        """
        from mia_lightning.references.scores._variance import log_density, log_upper_tail
        from mia_lightning.references.scores.lira import fit_sides

        fit = fit_sides(moments(evidence, self.statistic), "empirical_bayes", shrink_shift=True)
        inside, outside = fit.inside, fit.outside
        gap = fit.target - outside.center
        return {
            "": log_density(fit.target, **inside.density) - log_density(fit.target, **outside.density),
            "offline": -log_upper_tail(fit.target, **outside.density),
            "gap_out": gap,
            "gap_in": fit.target - inside.center,
            "u_out": gap / np.sqrt(outside.within),
            "center_out": outside.center,
            "shift": fit.shift,
            "scale_out": np.sqrt(outside.within),
            "scale_in": np.sqrt(inside.within),
        }
