"""Scores that need a single reference OUT, or none IN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mia_lightning.likelihoods._moments import Array, Statistic, blocks, moments, reduce_queries
from mia_lightning.likelihoods._variance import error_of_mean
from mia_lightning.likelihoods.base import Columns, ReferenceScore
from mia_lightning.likelihoods.rmia import check_sides
from mia_lightning.tables import Evidence


@dataclass
class DifficultyCalibration(ReferenceScore):
    """Target minus the mean of the references OUT (Watson et al. 2022, eq. 3, on phi instead of the loss).

    A record without reference OUT takes the mean of those IN, less the mean distance of IN from OUT over all records.
    """

    statistic: Statistic = "mean"
    """What is compared of the views of a record."""

    def columns(self, evidence: Evidence) -> Columns:
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


@dataclass
class AttackR(ReferenceScore):
    """Share of references OUT whose loss exceeds the target's (Ye et al. 2022, Attack R).

    As in the authors' code, the distribution of the losses runs in straight lines through (0, 0), the sorted losses at
    j / (K + 1), and (1000, 1). With few references most records tie or nearly tie; LiRA offline does not.
    """

    statistic: Statistic = "mean"
    """Of phi, from which the loss is taken."""

    LARGEST = 1000.0
    """Loss at which the distribution reaches 1."""

    def columns(self, evidence: Evidence) -> Columns:
        """Return the score and, the same thing turned, the OUT p-value.

        Raises:
            MIAError: a record without references OUT.
        """
        check_sides(evidence, need_in=False)
        reached = np.empty(len(evidence))
        for rows in blocks(evidence):
            own = np.logaddexp(0.0, -reduce_queries(evidence.target[rows], self.statistic))
            losses = np.logaddexp(0.0, -reduce_queries(evidence.references[:, rows], self.statistic))
            reached[rows] = _reached(own, losses, evidence.sides(rows)[1], self.LARGEST)
        return {"": -reached, "p_value": np.maximum(reached, np.finfo(np.float64).tiny)}


def _reached(
    own: Array, losses: Array, outside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], largest: float
) -> Array:
    """Return the value of each record's own distribution at its loss, (n,) in [0, 1]."""
    n = outside.sum(axis=0)
    ordered = np.sort(np.where(outside, losses, np.inf), axis=0)
    below = (ordered < own).sum(axis=0)
    knots = np.concatenate([np.zeros((1, len(own))), ordered, np.full((1, len(own)), np.inf)])
    left = np.take_along_axis(knots, below[None], axis=0)[0]
    right = np.minimum(np.take_along_axis(knots, below[None] + 1, axis=0)[0], largest)
    last = below == n
    right_height = np.where(last, 1.0, (below + 1) / (n + 1))
    left_height = below / (n + 1)
    share = np.clip((own - left) / np.maximum(right - left, 1e-300), 0.0, 1.0)
    return np.asarray(left_height + share * (right_height - left_height))


@dataclass
class ReferenceStatistics(ReferenceScore):
    """Columns for learned attacks, from references on both sides of each record; no count of references is among them.

    Counts of a pool that was drawn together with the target would give membership away by themselves.
    """

    statistic: Statistic = "mean"
    """What is compared of the views of a record."""

    def columns(self, evidence: Evidence) -> Columns:
        """Return LiRA's log ratio as score, and its parts.

        Raises:
            MIAError: no record has two references on a side.
        """
        from mia_lightning.likelihoods._variance import log_density, log_upper_tail
        from mia_lightning.likelihoods.lira import fit_sides

        fit = fit_sides(moments(evidence, self.statistic), "empirical_bayes", shrink_shift=True)
        inside, outside = fit.inside, fit.outside
        gap = fit.target - outside.centre
        return {
            "": log_density(fit.target, **inside.density) - log_density(fit.target, **outside.density),
            "offline": -log_upper_tail(fit.target, **outside.density),
            "gap_out": gap,
            "gap_in": fit.target - inside.centre,
            "u_out": gap / np.sqrt(outside.within),
            "centre_out": outside.centre,
            "shift": fit.shift,
            "scale_out": np.sqrt(outside.within),
            "scale_in": np.sqrt(inside.within),
        }
