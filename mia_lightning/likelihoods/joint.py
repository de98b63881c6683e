"""LiRA over all views of a record at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mia_lightning.likelihoods._moments import Array, Moments, Side, blocks, query_moments
from mia_lightning.likelihoods._variance import log_multivariate_density, log_upper_tail
from mia_lightning.likelihoods.base import Columns, ReferenceScore
from mia_lightning.likelihoods.lira import FittedSide, FittedSides, fit_sides
from mia_lightning.tables import Evidence


@dataclass
class JointLiRA(ReferenceScore):
    """Likelihood ratio of the vector of phi over all views (Carlini et al. 2022, section VI-C, multivariate form).

    The paper estimates a full covariance for every record, which needs more references on a side than there are views.
    Here a record has only its own scale per view, shrunk as `LiRA` shrinks it, and the correlation between views is
    one per side, pooled within records and shrunk towards independence: Sigma = D R D. online is the difference of two
    log densities, multivariate normal or Student's t. offline is one-sided: -log Pr[OUT >= u], with u the weighted
    mean of the views' distances from OUT that tells a common shift best, its weights R^-1 1.
    """

    mode: Literal["online", "offline"] = "online"
    """Whether references IN the record are compared too."""

    correlation_shrinkage: float = 0.1
    """Weight of independence against the pooled correlation of the views, in [0, 1]."""

    density: Literal["normal", "student"] = "student"
    """student widens the density by what few references leave unknown of the variance."""

    shrink_shift: bool = True
    """As of LiRA."""

    def __post_init__(self) -> None:
        if not 0 <= self.correlation_shrinkage <= 1:
            raise ValueError(f"correlation_shrinkage must lie in [0, 1], got {self.correlation_shrinkage}")

    def columns(self, evidence: Evidence) -> Columns:
        """Return the score, and offline the OUT p-value.

        Raises:
            MIAError: no record has two references on a side.
        """
        found = query_moments(evidence)
        views = [_of_query(found, query) for query in range(found.target.shape[1])]
        fits = [fit_sides(view, "empirical_bayes", shrink_shift=self.shrink_shift) for view in views]
        outside = [fit.outside for fit in fits]
        gap_out = _standardised(fits, outside)
        correlation_out = self._correlation(evidence, found, outside, inside=False)
        freedom_out = self._freedom(outside)
        if self.mode == "offline":
            weights = np.linalg.solve(correlation_out, np.ones(len(fits)))
            u = gap_out @ weights / np.sqrt(weights.sum())
            tail = log_upper_tail(u, centre=np.zeros_like(u), variance=np.ones_like(u), freedom=freedom_out)
            return {"": -tail, "p_value": np.maximum(np.exp(tail), np.finfo(np.float64).tiny)}
        inside = [fit.inside for fit in fits]
        correlation_in = self._correlation(evidence, found, inside, inside=True)
        score = log_multivariate_density(_standardised(fits, inside), correlation_in, self._freedom(inside))
        score -= log_multivariate_density(gap_out, correlation_out, freedom_out)
        return {"": score - _log_scales(inside) + _log_scales(outside)}

    def _freedom(self, sides: list[FittedSide]) -> Array:
        """Return degrees of freedom per record, (N,): the mean over its views."""
        if self.density == "normal":
            return np.full(len(sides[0].freedom), np.inf)
        return np.asarray(np.mean([side.freedom for side in sides], axis=0))

    def _correlation(self, evidence: Evidence, found: Moments, sides: list[FittedSide], *, inside: bool) -> Array:
        """Return the correlation between views of single models around a record's mean, (Q, Q)."""
        own = found.inside if inside else found.outside
        scale = np.sqrt(np.stack([side.within for side in sides], axis=1))
        products = np.zeros((len(sides), len(sides)))
        for rows in blocks(evidence):
            mask = evidence.sides(rows)[0 if inside else 1] & (own.n[rows] > 1)
            which, record = np.nonzero(mask)
            gaps = evidence.references[:, rows][which, record] - own.mean[rows][record]
            gaps /= scale[rows][record]
            products += gaps.T @ gaps
        spread = np.sqrt(np.diag(products))
        if not (spread > 0).all():
            return np.eye(len(sides))
        pooled = products / np.outer(spread, spread)
        share = self.correlation_shrinkage
        return np.asarray((1 - share) * pooled + share * np.eye(len(sides)))


def _of_query(found: Moments, query: int) -> Moments:
    sides = (Side(side.n, side.mean[:, query], side.squares[:, query]) for side in (found.inside, found.outside))
    return Moments(found.target[:, query], *sides)


def _standardised(fits: list[FittedSides], sides: list[FittedSide]) -> Array:
    """Return the target's distance from the centre in predictive scales, (N, Q)."""
    gaps = [(fit.target - side.centre) / np.sqrt(side.variance) for fit, side in zip(fits, sides, strict=True)]
    return np.stack(gaps, axis=1)


def _log_scales(sides: list[FittedSide]) -> Array:
    return np.asarray(0.5 * np.sum([np.log(side.variance) for side in sides], axis=0))
