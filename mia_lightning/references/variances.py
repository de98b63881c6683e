"""Shrunken variances and log densities of references around each record."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.moments import Array, GroupMoments

NORMAL = 1e6
"""Degrees of freedom from which a Student's t distribution is taken as normal."""


@dataclass(frozen=True)
class Prior:
    """A scaled inverse chi-squared distribution of the variance of a record."""

    degrees_of_freedom: float
    """nu_0; infinite where all records share one variance."""

    variance: float
    """s_0 squared."""


def variance_prior(variances: Array, degrees_of_freedom: NDArray[np.floating | np.integer]) -> Prior:
    """Fit the prior by the moments of log variances (Smyth 2004, section 6.2, eqs. of d_0 and s_0).

    Args:
        variances: (N,) sample variances with ddof 1, of records with at least one degree of freedom.
        degrees_of_freedom: (N,) or scalar degrees of freedom of each.
    """
    from scipy.special import digamma, zeta  # here, so that --help does not wait for it

    floor = 1e-12 * max(float(variances.mean()), 1e-300)  # equal values of all references: a variance of 0
    freedom, index = _distinct(np.asarray(degrees_of_freedom).reshape(-1))
    logs = np.log(np.maximum(variances, floor))
    logs += (np.log(freedom / 2) - digamma(freedom / 2))[index]
    trigamma = zeta(2, freedom / 2)[index]
    excess = float(logs.var(ddof=1) - trigamma.mean()) if len(logs) > 1 else 0.0
    if excess <= 0:
        weights = np.broadcast_to(degrees_of_freedom, variances.shape)
        return Prior(np.inf, float((variances * weights).sum() / weights.sum()))
    root = inverse_trigamma(excess)
    return Prior(2 * root, float(np.exp(logs.mean() + digamma(root) - np.log(root))))


def prior_of(group: GroupMoments) -> Prior:
    """Return the prior fitted to the records of a group that have at least one degree of freedom; some record must."""
    freedom, squares = group.degrees_of_freedom, group.squares
    if (defined := freedom > 0).all():
        return variance_prior(squares / freedom, freedom)
    return variance_prior(squares[defined] / freedom[defined], freedom[defined])


def inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value > 0, by Newton's method from 1/2 + 1/value."""
    from scipy.special import zeta

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(zeta(2, x))
        step = trigamma * (1 - trigamma / value) / (-2 * float(zeta(3, x)))
        x += step
        if abs(step) < 1e-12 * x:
            break
    return x


def shrink_variance(group: GroupMoments, prior: Prior) -> tuple[Array, Array]:
    """Return variance and degrees of freedom per record, (N,) each; the prior's own where n < 2."""
    if np.isinf(prior.degrees_of_freedom):
        return np.full(len(group.n), prior.variance), np.full(len(group.n), np.inf)
    degrees_of_freedom = np.asarray(prior.degrees_of_freedom + group.degrees_of_freedom, np.float64)
    return np.asarray(
        (prior.degrees_of_freedom * prior.variance + group.squares) / degrees_of_freedom
    ), degrees_of_freedom


def standard_error_of_mean(group: GroupMoments) -> Array | None:
    """Return the standard error of each record's mean, (N,), from variances shrunk over all records.

    0 where a record has no model on this side; None where no record has two, so that nothing determines a variance.
    """
    if not group.degrees_of_freedom.any():
        return None
    variance, _ = shrink_variance(group, prior_of(group))
    return np.where(group.n > 0, np.sqrt(variance / np.maximum(group.n, 1)), 0.0)


def pooled_variance(group: GroupMoments) -> float:
    """Return the variance within records, pooled over all of them; NaN without any degree of freedom."""
    total = int(group.degrees_of_freedom.sum())
    return float(group.squares.sum() / total) if total else float("nan")


def log_density(x: Array, *, center: Array, variance: Array, degrees_of_freedom: Array) -> Array:
    """Return the log density of a Student's t, of a normal from `NORMAL` degrees of freedom on."""
    from scipy.special import gammaln

    z2 = (x - center) ** 2 / variance
    if degrees_of_freedom.size == 0 or degrees_of_freedom.min() >= NORMAL:
        return np.asarray(-0.5 * (z2 + np.log(2 * np.pi * variance)))
    freedom, index = _distinct(np.minimum(degrees_of_freedom, NORMAL))
    constant = (gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - 0.5 * np.log(freedom * np.pi))[index]
    freedom = freedom[index]
    student = constant - 0.5 * np.log(variance) - (freedom + 1) / 2 * np.log1p(z2 / freedom)
    if degrees_of_freedom.max() < NORMAL:
        return np.asarray(student)
    return np.asarray(np.where(degrees_of_freedom >= NORMAL, -0.5 * (z2 + np.log(2 * np.pi * variance)), student))


def _distinct(values: NDArray[np.floating | np.integer]) -> tuple[Array, NDArray[np.intp]]:
    """Return distinct values and the position of each value, or broadcast to each, where they differ by whole numbers.

    Special functions are then computed once for equal degrees of freedom. Other values are returned as they are.
    """
    low = values.min()
    steps = values - low
    if not steps.any():
        return np.asarray(values[:1], np.float64), np.zeros(1, np.intp)
    index = steps.astype(np.intp) if steps.dtype.kind == "i" else np.rint(steps).astype(np.intp)
    if index.max() >= len(values) or (np.abs(steps - index) > 1e-9).any():
        return np.asarray(values, np.float64), np.arange(len(values))
    distinct = np.full(index.max() + 1, low, np.float64)
    distinct[index] = values
    return distinct, index


def log_multivariate_density(z: Array, correlation: Array, degrees_of_freedom: Array) -> Array:
    """Return the log density of standardized vectors under a multivariate Student's t, normal from `NORMAL` on.

    The scales are the caller's: subtract the sum of their logarithms.

    Args:
        z: (N, Q) distances from the center in scales.
        correlation: (Q, Q) positive definite.
        degrees_of_freedom: (N,) of freedom.
    """
    from scipy.linalg import solve_triangular
    from scipy.special import gammaln

    factor = np.linalg.cholesky(correlation)
    z2 = (solve_triangular(factor, z.T, lower=True) ** 2).sum(axis=0)
    width, half_determinant = z.shape[1], np.log(np.diag(factor)).sum()
    finite = np.minimum(degrees_of_freedom, NORMAL)
    student = (
        gammaln((finite + width) / 2)
        - gammaln(finite / 2)
        - 0.5 * width * np.log(finite * np.pi)
        - (finite + width) / 2 * np.log1p(z2 / finite)
    )
    normal = -0.5 * (z2 + width * np.log(2 * np.pi))
    return np.asarray(np.where(degrees_of_freedom >= NORMAL, normal, student) - half_determinant)


def density_slope(x: Array, *, center: Array, variance: Array, degrees_of_freedom: Array) -> Array:
    """Return the derivative of `log_density` by its center."""
    gap = x - center
    finite = np.minimum(degrees_of_freedom, NORMAL)
    student = (finite + 1) * gap / (finite * variance + gap**2)
    return np.asarray(np.where(degrees_of_freedom >= NORMAL, gap / variance, student))


def log_survival(x: Array, *, center: Array, variance: Array, degrees_of_freedom: Array) -> Array:
    """Return log Pr[X >= x] of a Student's t or normal, without running out of digits in the far tail."""
    from scipy.special import betaln, hyp2f1, log_ndtr, stdtr

    u = (x - center) / np.sqrt(variance)
    is_normal = degrees_of_freedom >= NORMAL
    if is_normal.all():
        return np.asarray(log_ndtr(-u))
    finite = np.broadcast_to(np.minimum(degrees_of_freedom, NORMAL), u.shape)
    tail = stdtr(finite, -u)
    with np.errstate(divide="ignore"):
        student = np.log(tail)
    far = (tail < 1e-250) & ~is_normal
    if far.any():  # the leading series of the incomplete beta function, exact where its argument is small
        a, at = finite[far] / 2, u[far]
        share = finite[far] / (finite[far] + at**2)
        series = np.log(hyp2f1(a + 0.5, 1.0, a + 1, share))
        student = student.copy()
        student[far] = np.log(0.5) + a * np.log(share) + 0.5 * np.log1p(-share) - np.log(a) - betaln(a, 0.5) + series
    return np.asarray(np.where(is_normal, log_ndtr(-u), student) if is_normal.any() else student)
