"""BaVarIA: likelihood ratio with normal-inverse-gamma priors."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.moments import Array, GroupMoments, Moments, Statistic, moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.scores.difficulty_calibration import mean_shift
from mia_lightning.references.target_pool import TargetPool
from mia_lightning.references.variances import log_density, prior_of


@dataclass
class BaVarIA(ReferenceScore):
    """Bayesian variance inference attack: log ratio of two predictive densities under normal-inverse-gamma priors.

    Of the paper only the abstract was available to us; the formulas are the conjugate ones of its description. Mean and
    variance of a side have the prior N(m_0, sigma^2 / kappa_0) x scaled inverse chi-squared(nu_0, s_0^2); with n
    references of mean m and sum of squares S, kappa_n = kappa_0 + n, m_n = (kappa_0 m_0 + n m) / kappa_n,
    nu_n = nu_0 + n and nu_n s_n^2 = nu_0 s_0^2 + S + kappa_0 n (m - m_0)^2 / kappa_n. student is the predictive
    t_{nu_n}(m_n, s_n^2 (1 + 1 / kappa_n)), normal is N(m_n, s_n^2). m_0 is the mean of the record's class OUT, and for
    IN that plus the mean distance of IN from OUT; nu_0 and s_0^2 are fitted over all records as for `LiRA`.
    """

    density: Literal["student", "normal"] = "student"
    """Predictive density."""

    kappa: float = 0.1
    """kappa_0, the number of references that the prior mean counts for."""

    statistic: Statistic = "mean"
    """Reduction of phi over the views of a record."""

    def __post_init__(self) -> None:
        if self.kappa <= 0:
            raise ValueError(f"kappa must be above 0, got {self.kappa}")

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score.

        Raises:
            MIAError: no record has two references on a side.
        """
        return {"": self._score(moments(reference_outputs, self.statistic), reference_outputs.labels)}

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model as target, (K, N)."""
        return pool.by_moments(self.statistic, self._score)

    def _score(self, phi: Moments, labels: NDArray[np.int64]) -> Array:
        center = class_means(phi.out_, labels)
        shift = mean_shift(phi)
        sides = ((phi.in_, center + shift), (phi.out_, center))
        in_, out_ = (self._log_density(phi.target, group, prior) for group, prior in sides)
        return np.asarray(in_ - out_)

    def _log_density(self, target: Array, group: GroupMoments, prior_mean: Array) -> Array:
        if not group.degrees_of_freedom.any():
            raise MIAError(
                "no record has two references on either side, so there is no variance to compare with; train at least "
                "4 references, or use DifficultyCalibration"
            )
        prior = prior_of(group)
        return predictive(
            target,
            group,
            prior_mean,
            kappa=self.kappa,
            freedom=min(prior.degrees_of_freedom, 1e6),
            variance=prior.variance,
            density=self.density,
        )


def predictive(
    target: Array,
    group: GroupMoments,
    prior_mean: Array,
    *,
    kappa: float,
    freedom: float,
    variance: float,
    density: Literal["student", "normal"] = "student",
) -> Array:
    """Return the log predictive density (N,) of the target given one side's references and the prior."""
    kappa_n, freedom_n = kappa + group.n, np.asarray(freedom + group.n, np.float64)
    mean = (kappa * prior_mean + group.n * group.mean) / kappa_n
    squares = group.squares + kappa * group.n * (group.mean - prior_mean) ** 2 / kappa_n
    spread = (freedom * variance + squares) / freedom_n
    if density == "normal":
        return log_density(target, center=mean, variance=spread, degrees_of_freedom=np.full(len(mean), np.inf))
    return log_density(target, center=mean, variance=spread * (1 + 1 / kappa_n), degrees_of_freedom=freedom_n)


def class_means(group: GroupMoments, labels: NDArray[np.int64]) -> Array:
    """Return the mean of a side over the records of each record's class, (N,); over all where a class has none."""
    has = group.n > 0
    overall = float(group.mean[has].mean()) if has.any() else 0.0
    counts = np.bincount(labels, weights=has)
    sums = np.bincount(labels, weights=np.where(has, group.mean, 0.0))
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), overall)[labels])
