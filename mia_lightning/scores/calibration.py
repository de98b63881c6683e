"""Calibration of scores to membership probabilities.

Records are ranked by their raw scores. A probability never falls as the score rises; where the fitted scores rank
non-members above members, it is constant.
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
    """Base class: a non-decreasing map from scores to membership probabilities.

    A subclass is a dataclass: its fields are its options, their docstrings the help text; fitted attributes end in an
    underscore.
    """

    def fit(self, scores: Array, member: NDArray[np.int8]) -> Self:
        """Fit on out-of-fold scores and return self.

        Args:
            scores: (N,) finite, higher = more likely a member.
            member: (N,) 1 or 0, both present.

        Raises:
            MIAError: lengths differ, a score is NaN or infinite, members or non-members are missing.
        """
        raise NotImplementedError

    def predict_proba(self, scores: Array) -> Array:
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
        slope, intercept = _logistic((scores - mean) / scale, member)
        self.slope_, self.intercept_ = slope / scale, intercept - slope * mean / scale
        return self

    def predict_proba(self, scores: Array) -> Array:
        """Return the sigmoid, (N,) in [0, 1]."""
        return _sigmoid(self.slope_ * scores + self.intercept_)


@dataclass
class Isotonic(Calibrator):
    """Isotonic regression: the best non-decreasing step function (Zadrozny & Elkan 2002).

    Its plateaus tie many scores, so a ranking by it loses true positives at low false-positive rates.
    """

    keep_rank_order: bool = True
    """Whether records on one plateau keep the order of their scores: each probability is raised by the smallest
    floating-point step (about 1e-16), so that probabilities rank exactly as the scores do."""

    model_: Any = field(default=None, init=False, repr=False, compare=False)

    def fit(self, scores: Array, member: NDArray[np.int8]) -> Self:
        """Fit by pooling adjacent violators."""
        from sklearn.isotonic import IsotonicRegression

        _check(scores, member)
        self.model_ = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, member)
        return self

    def predict_proba(self, scores: Array) -> Array:
        """Return the step function, linear between the fitted scores, (N,) in [0, 1].

        With `keep_rank_order` records of a plateau move up by at most N ulp, so a value depends on the other scores of
        the call in its last digits; plateaus keep their order.
        """
        if not self.keep_rank_order:
            return np.asarray(self.model_.predict(scores), dtype=np.float64)
        levels, level_of_row = np.unique(scores, return_inverse=True)
        return _strictly_increasing(np.asarray(self.model_.predict(levels), dtype=np.float64))[level_of_row]


def cross_fit_probability(
    scores: Array, member: NDArray[np.int8], fold: NDArray[np.integer], calibrator: Calibrator
) -> Array:
    """Return (N,) out-of-fold probabilities in [0, 1].

    Args:
        scores: (N,) out-of-fold scores.
        member: (N,) 1, 0 or -1 = unknown.
        fold: (N,) fold from 0, or -1 = none. No calibrator is fitted on rows without fold or membership; rows without
            a fold get their probability from a calibrator fitted on all other rows.
        calibrator: Copied for each fold; not modified.

    Raises:
        MIAError: the rows outside some fold hold no members or no non-members.
    """
    probability = np.empty(len(scores))
    usable = (fold >= 0) & (member >= 0)
    for held_out in np.unique(fold):
        rows = usable & (fold != held_out)
        new = fold == held_out
        probability[new] = deepcopy(calibrator).fit(scores[rows], member[rows]).predict_proba(scores[new])
    return probability


def _check(scores: Array, member: NDArray[np.int8]) -> None:
    if scores.ndim != 1 or scores.shape != member.shape:
        raise MIAError(
            f"scores have shape {scores.shape} and membership {member.shape}; expected one of each per record"
        )
    if not np.isfinite(scores).all():
        raise MIAError("a score is NaN or infinite; it cannot be calibrated")
    values = np.unique(member)
    if not np.array_equal(values, [0, 1]):
        raise MIAError(f"calibration needs members (1) and non-members (0), found only membership {values.tolist()}")


def _location(scores: Array, member: NDArray[np.int8]) -> tuple[float, float]:
    """Return mean and standard deviation of the scores, after checking them; 1 where all are equal."""
    _check(scores, member)
    deviation = float(scores.std())
    return float(scores.mean()), deviation if deviation > 0 else 1.0


def _logistic(inputs: Array, member: NDArray[np.int8]) -> tuple[float, float]:
    """Return slope and intercept of a logistic regression by maximum likelihood; a negative slope becomes 0.

    Args:
        inputs: (N,) standardized scores.
        member: (N,) 1 or 0, fitted as Platt's targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2).
    """
    from sklearn.linear_model import LogisticRegression

    count = np.bincount(member, minlength=2)
    target = np.where(member == 1, (count[1] + 1) / (count[1] + 2), 1 / (count[0] + 2))
    weights = np.concatenate([target, 1 - target])  # a soft target is one weighted row per class
    classes = np.repeat([1, 0], len(member))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8, max_iter=200)
    with catch_warnings():  # constant scores: the Hessian is singular and the solver falls back to L-BFGS
        filterwarnings("ignore", message="The inner solver of NewtonCholesky")
        model.fit(np.concatenate([inputs, inputs])[:, None], classes, sample_weight=weights)
    slope, share = float(model.coef_[0, 0]), float(member.mean())
    return (slope, float(model.intercept_[0])) if slope >= 0 else (0.0, float(np.log(share / (1 - share))))


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def _strictly_increasing(values: Array) -> Array:
    """Return the smallest strictly increasing floats at or above non-decreasing values in [0, 1], within [0, 1].

    The bit patterns of positive floats, read as integers, sort as the floats do, and neighbors differ by 1: each value
    becomes the larger of itself and one more than its predecessor. Values are first moved below 1 and above the
    subnormal floats, which some processors flush to 0.
    """
    steps = np.arange(len(values))
    room = np.float64(1.0).view(np.int64) - len(values)
    bits = np.minimum(np.maximum(values, 1e-12).view(np.int64), room)
    return (np.maximum.accumulate(bits - steps) + steps).view(np.float64)
