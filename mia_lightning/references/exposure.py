"""Exposure of each record: a posterior of how far training on it moves phi, shrunk over records.

The exposure of a record is the difference of its mean phi under models trained with and without it, in standard
deviations of phi between such models. From a few reference models the estimate is a noncentral t variable: the standard
deviation is shrunk over records of one difficulty (Smyth 2004). Records of one difficulty have a common mean and spread
of the exposure, by moments; the shape around them is common to all records and not assumed normal: it is fitted by EM,
smoothed in each step. Difficulty is the mean of phi on both sides, weighted such that its error is independent of that
of the difference. Two references on complementary halves are correlated, which widens the noise of their difference by
a factor that is measured. No membership of the target enters.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.moments import Array, GroupMoments, group_moments, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.target_pool import partners
from mia_lightning.references.variances import variance_prior

log = logging.getLogger(__name__)

TOP = 0.01
"""Share of the records that count as the most exposed."""

RELIABLE = 0.25
"""Share of the spread of the estimates, among records of one difficulty, that must not be noise: with 0.15 the stated
probabilities were too high, with 0.35 they were met."""

FEWEST_RECORDS, FEWEST_REFERENCES = 1000, 8
"""Records and references from which on it is computed."""

BIN = 150
"""Records of one difficulty."""

MOST_FREEDOM = 10.0
"""Degrees of freedom of the noise, at most: phi has heavier tails than a normal variable."""

STEPS = np.linspace(-4, 10, 71)
"""Grid of the common shape, in standard deviations from the mean at that difficulty."""

ITERATIONS, KERNEL = 25, (0.05, 0.2, 0.5, 0.2, 0.05)
QUANTILES = (np.arange(16) + 0.5) / 16
BLOCK = 500


@dataclass(frozen=True, eq=False)
class Exposure:
    """Posterior of each record's exposure; NaN where fewer than two references are IN or OUT."""

    mean: Array
    """(N,) in standard deviations of phi between reference models."""

    standard_deviation: Array
    """(N,) of the posterior."""

    top_probability: Array
    """(N,) posterior probability of being among the most exposed 1% of the records."""


@dataclass(frozen=True, eq=False)
class _Estimates:
    """Differences of n records and their noise."""

    difference: Array
    """(n,) of mean phi IN and OUT, in shrunk standard deviations."""

    noise: Array
    """(n,) variance of that difference in the variance of a record's phi."""

    freedom: Array
    """(n,) degrees of freedom of the standard deviation."""

    groups: list[NDArray[np.intp]]
    """Records of one difficulty, easiest last."""


def exposure(reference_outputs: ReferenceOutputs) -> Exposure | None:
    """Return the exposure of each record.

    Returns:
        None with fewer than 1,000 records or 8 references, or where estimates are mostly noise (one line in the log).
    """
    if len(reference_outputs.references) < FEWEST_REFERENCES or len(reference_outputs) < FEWEST_RECORDS:
        return None
    values = np.stack([reduce_queries(model, "mean") for model in reference_outputs.references])
    in_, out_ = (group_moments(values, mask) for mask in reference_outputs.in_out_masks(slice(None)))
    rows = np.flatnonzero((in_.n > 1) & (out_.n > 1))
    if len(rows) < FEWEST_RECORDS:
        return None
    pairs = _pair_differences(reference_outputs, values)
    paired = None if pairs is None else [side[:, rows] for side in pairs]
    estimates = _estimates(_of(in_, rows), _of(out_, rows), paired)
    center, spread, reliability = _prior(estimates)
    if reliability < RELIABLE:
        log.info(
            "exposure of records is left out: %d references do not separate them (reliability %.2f, needed %.2f)",
            len(values),
            max(reliability, 0.0),
            RELIABLE,
        )
        return None
    shape = _posterior(estimates, center, spread)
    mean = shape @ STEPS
    deviation = np.sqrt(np.maximum(shape @ STEPS**2 - mean**2, 0))
    result = np.full((3, len(reference_outputs)), np.nan)
    result[:, rows] = center + spread * mean, spread * deviation, _top_probability(shape, center, spread)
    return Exposure(*result)


def _of(group: GroupMoments, rows: NDArray[np.intp]) -> GroupMoments:
    return GroupMoments(group.n[rows], group.mean[rows], group.squares[rows])


def _pair_differences(reference_outputs: ReferenceOutputs, values: Array) -> list[Array] | None:
    """Return phi IN and OUT of pairs on complementary halves, (K / 2, N) each; None where references are not paired."""
    mates = partners(reference_outputs.keep) if reference_outputs.drawn is None else None
    if mates is None or len(mates) < 4 or (mates != mates[:, :1]).any():
        return None
    first = [k for k, mate in enumerate(mates[:, 0].tolist()) if k < mate]
    second, keep = mates[first, 0], reference_outputs.keep[first]
    return [np.where(keep, values[a], values[b]) for a, b in ((first, second), (second, first))]


def _estimates(in_: GroupMoments, out_: GroupMoments, pairs: list[Array] | None) -> _Estimates:
    freedom = (in_.n + out_.n - 2).astype(np.float64)
    variance = (in_.squares + out_.squares) / freedom
    noise = 1 / in_.n + 1 / out_.n
    sides = [float((side.squares / (side.n - 1) / side.n).mean()) for side in (in_, out_)]
    common = 0.0
    if pairs is not None:
        gaps = [side - side.mean(axis=0) for side in pairs]
        common = float((gaps[0] * gaps[1]).sum(axis=0).mean()) / (len(gaps[0]) - 1) / len(gaps[0])
    weight = min(max((sides[1] - common) / max(sides[0] + sides[1] - 2 * common, 1e-300), 0.0), 1.0)
    difficulty = weight * in_.mean + (1 - weight) * out_.mean
    groups = np.array_split(np.argsort(difficulty, kind="stable"), max(1, len(difficulty) // BIN))
    priors = [variance_prior(variance[rows], freedom[rows]) for rows in _neighbors(groups)]
    of_prior = 1 / np.maximum(_spread_out([1 / prior.degrees_of_freedom for prior in priors], groups), 1e-3)
    scale = np.exp(_spread_out([np.log(max(prior.variance, 1e-300)) for prior in priors], groups))
    shrunk = (of_prior * scale + freedom * variance) / (of_prior + freedom)
    if pairs is not None:
        squares = ((gaps[0] - gaps[1]) ** 2).sum(axis=0) / (len(gaps[0]) - 1) / len(gaps[0])
        noise = noise * _smooth(lambda rows: squares[rows].mean() / (variance * noise)[rows].mean(), groups)
    difference = (in_.mean - out_.mean) / np.sqrt(np.maximum(shrunk, 1e-300))
    return _Estimates(difference, noise, of_prior + freedom, groups)


def _prior(estimates: _Estimates) -> tuple[Array, Array, float]:
    """Return mean and standard deviation of the exposure at each record's difficulty, (n,), and the reliability."""
    from scipy.special import gammaln

    freedom = estimates.freedom
    bias = np.exp(gammaln((freedom - 1) / 2) - gammaln(freedom / 2)) * np.sqrt(freedom / 2)  # of a noncentral t
    unbiased, excess = estimates.difference / bias, freedom / (freedom - 2) / bias**2
    center = _smooth(lambda rows: unbiased[rows].mean(), estimates.groups)
    noise = estimates.noise * excess + center**2 * (excess - 1)
    total = _smooth(lambda rows: ((unbiased - center)[rows] ** 2).mean(), estimates.groups)
    of_noise = _smooth(lambda rows: noise[rows].mean(), estimates.groups)
    spread = np.sqrt(np.maximum(total - of_noise, 0.05 * total))
    return center, spread, float(1 - (of_noise / np.maximum(total, 1e-300)).mean())


def _posterior(estimates: _Estimates, center: Array, spread: Array) -> Array:
    """Return the posterior on the grid of standardized exposures, (n, len(STEPS)), rows adding up to 1."""
    from scipy.special import gammaincinv

    likelihood = np.empty((len(center), len(STEPS)))
    for start in range(0, len(center), BLOCK):
        rows = slice(start, start + BLOCK)
        half = np.minimum(estimates.freedom[rows, None], MOST_FREEDOM) / 2
        ratio = np.sqrt(gammaincinv(half, QUANTILES) / half)  # of estimated to true standard deviation
        error = np.sqrt(estimates.noise[rows])[:, None]
        seen = estimates.difference[rows, None] / error * ratio
        expected = (center[rows, None] + spread[rows, None] * STEPS) / error
        distance = seen[:, None, :] - expected[:, :, None]
        likelihood[rows] = (ratio[:, None, :] * np.exp(-0.5 * distance**2)).mean(axis=2) + 1e-300
    shape = np.exp(-0.5 * STEPS**2)
    for _ in range(ITERATIONS):
        joint = likelihood * (shape / shape.sum())
        shape = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        shape = np.convolve(np.pad(shape, len(KERNEL) // 2, mode="edge"), KERNEL, "valid")
    joint = likelihood * shape
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def _top_probability(shape: Array, center: Array, spread: Array) -> Array:
    """Return the probability above the threshold that 1% of the records are expected to exceed, (n,)."""
    width = STEPS[1] - STEPS[0]

    def above(threshold: float) -> Array:
        standardized = (threshold - center) / spread
        share = np.clip((STEPS + width / 2 - standardized[:, None]) / width, 0, 1)
        return np.asarray((shape * share).sum(axis=1))

    low, high = float((center + spread * STEPS[0]).min()) - 1, float((center + spread * STEPS[-1]).max()) + 1
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle).mean() > TOP else (low, middle)
    return above(high)


def _neighbors(groups: list[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
    """Return each group with those next to it."""
    return [np.concatenate(groups[max(0, index - 1) : index + 2]) for index in range(len(groups))]


def _smooth(value: Callable[[NDArray[np.intp]], float], groups: list[NDArray[np.intp]]) -> Array:
    """Return a figure of the groups and their neighbors at each record, (n,)."""
    return _spread_out([float(value(rows)) for rows in _neighbors(groups)], groups)


def _spread_out(values: list[float], groups: list[NDArray[np.intp]]) -> Array:
    """Return a value per group, linear in between, at each record."""
    order = np.concatenate(groups)
    ends = np.cumsum([len(rows) for rows in groups])
    centers = ends - np.array([len(rows) for rows in groups]) / 2
    result = np.empty(len(order))
    result[order] = np.interp(np.arange(len(order)) + 0.5, centers, values)
    return result
