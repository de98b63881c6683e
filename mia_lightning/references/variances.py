"""Shrunken variances and log densities of references around each record."""

from dataclasses import dataclass

import numpy as np

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


def variance_prior(variances: Array, degrees_of_freedom: Array) -> Prior:
    """Fit the prior by the moments of log variances (Smyth 2004, section 6.2, eqs. of d_0 and s_0).

    Args:
        variances: (N,) sample variances with ddof 1, of records with at least one degree of freedom.
        degrees_of_freedom: (N,) or scalar degrees of freedom of each.
    """
    from scipy.special import digamma, polygamma  # here, so that --help does not wait for it

    degrees_of_freedom = np.broadcast_to(np.asarray(degrees_of_freedom, np.float64), variances.shape)
    floor = 1e-12 * max(float(variances.mean()), 1e-300)  # equal values of all references: a variance of 0
    half = _one_if_equal(degrees_of_freedom) / 2
    logs = np.log(np.maximum(variances, floor)) - digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean()) if len(logs) > 1 else 0.0
    if excess <= 0:
        return Prior(np.inf, float((variances * degrees_of_freedom).sum() / degrees_of_freedom.sum()))
    root = inverse_trigamma(excess)
    return Prior(2 * root, float(np.exp(logs.mean() + digamma(root) - np.log(root))))


def inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value > 0, by Newton's method from 1/2 + 1/value."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
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
    defined = group.degrees_of_freedom > 0
    if not defined.any():
        return None
    prior = variance_prior(
        group.squares[defined] / group.degrees_of_freedom[defined], group.degrees_of_freedom[defined].astype(np.float64)
    )
    return np.where(group.n > 0, np.sqrt(shrink_variance(group, prior)[0] / np.maximum(group.n, 1)), 0.0)


def pooled_variance(group: GroupMoments) -> float:
    """Return the variance within records, pooled over all of them; NaN without any degree of freedom."""
    total = int(group.degrees_of_freedom.sum())
    return float(group.squares.sum() / total) if total else float("nan")


def log_density(x: Array, *, center: Array, variance: Array, degrees_of_freedom: Array) -> Array:
    """Return the log density of a Student's t, of a normal from `NORMAL` degrees of freedom on."""
    from scipy.special import gammaln

    z2 = (x - center) ** 2 / variance
    normal = -0.5 * (z2 + np.log(2 * np.pi * variance))
    if (degrees_of_freedom >= NORMAL).all():
        return np.asarray(normal)
    finite = np.minimum(_one_if_equal(degrees_of_freedom), NORMAL)
    student = (
        gammaln((finite + 1) / 2)
        - gammaln(finite / 2)
        - 0.5 * np.log(finite * np.pi * variance)
        - (finite + 1) / 2 * np.log1p(z2 / finite)
    )
    return np.asarray(np.where(degrees_of_freedom >= NORMAL, normal, student))


def _one_if_equal(values: Array) -> Array:
    """Return the first value alone where all are equal, so that special functions are computed once."""
    return values[:1] if values.size and values.max() == values.min() else values


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
    finite = np.broadcast_to(np.minimum(degrees_of_freedom, NORMAL), u.shape)
    tail = stdtr(finite, -u)
    with np.errstate(divide="ignore"):
        student = np.log(tail)
    far = (tail < 1e-250) & (degrees_of_freedom < NORMAL)
    if far.any():  # the leading series of the incomplete beta function, exact where its argument is small
        a, at = finite[far] / 2, u[far]
        share = finite[far] / (finite[far] + at**2)
        series = np.log(hyp2f1(a + 0.5, 1.0, a + 1, share))
        student = student.copy()
        student[far] = np.log(0.5) + a * np.log(share) + 0.5 * np.log1p(-share) - np.log(a) - betaln(a, 0.5) + series
    return np.asarray(np.where(degrees_of_freedom >= NORMAL, log_ndtr(-u), student))
