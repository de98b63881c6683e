"""LiRA over all views of a record at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mia_lightning.references.moments import Array, GroupMoments, Moments, blocks, query_moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.scores.lira import FittedGroup, FittedGroups, fit_groups
from mia_lightning.references.variances import NORMAL, log_density, log_multivariate_density, log_survival


@dataclass
class JointLiRA(ReferenceScore):
    """Likelihood ratio of the vector of phi over all views (Carlini et al. 2022, section VI-C, multivariate form).

    The paper estimates a full covariance for every record, which needs more references on a side than there are views.
    Here a record has only its own scale per view, shrunk as `LiRA` shrinks it, and the correlation between views is
    one per side, pooled within records and shrunk towards independence: Sigma = D R D. online is the difference of two
    log densities, multivariate normal or Student's t. offline is one-sided: -log Pr[OUT >= u], with u the weighted
    mean of the views' distances from OUT that estimates a common shift best, its weights R^-1 1.
    """

    mode: Literal["online", "offline"] = "online"
    """Whether references IN the record are compared too."""

    correlation_shrinkage: float = 0.1
    """Weight of independence against the pooled correlation of the views, in [0, 1]."""

    density: Literal["normal", "student"] = "student"
    """student widens the density by what few references leave unknown of the variance."""

    shrink_shift: bool = True
    """Shrink the distance between a record's IN and OUT mean towards the average distance, as far as its few reference
    models leave it uncertain. A record without models on one side takes the average distance."""

    def __post_init__(self) -> None:
        if not 0 <= self.correlation_shrinkage <= 1:
            raise ValueError(f"correlation_shrinkage must lie in [0, 1], got {self.correlation_shrinkage}")

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score, the OUT p-value and the score's standard error.

        The p-value is that of the offline score in either mode; the standard error is the delta method's over the means
        of the references, as in `LiRA`.

        Raises:
            MIAError: no record has two references on a side.
        """
        group_moments = query_moments(reference_outputs)
        views = [_of_query(group_moments, query) for query in range(group_moments.target.shape[1])]
        fits = [fit_groups(view, "empirical_bayes", shrink_shift=self.shrink_shift) for view in views]
        out_ = self._fitted(reference_outputs, group_moments, fits, in_=False)
        tail, tail_error = _one_sided(out_)
        p_value = np.maximum(np.exp(tail), np.finfo(np.float64).tiny)
        if self.mode == "offline":
            return {"": -tail, "p_value": p_value, "standard_error": tail_error}
        in_ = self._fitted(reference_outputs, group_moments, fits, in_=True)
        error = np.hypot(*(group.error_of_density() for group in (in_, out_)))
        return {"": in_.log_density() - out_.log_density(), "p_value": p_value, "standard_error": error}

    def _fitted(
        self, reference_outputs: ReferenceOutputs, group_moments: Moments, fits: list[FittedGroups], *, in_: bool
    ) -> _JointGroup:
        in_out_masks = [fit.in_ if in_ else fit.out_ for fit in fits]
        scale = np.sqrt(np.stack([group.variance for group in in_out_masks], axis=1))
        gaps = [fit.target - group.center for fit, group in zip(fits, in_out_masks, strict=True)]
        return _JointGroup(
            z=np.stack(gaps, axis=1) / scale,
            log_scale=np.log(scale).sum(axis=1),
            error=np.stack([group.error for group in in_out_masks], axis=1) / scale,
            degrees_of_freedom=self._freedom(in_out_masks),
            correlation=self._correlation(reference_outputs, group_moments, in_out_masks, in_=in_),
        )

    def _freedom(self, in_out_masks: list[FittedGroup]) -> Array:
        """Return degrees of freedom per record, (N,): the mean over its views."""
        if self.density == "normal":
            return np.full(len(in_out_masks[0].degrees_of_freedom), np.inf)
        return np.asarray(np.mean([group.degrees_of_freedom for group in in_out_masks], axis=0))

    def _correlation(
        self, reference_outputs: ReferenceOutputs, group_moments: Moments, in_out_masks: list[FittedGroup], *, in_: bool
    ) -> Array:
        """Return the correlation between views of single models around a record's mean, (Q, Q)."""
        group = group_moments.in_ if in_ else group_moments.out_
        scale = np.sqrt(np.stack([group.within for group in in_out_masks], axis=1))
        products = np.zeros((len(in_out_masks), len(in_out_masks)))
        for rows in blocks(reference_outputs):
            mask = reference_outputs.in_out_masks(rows)[0 if in_ else 1] & (group.n[rows] > 1)
            which, record = np.nonzero(mask)
            gaps = reference_outputs.references[:, rows][which, record] - group.mean[rows][record]
            gaps /= scale[rows][record]
            products += gaps.T @ gaps
        spread = np.sqrt(np.diag(products))
        if not (spread > 0).all():
            return np.eye(len(in_out_masks))
        pooled = products / np.outer(spread, spread)
        share = self.correlation_shrinkage
        return np.asarray((1 - share) * pooled + share * np.eye(len(in_out_masks)))


@dataclass(frozen=True, eq=False)
class _JointGroup:
    """The target's distance from one side of each record, over all views."""

    z: Array
    """(N, Q) distance from the center in predictive scales."""

    log_scale: Array
    """(N,) sum of the logarithms of the scales."""

    error: Array
    """(N, Q) standard error of the center in predictive scales."""

    degrees_of_freedom: Array
    """(N,)."""

    correlation: Array
    """(Q, Q)."""

    def log_density(self) -> Array:
        """Return (N,)."""
        return log_multivariate_density(self.z, self.correlation, self.degrees_of_freedom) - self.log_scale

    def error_of_density(self) -> Array:
        """Return the standard error of the log density, (N,): its slope along each view times the center's error."""
        solved = np.linalg.solve(self.correlation, self.z.T).T
        finite = np.minimum(self.degrees_of_freedom, NORMAL)
        weight = (finite + self.z.shape[1]) / (finite + (self.z * solved).sum(axis=1))
        return np.where(self.degrees_of_freedom >= NORMAL, 1.0, weight) * self.spread(np.asarray(solved, np.float64))

    def spread(self, slopes: Array) -> Array:
        """Return the standard deviation of the centers' errors along (N, Q) slopes, (N,)."""
        moved = slopes * self.error
        return np.asarray(np.sqrt(np.einsum("nq,qr,nr->n", moved, self.correlation, moved)))


def _one_sided(group: _JointGroup) -> tuple[Array, Array]:
    """Return log Pr[OUT >= u] and its standard error, (N,) each."""
    weights = np.linalg.solve(group.correlation, np.ones(len(group.correlation)))
    weights /= np.sqrt(weights.sum())
    u = group.z @ weights
    standard = {"center": np.zeros_like(u), "variance": np.ones_like(u), "degrees_of_freedom": group.degrees_of_freedom}
    tail = log_survival(u, **standard)
    hazard = np.exp(np.minimum(log_density(u, **standard) - tail, 700.0))
    return tail, hazard * group.spread(np.broadcast_to(weights, group.z.shape))


def _of_query(group_moments: Moments, query: int) -> Moments:
    in_out_masks = (
        GroupMoments(group.n, group.mean[:, query], group.squares[:, query])
        for group in (group_moments.in_, group_moments.out_)
    )
    return Moments(group_moments.target[:, query], *in_out_masks)
