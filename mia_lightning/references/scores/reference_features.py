"""Statistics of references IN and OUT of each record, as columns for learned attacks."""

from dataclasses import dataclass

import numpy as np

from mia_lightning.references.moments import GroupMoments, Statistic, moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore


@dataclass
class ReferenceFeatures(ReferenceScore):
    """Columns for learned attacks from references IN and OUT of each record, without the counts of either.

    Where references were drawn together with the target, a count IN or OUT is membership itself. A variance shrunk by
    the count of one side is that count in disguise, so the scale is pooled over both sides, whose degrees of freedom
    do not depend on how many references are IN.
    """

    statistic: Statistic = "mean"
    """Reduction of phi over the views of a record."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return LiRA's log ratio as score, and its parts.

        Raises:
            MIAError: no record has two references on a side.
        """
        from mia_lightning.references.scores.lira import fit_groups
        from mia_lightning.references.variances import log_density, log_survival, prior_of, shrink_variance

        group_moments = moments(reference_outputs, self.statistic)
        fit = fit_groups(group_moments, "empirical_bayes", shrink_shift=True)
        gap = fit.target - fit.out_.center
        within = pooled(group_moments.in_, group_moments.out_)
        scale = np.sqrt(shrink_variance(within, prior_of(within))[0])
        return {
            "": log_density(fit.target, **fit.in_.density) - log_density(fit.target, **fit.out_.density),
            "offline": -log_survival(fit.target, **fit.out_.density),
            "gap_out": gap,
            "gap_in": fit.target - fit.in_.center,
            "u_out": gap / scale,
            "center_out": fit.out_.center,
            "shift": fit.shift,
            "scale": scale,
        }


def pooled(in_: GroupMoments, out_: GroupMoments) -> GroupMoments:
    """Return moments whose squares and degrees of freedom are the sums over both groups; the mean is meaningless."""
    freedom = in_.degrees_of_freedom + out_.degrees_of_freedom
    return GroupMoments(freedom + 1, np.zeros_like(in_.mean), in_.squares + out_.squares)
