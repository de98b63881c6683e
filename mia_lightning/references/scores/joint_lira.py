"""LiRA over all views of a record at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores._moments import Array, Moments, Side, blocks, query_moments
from mia_lightning.references.scores._variance import NORMAL, log_density, log_multivariate_density, log_upper_tail
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.scores.lira import FittedSide, FittedSides, fit_sides


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

    def columns(self, evidence: ReferenceOutputs) -> Columns:
        """Return the score, the OUT p-value and the score's standard error.

        The p-value is that of the offline score in either mode; the standard error is the delta method's over the means
        of the references, as in `LiRA`.

        Raises:
            MIAError: no record has two references on a side.
        """
        found = query_moments(evidence)
        views = [_of_query(found, query) for query in range(found.target.shape[1])]
        fits = [fit_sides(view, "empirical_bayes", shrink_shift=self.shrink_shift) for view in views]
        outside = self._fitted(evidence, found, fits, inside=False)
        tail, tail_error = _one_sided(outside)
        p_value = np.maximum(np.exp(tail), np.finfo(np.float64).tiny)
        if self.mode == "offline":
            return {"": -tail, "p_value": p_value, "standard_error": tail_error}
        inside = self._fitted(evidence, found, fits, inside=True)
        error = np.hypot(*(side.error_of_density() for side in (inside, outside)))
        return {"": inside.log_density() - outside.log_density(), "p_value": p_value, "standard_error": error}

    def _fitted(
        self, evidence: ReferenceOutputs, found: Moments, fits: list[FittedSides], *, inside: bool
    ) -> _JointSide:
        in_out_masks = [fit.inside if inside else fit.outside for fit in fits]
        scale = np.sqrt(np.stack([side.variance for side in in_out_masks], axis=1))
        gaps = [fit.target - side.center for fit, side in zip(fits, in_out_masks, strict=True)]
        return _JointSide(
            z=np.stack(gaps, axis=1) / scale,
            log_scale=np.log(scale).sum(axis=1),
            error=np.stack([side.error for side in in_out_masks], axis=1) / scale,
            freedom=self._freedom(in_out_masks),
            correlation=self._correlation(evidence, found, in_out_masks, inside=inside),
        )

    def _freedom(self, in_out_masks: list[FittedSide]) -> Array:
        """Return degrees of freedom per record, (N,): the mean over its views."""
        if self.density == "normal":
            return np.full(len(in_out_masks[0].freedom), np.inf)
        return np.asarray(np.mean([side.freedom for side in in_out_masks], axis=0))

    def _correlation(
        self, evidence: ReferenceOutputs, found: Moments, in_out_masks: list[FittedSide], *, inside: bool
    ) -> Array:
        """Return the correlation between views of single models around a record's mean, (Q, Q)."""
        own = found.inside if inside else found.outside
        scale = np.sqrt(np.stack([side.within for side in in_out_masks], axis=1))
        products = np.zeros((len(in_out_masks), len(in_out_masks)))
        for rows in blocks(evidence):
            mask = evidence.in_out_masks(rows)[0 if inside else 1] & (own.n[rows] > 1)
            which, record = np.nonzero(mask)
            gaps = evidence.references[:, rows][which, record] - own.mean[rows][record]
            gaps /= scale[rows][record]
            products += gaps.T @ gaps
        spread = np.sqrt(np.diag(products))
        if not (spread > 0).all():
            return np.eye(len(in_out_masks))
        pooled = products / np.outer(spread, spread)
        share = self.correlation_shrinkage
        return np.asarray((1 - share) * pooled + share * np.eye(len(in_out_masks)))


@dataclass(frozen=True, eq=False)
class _JointSide:
    """The target's distance from one side of each record, over all views."""

    z: Array
    """(N, Q) distance from the center in predictive scales."""

    log_scale: Array
    """(N,) sum of the logarithms of the scales."""

    error: Array
    """(N, Q) standard error of the center in predictive scales."""

    freedom: Array
    """(N,)."""

    correlation: Array
    """(Q, Q)."""

    def log_density(self) -> Array:
        """Return (N,)."""
        return log_multivariate_density(self.z, self.correlation, self.freedom) - self.log_scale

    def error_of_density(self) -> Array:
        """Return the standard error of the log density, (N,): its slope along each view times the center's error."""
        solved = np.linalg.solve(self.correlation, self.z.T).T
        finite = np.minimum(self.freedom, NORMAL)
        weight = (finite + self.z.shape[1]) / (finite + (self.z * solved).sum(axis=1))
        return np.where(self.freedom >= NORMAL, 1.0, weight) * self.spread(np.asarray(solved, np.float64))

    def spread(self, slopes: Array) -> Array:
        """Return the standard deviation of the centers' errors along (N, Q) slopes, (N,)."""
        moved = slopes * self.error
        return np.asarray(np.sqrt(np.einsum("nq,qr,nr->n", moved, self.correlation, moved)))


def _one_sided(side: _JointSide) -> tuple[Array, Array]:
    """Return log Pr[OUT >= u] and its standard error, (N,) each."""
    weights = np.linalg.solve(side.correlation, np.ones(len(side.correlation)))
    weights /= np.sqrt(weights.sum())
    u = side.z @ weights
    standard = {"center": np.zeros_like(u), "variance": np.ones_like(u), "freedom": side.freedom}
    tail = log_upper_tail(u, **standard)
    hazard = np.exp(np.minimum(log_density(u, **standard) - tail, 700.0))
    return tail, hazard * side.spread(np.broadcast_to(weights, side.z.shape))


def _of_query(found: Moments, query: int) -> Moments:
    in_out_masks = (Side(side.n, side.mean[:, query], side.squares[:, query]) for side in (found.inside, found.outside))
    return Moments(found.target[:, query], *in_out_masks)
