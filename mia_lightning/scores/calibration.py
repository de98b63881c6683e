"""Calibration: how a score becomes the probability of being a member, in a column of its own.

Ranking is by the raw score. A probability never falls as the score rises; where the fitted scores rank the wrong way
round, it is constant.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Self
from warnings import catch_warnings, filterwarnings

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError

Array = NDArray[np.float64]


@dataclass
class Calibrator:
    """One way to turn scores into probabilities.

    A subclass is a dataclass: its fields are its options, their docstrings the help text, and what `fit` learns ends in
    an underscore.
    """

    def fit(self, scores: Array, member: NDArray[np.int8]) -> Self:
        """Learn from scores that were made without their own membership, and return self.

        Args:
            scores: (N,) finite, higher = more likely a member.
            member: (N,) 1 or 0, both present.

        Raises:
            MIAError: lengths differ, a score is NaN or infinite, only one side is present.
        """
        raise NotImplementedError

    def probability(self, scores: Array) -> Array:
        """Return (N,) probabilities in [0, 1] that never fall as the score rises."""
        raise NotImplementedError


@dataclass
class Platt(Calibrator):
    """A sigmoid of the score (Platt 1999), with his smoothed targets, so that it is finite at perfect separation."""

    slope_: float = field(default=0.0, init=False, repr=False, compare=False)
    intercept_: float = field(default=0.0, init=False, repr=False, compare=False)

    def fit(self, scores: Array, member: NDArray[np.int8]) -> Self:
        """Fit slope and intercept of the log-odds by maximum likelihood; the slope is at least 0."""
        mean, scale = _location(scores, member)
        (slope,), intercept = _increasing_logistic(((scores - mean) / scale)[:, None], member)
        self.slope_, self.intercept_ = slope / scale, intercept - slope * mean / scale
        return self

    def probability(self, scores: Array) -> Array:
        """Return the sigmoid, (N,) in [0, 1]."""
        return _sigmoid(self.slope_ * scores + self.intercept_)


@dataclass
class Beta(Calibrator):
    """Beta calibration (Kull et al. 2017), with a slope of its own for low and for high scores.

    The original takes a probability s; here s is the sigmoid of the standardized score, and the log-odds are
    a log s - b log(1 - s) + c with a and b at least 0.
    """

    mean_: float = field(default=0.0, init=False, repr=False, compare=False)
    scale_: float = field(default=1.0, init=False, repr=False, compare=False)
    slopes_: Array = field(default_factory=lambda: np.zeros(2), init=False, repr=False, compare=False)
    intercept_: float = field(default=0.0, init=False, repr=False, compare=False)

    def fit(self, scores: Array, member: NDArray[np.int8]) -> Self:
        """Fit a, b and c by maximum likelihood, with Platt's smoothed targets."""
        self.mean_, self.scale_ = _location(scores, member)
        self.slopes_, self.intercept_ = _increasing_logistic(self._inputs(scores), member)
        return self

    def probability(self, scores: Array) -> Array:
        """Return the probabilities, (N,) in [0, 1]."""
        return _sigmoid(self._inputs(scores) @ self.slopes_ + self.intercept_)

    def _inputs(self, scores: Array) -> Array:
        """Return (N, 2): log s and -log(1 - s), straight from the standardized score."""
        standardized = (scores - self.mean_) / self.scale_
        return np.stack([-np.logaddexp(0, -standardized), np.logaddexp(0, standardized)], axis=1)


@dataclass
class Isotonic(Calibrator):
    """The best non-decreasing step function (Zadrozny & Elkan 2002).

    Its plateaus tie many scores: a ranking by it loses true positives at low false-positive rates.
    """

    tie_break: bool = True
    """Whether records on one plateau keep the order of their scores, by moving them apart by the least that floating
    point can tell (about 1e-16 each): the probabilities then rank exactly as the scores do."""

    model_: Any = field(default=None, init=False, repr=False, compare=False)

    def fit(self, scores: Array, member: NDArray[np.int8]) -> Self:
        """Fit by pooling adjacent violators."""
        from sklearn.isotonic import IsotonicRegression

        _check(scores, member)
        self.model_ = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, member)
        return self

    def probability(self, scores: Array) -> Array:
        """Return the step function, linear between the fitted scores, (N,) in [0, 1].

        With `tie_break` a plateau's records move up by at most N ulp, so within it a value depends on which other
        scores are asked for, by less than any digit that means something; plateaus keep their order.
        """
        if not self.tie_break:
            return np.asarray(self.model_.predict(scores), dtype=np.float64)
        levels, place = np.unique(scores, return_inverse=True)
        return _strictly_increasing(np.asarray(self.model_.predict(levels), dtype=np.float64))[place]


def cross_fit_probability(
    scores: Array, member: NDArray[np.int8], fold: NDArray[np.integer], calibrator: Calibrator
) -> Array:
    """Return (N,) probabilities in [0, 1], each from a calibrator that did not see the row's fold.

    Args:
        scores: (N,) out-of-fold scores.
        member: (N,) 1, 0 or -1 = unknown.
        fold: (N,) fold from 0, or -1 = none. Rows without fold or membership are fitted on by none; those without a
            fold get their probability from a calibrator fitted on all other rows.
        calibrator: Copied for each fold; itself left as it is.

    Raises:
        MIAError: the rows outside some fold hold no members or no non-members.
    """
    probability = np.empty(len(scores))
    usable = (fold >= 0) & (member >= 0)
    for held_out in np.unique(fold):
        rows = usable & (fold != held_out)
        asked = fold == held_out
        probability[asked] = deepcopy(calibrator).fit(scores[rows], member[rows]).probability(scores[asked])
    return probability


def _check(scores: Array, member: NDArray[np.int8]) -> None:
    if scores.ndim != 1 or scores.shape != member.shape:
        raise MIAError(
            f"scores have shape {scores.shape} and membership {member.shape}; expected one of each per record"
        )
    if not np.isfinite(scores).all():
        raise MIAError("a score is NaN or infinite; it cannot be calibrated")
    found = np.unique(member)
    if not np.array_equal(found, [0, 1]):
        raise MIAError(f"calibration needs members (1) and non-members (0), found only membership {found.tolist()}")


def _location(scores: Array, member: NDArray[np.int8]) -> tuple[float, float]:
    """Return mean and standard deviation of the scores, after checking them; 1 where all are equal."""
    _check(scores, member)
    deviation = float(scores.std())
    return float(scores.mean()), deviation if deviation > 0 else 1.0


def _increasing_logistic(inputs: Array, member: NDArray[np.int8]) -> tuple[Array, float]:
    """Return slopes (F,), all at least 0, and the intercept of a logistic regression on (N, F) inputs.

    As in Kull et al. 2017, an input whose slope comes out negative is left out and the others are fitted again.
    """
    kept = list(range(inputs.shape[1]))
    slopes = np.zeros(inputs.shape[1])
    while kept:
        fitted, intercept = _logistic(inputs[:, kept], member)
        if fitted.min() >= 0:
            slopes[kept] = fitted
            return slopes, intercept
        del kept[int(fitted.argmin())]
    share = member.mean()
    return slopes, float(np.log(share / (1 - share)))


def _logistic(inputs: Array, member: NDArray[np.int8]) -> tuple[Array, float]:
    """Fit by maximum likelihood to Platt's targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2)."""
    from sklearn.linear_model import LogisticRegression

    count = np.bincount(member, minlength=2)
    target = np.where(member == 1, (count[1] + 1) / (count[1] + 2), 1 / (count[0] + 2))
    weights = np.concatenate([target, 1 - target])  # a soft target is one record on either side
    sides = np.repeat([1, 0], len(member))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8, max_iter=200)
    with (
        catch_warnings()
    ):  # constant scores make the Hessian singular; the solver then goes on with L-BFGS, and says so
        filterwarnings("ignore", message="The inner solver of NewtonCholesky")
        model.fit(np.concatenate([inputs, inputs]), sides, sample_weight=weights)
    return model.coef_[0], float(model.intercept_[0])


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def _strictly_increasing(values: Array) -> Array:
    """Return the least strictly increasing floats above non-decreasing values in [0, 1], still within [0, 1].

    The bit patterns of positive floats, read as integers, are in the order of the floats, and neighbors differ by 1:
    each becomes the larger of itself and one more than the one before. Room is made first at either end: below 1, and
    above the subnormal floats, which some processors' settings take for 0.
    """
    steps = np.arange(len(values))
    room = np.float64(1.0).view(np.int64) - len(values)
    bits = np.minimum(np.maximum(values, 1e-12).view(np.int64), room)
    return (np.maximum.accumulate(bits - steps) + steps).view(np.float64)
