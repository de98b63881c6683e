"""Fraction of an unlabeled set that was in training, and the precision that it implies.

The scores of the unlabeled records are assumed to be drawn from pi F_in + (1 - pi) F_out, where F_in and F_out are the
distributions of the known members and non-members. Any function f of the score then has the mean pi E_in f + (1 - pi)
E_out f, so that pi = (mean_U f - mean_out f) / (mean_in f - mean_out f). Here f is the calibrated membership
probability (isotonic regression), fitted on the known records of other folds. The interval contains each pi that is not
rejected at 5% by the studentized mean, ordered by likelihood ratio within [0, 1] (Feldman & Cousins 1998), so that it
covers at the ends as well; the variance has the sampling of the known and of the unlabeled records, by group.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from mia_lightning.errors import MIAError
from mia_lightning.metrics.evaluation import OperatingPoint
from mia_lightning.metrics.ranks import Array, Membership, split
from mia_lightning.scores.calibration import Isotonic

FOLDS = 5

LEVEL = 0.05
"""Error of an interval."""

FEWEST = 50
"""Known members, known non-members and unlabeled records that an estimate needs each."""

BINS, PER_BIN = 20, 25
"""Most bins of the test of fit, and known records of either side that a bin needs on average."""

TINY = float(np.finfo(np.float64).tiny)

MISFIT = 1e-3
"""p-value of the test of fit below which the estimate is not to be relied on."""


@dataclass(frozen=True)
class Fraction:
    """Share of members in an unlabeled set."""

    attack: str
    records: int
    """Unlabeled records."""

    value: float
    """In [0, 1]."""

    low: float
    """95% interval over known and unlabeled records, by group."""

    high: float

    fit_p_value: float
    """Of the chi-squared test that the unlabeled scores are such a mixture."""

    @property
    def fits(self) -> bool:
        """Whether the unlabeled scores are compatible with a mixture of the known ones."""
        return self.fit_p_value >= MISFIT

    def precision(self, point: OperatingPoint) -> tuple[float, float]:
        """Return the share of members among the unlabeled records above a threshold.

        The second value is a lower limit: at the low ends of fraction and TPR and the high end of the FPR.
        """
        ends = (self.value, point.tpr, point.fpr), (self.low, point.low, point.fpr_high)
        value, low = (prior * tpr / max(prior * tpr + (1 - prior) * fpr, TINY) for prior, tpr, fpr in ends)
        return value, low


def fraction_in_training(
    attack: str,
    unlabeled: Array,
    scores: Array,
    member: Membership,
    *,
    groups: NDArray[np.generic] | None = None,
    unlabeled_groups: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> Fraction:
    """Estimate the share of members in an unlabeled set.

    Args:
        attack: Name of the score.
        unlabeled: (M,) finite scores, computed by the same rule as `scores`.
        scores: (N,) finite scores of records of known membership.
        member: (N,) 1 or 0.
        groups: (N,) group of each known record; None = independent records.
        unlabeled_groups: (M,) group of each unlabeled record; None = independent records.
        seed: Random seed of the folds.

    Raises:
        MIAError: fewer than 50 members, non-members or unlabeled records, scores that do not separate members from
            non-members, or as `metrics.evaluate`.
    """
    split(scores, member)
    check_sizes(member, unlabeled)
    if not np.isfinite(unlabeled).all():
        raise MIAError("unlabeled scores are NaN or infinite; they cannot be ranked")
    member = np.asarray(member).astype(np.int8)
    group = _index(groups, len(scores))
    probability, new = _calibrated(scores, member, unlabeled, group, np.random.default_rng(seed))
    mean_in, mean_out = probability[member == 1].mean(), probability[member == 0].mean()
    if mean_in <= mean_out:
        raise MIAError(f"the scores of {attack} do not separate members from non-members; leave --unlabeled out")
    gap = float(mean_in - mean_out)
    estimate = float((new.mean() - mean_out) / gap)
    parts = [
        np.bincount(group, np.where(member == 1, probability - mean_in, 0)) / (member == 1).sum(),
        np.bincount(group, np.where(member == 0, probability - mean_out, 0)) / (member == 0).sum(),
    ]
    of_new = np.bincount(_index(unlabeled_groups, len(new)), new - new.mean()) / len(new)

    def error(fraction: Array) -> Array:
        mixed = fraction[:, None] * parts[0] + (1 - fraction)[:, None] * parts[1]
        return np.asarray(np.sqrt((mixed**2).sum(axis=1) + (of_new**2).sum()) / gap)

    low, high = _interval(estimate, error)
    value = min(max(estimate, 0.0), 1.0)
    fit = _fit_p_value(scores, member, unlabeled, value)
    return Fraction(attack, len(unlabeled), value, low, high, fit)


def check_sizes(member: Membership, unlabeled: Array) -> None:
    """Check that there are enough records for an estimate.

    Raises:
        MIAError: fewer than 50 members, non-members or unlabeled records.
    """
    counts = int((np.asarray(member) == 1).sum()), int((np.asarray(member) == 0).sum()), len(unlabeled)
    if min(counts) < FEWEST:
        raise MIAError(
            f"the fraction in training needs {FEWEST} members, non-members and unlabeled records each, got "
            f"{counts[0]}, {counts[1]} and {counts[2]}; leave --unlabeled out, or give more records"
        )


def _index(groups: NDArray[np.generic] | None, count: int) -> NDArray[np.intp]:
    """Return the group of each record, from 0; each record its own without groups."""
    return np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]


def _calibrated(
    scores: Array, member: NDArray[np.int8], unlabeled: Array, group: NDArray[np.intp], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return out-of-fold probabilities (N,), folds by group, and the mean over the folds for new records (M,)."""
    fold = rng.permutation(int(group.max()) + 1)[group] % FOLDS
    probability, new = np.empty(len(scores)), np.zeros(len(unlabeled))
    for number in range(FOLDS):
        train = fold != number
        calibrator = Isotonic(keep_rank_order=False).fit(scores[train], member[train])
        probability[~train] = calibrator.predict_proba(scores[~train])
        new += calibrator.predict_proba(unlabeled) / FOLDS
    return probability, new


def _interval(estimate: float, error: Callable[[Array], Array]) -> tuple[float, float]:
    """Return the interval of a proportion whose estimate, which may leave [0, 1], is normal.

    Args:
        estimate: Estimate of the proportion.
        error: Standard error at proportions (G,).
    """
    center = min(max(estimate, 0.0), 1.0)
    steps = np.linspace(-4, 4, 801) * error(np.array([center]))
    proportion = np.unique(np.clip(center + steps, 0, 1))
    scale = error(proportion)[:, None]
    deviate = np.linspace(-6, 6, 601)
    weight = np.exp(-(deviate**2) / 2)

    def deviance(values: Array) -> Array:
        """Return -2 log of the likelihood ratio of each proportion to the best one in [0, 1]."""
        best = np.clip(values, 0, 1)
        return np.asarray(((values - proportion[:, None]) ** 2 - (values - best) ** 2) / scale**2)

    simulated = deviance(proportion[:, None] + scale * deviate)
    observed = deviance(np.array([[estimate]]))
    p_value = np.where(simulated >= observed - 1e-9, weight, 0).sum(axis=1) / weight.sum()
    kept = proportion[p_value >= LEVEL]
    return float(kept.min()), float(kept.max())


def _fit_p_value(scores: Array, member: NDArray[np.int8], unlabeled: Array, fraction: float) -> float:
    """Return the p-value of the chi-squared test of the mixture, over quantile bins of the unlabeled scores.

    The variance of the known histograms is added to that of the unlabeled one.
    """
    fewest = min(int(member.sum()), int((member == 0).sum()), len(unlabeled))
    bins = max(3, min(BINS, fewest // PER_BIN))
    levels = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(np.concatenate([scores, unlabeled]), levels))
    counts = [
        np.bincount(np.searchsorted(edges, part, side="left"), minlength=len(edges) + 1).astype(np.float64)
        for part in (scores[member == 1], scores[member == 0], unlabeled)
    ]
    in_, out, new = (count / count.sum() for count in counts)
    mixed = fraction * in_ + (1 - fraction) * out
    variance = (
        np.maximum(mixed, new) / len(unlabeled)
        + fraction**2 * in_ / counts[0].sum()
        + (1 - fraction) ** 2 * out / counts[1].sum()
    )
    statistic = float(((new - mixed) ** 2 / np.maximum(variance, TINY)).sum())
    return float(chdtrc(max(len(new) - 2, 1), statistic))
