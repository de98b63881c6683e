"""LiRA: likelihood ratio of per-record IN and OUT distributions over reference models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.moments import Array, GroupMoments, Moments, Statistic, moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.target_pool import TargetPool
from mia_lightning.references.variances import (
    density_slope,
    log_density,
    log_survival,
    pooled_variance,
    prior_of,
    shrink_variance,
)

SMALLEST_VARIANCE = 1e-6
"""Least variance of a record, relative to that of all records: trees agree on many to the last digit."""

Variance = Literal["empirical_bayes", "fixed", "per_sample"]


@dataclass
class LiRA(ReferenceScore):
    """Likelihood ratio attack (Carlini et al. 2022, "Membership Inference Attacks From First Principles").

    online is their eq. 4: log p(phi | IN) - log p(phi | OUT). offline is their eq. 5, one-sided: -log Pr[OUT >= phi].
    Deviations: means instead of medians, ddof 1, and by default a Student's t predictive density whose variance is
    shrunk towards a prior fitted over all records. `OfficialLiRA` reproduces the authors' code.
    """

    mode: Literal["online", "offline"] = "online"
    """Whether references IN the record are compared too."""

    variance: Variance = "empirical_bayes"
    """empirical_bayes shrinks each record's variance towards those of all records; fixed pools the variance within
    records; per_sample trusts each record's own, for which 32 references a side are few."""

    statistic: Statistic = "mean"
    """Reduction of phi over the views of a record."""

    shrink_shift: bool = True
    """Shrink the distance between a record's IN and OUT mean towards the average distance, as far as its few reference
    models leave it uncertain (online mode). A record without models on one side takes the average distance."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score, the OUT p-value of phi and the score's standard error.

        The p-value is Pr[OUT >= phi] under the predictive distribution of the record, one-sided in either mode. The
        standard error is the delta method's over the means of the references; that of the variances is left out.
        """
        fit = fit_groups(moments(reference_outputs, self.statistic), self.variance, shrink_shift=self.shrink_shift)
        out_ = log_survival(fit.target, **fit.out_.density)
        if self.mode == "offline":
            slope = _tail_slope(fit, out_)
            return {"": -out_, "p_value": _p_value(out_), "standard_error": slope * fit.out_.error}
        score = log_density(fit.target, **fit.in_.density) - log_density(fit.target, **fit.out_.density)
        slopes = [density_slope(fit.target, **part.density) * part.error for part in (fit.in_, fit.out_)]
        return {"": score, "p_value": _p_value(out_), "standard_error": np.hypot(*slopes)}

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model as target, (K, N)."""
        return pool.by_moments(self.statistic, self._score)

    def _score(self, phi: Moments, _: NDArray[np.int64]) -> Array:
        fit = fit_groups(phi, self.variance, shrink_shift=self.shrink_shift)
        if self.mode == "offline":
            return -log_survival(fit.target, **fit.out_.density)
        return log_density(fit.target, **fit.in_.density) - log_density(fit.target, **fit.out_.density)


@dataclass(frozen=True, eq=False)
class FittedGroup:
    """Predictive distribution of phi of a model on one side of each record."""

    center: Array
    variance: Array
    """Squared scale of the predictive distribution, (N,)."""

    degrees_of_freedom: Array
    """Of the Student's t, (N,); infinite = normal."""

    uncertainty: Array
    """Squared standard error of the center, (N,)."""

    within: Array
    """Variance of single models around the record's mean, (N,); unlike `variance`, independent of their number."""

    @property
    def error(self) -> Array:
        """Standard error of the center, (N,)."""
        return np.asarray(np.sqrt(self.uncertainty))

    @property
    def density(self) -> dict[str, Array]:
        """The arguments of `log_density`."""
        return {"center": self.center, "variance": self.variance, "degrees_of_freedom": self.degrees_of_freedom}


@dataclass(frozen=True, eq=False)
class FittedGroups:
    """The target's statistic, and what is expected of models IN and OUT of each record."""

    target: Array
    in_: FittedGroup
    out_: FittedGroup
    shift: Array
    """Distance of the centers, (N,), shrunk if configured."""


def fit_groups(phi_moments: Moments, variance: Variance, *, shrink_shift: bool) -> FittedGroups:
    """Fit predictive distributions to the moments of both sides.

    Raises:
        MIAError: no record has two references on a side, or per_sample and some record has not.
    """
    in_, out_ = sides = (phi_moments.in_, phi_moments.out_)
    if variance == "per_sample":
        for name, part in zip(("IN", "OUT"), sides, strict=True):
            if (part.n < 2).any():
                raise MIAError(
                    f"a variance per record needs 2 references on each side, but {int((part.n < 2).sum())} records "
                    f"have fewer {name}; use variance empirical_bayes, or more references"
                )
    fitted = [_within(part, other, variance) for part, other in (sides, sides[::-1])]
    smallest = SMALLEST_VARIANCE * max(np.nanmax([pooled_variance(part) for part in sides]), SMALLEST_VARIANCE)
    within = [np.maximum(value, smallest) for value, _ in fitted]
    of_means = [value / np.maximum(part.n, 1) for value, part in zip(within, sides, strict=True)]
    shift, spread = _shift(phi_moments, of_means[0] + of_means[1], shrink=shrink_shift)
    out_center = _where(out_.n > 0, out_.mean, lambda: in_.mean - shift)

    def group(side: int, center: Array) -> FittedGroup:
        borrowed = of_means[1 - side]  # by a side without models
        uncertainty = _where(sides[side].n > 0, of_means[side], lambda: borrowed + spread)
        scale = within[side] + uncertainty if variance == "empirical_bayes" else within[side]
        return FittedGroup(center, scale, fitted[side][1], uncertainty, within[side])

    return FittedGroups(phi_moments.target, group(0, out_center + shift), group(1, out_center), shift)


def _within(part: GroupMoments, other: GroupMoments, variance: Variance) -> tuple[Array, Array]:
    """Return the variance of single models around a record's mean and its degrees of freedom, (N,) each."""
    count = len(part.n)
    enough = next((side for side in (part, other) if side.degrees_of_freedom.any()), None)
    if enough is None:
        raise MIAError(
            "no record has two references IN or two OUT, so there is no variance to compare with; train at least 3 "
            "references (4 give two on each side), or use the score DifficultyCalibration"
        )
    if variance == "per_sample":
        return part.squares / part.degrees_of_freedom, np.full(count, np.inf)
    if variance == "fixed":
        return np.full(count, pooled_variance(enough)), np.full(count, np.inf)
    return shrink_variance(part, prior_of(enough))


def _shift(phi_moments: Moments, noise: Array, *, shrink: bool) -> tuple[Array, float]:
    """Return the distance of IN from OUT per record, (N,), and the variance of true distances between records.

    Args:
        phi_moments: Both sides.
        noise: (N,) variance of the distance of the two means, from that of single models.
        shrink: Whether distances are shrunk towards their mean.
    """
    in_, out_ = phi_moments.in_, phi_moments.out_
    both = (in_.n > 0) & (out_.n > 0)
    if not both.any():  # one reference: memberships were drawn by chance, so unpaired means will do
        seen = [side.mean[side.n > 0] for side in (in_, out_)]
        mean = float(seen[0].mean() - seen[1].mean()) if all(len(side) for side in seen) else 0.0
        return np.full(len(both), mean), 0.0
    shift = in_.mean - out_.mean
    paired, noise_of_paired = (shift, noise) if both.all() else (shift[both], noise[both])
    mean = float(paired.mean())
    spread = max(float(paired.var() - noise_of_paired.mean()), 0.0)
    shrunk = mean + spread / (spread + noise) * (shift - mean) if shrink else shift
    return _where(both, shrunk, lambda: np.full(len(both), mean)), spread


def _where(condition: NDArray[np.bool_], values: Array, otherwise: Callable[[], Array]) -> Array:
    return values if condition.all() else np.where(condition, values, otherwise())


def _p_value(log_tail: Array) -> Array:
    return np.maximum(np.exp(log_tail), np.finfo(np.float64).tiny)


def _tail_slope(fit: FittedGroups, log_tail: Array) -> Array:
    """Return the derivative of -log Pr[OUT >= phi] by phi: the hazard of the OUT distribution."""
    return np.exp(np.minimum(log_density(fit.target, **fit.out_.density) - log_tail, 700.0))
