"""What a search found, and how good it is on records that no trial saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.metrics.intervals import TAILS
from mia_lightning.metrics.ranks import allowed
from mia_lightning.metrics.roc import PARTIAL, Evaluation
from mia_lightning.pipeline.audit import attack_result
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.scores.crossfit import cross_fit
from mia_lightning.search.attack_objective import AttackProblem, figure, needed

RESAMPLES = 2000

ENOUGH = 10
"""False positives that the hold-out has to allow before the bootstrap's interval of a TPR is worth giving."""


@dataclass(frozen=True)
class Range:
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """SplitInfo the interval's width in normal standard errors."""
        return (self.high - self.low) / 3.92


@dataclass(frozen=True, eq=False)
class Estimate:
    """One configuration on the records that trials were compared on, and on those that none saw."""

    trial: int
    inner: Evaluation
    """Out-of-fold over the development records."""

    outer: Evaluation
    """On the hold-out."""

    held_out_scores: NDArray[np.float64]
    """(H,) mean of the folds' models."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The winner beside the run's own configuration."""

    metric: str
    default: Estimate
    winner: Estimate
    gain: Range
    """Metric of the winner minus that of the default on the hold-out; interval by a paired, stratified bootstrap."""

    resolvable: bool
    """False where the hold-out allows fewer than ten false positives at the metric's rate: the interval of the gain
    then covers too seldom."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        rows = {"default": self.default, "winner": self.winner}
        return {
            "metric": self.metric,
            **{
                name: {
                    "trial": one.trial,
                    "inner": one.inner.to_dict(),
                    "outer": one.outer.to_dict(),
                    "optimism": optimism(one, self.metric),
                }
                for name, one in rows.items()
            },
            "gain": {"value": self.gain.value, "low": self.gain.low, "high": self.gain.high},
            "gain_resolvable": self.resolvable,
        }


def estimate(problem: AttackProblem, answered: ModelOutputs, config: RunConfig, trial: int) -> Estimate:
    """Fit a configuration as a run of it does, and evaluate it on either part of the public records."""
    attacks = needed(config.attacks, problem.attack)
    fits = cross_fit(attacks, problem.table(config), problem.member, problem.fold, seed=config.seed, stability=True)
    result = attack_result(config, fits[problem.attack], answered)
    assert result.held_out is not None
    held_out = answered.public.held_out
    return Estimate(trial, result.public, result.held_out, result.public_scores[held_out])


def compare(default: Estimate, winner: Estimate, answered: ModelOutputs, *, metric: str, seed: int) -> Outcome:
    """Return the outcome, with the paired interval of the gain."""
    member = answered.public.membership[answered.public.held_out]
    first, second = winner.held_out_scores, default.held_out_scores
    sides = [np.flatnonzero(member == value) for value in (1, 0)]
    rng = np.random.default_rng(seed)
    moved = np.empty(RESAMPLES)
    for place in range(RESAMPLES):
        rows = np.concatenate([rng.choice(side, len(side)) for side in sides])
        moved[place] = figure(metric, first[rows], member[rows]) - figure(metric, second[rows], member[rows])
    value = figure(metric, first, member) - figure(metric, second, member)
    low, high = (float(end) for end in np.quantile(moved, TAILS))
    fpr = PARTIAL if metric == "partial_auc" else float(metric.removeprefix("tpr@")) if metric != "auc" else None
    resolvable = fpr is None or allowed(len(sides[1]), fpr) >= ENOUGH
    return Outcome(metric, default, winner, Range(value, low, high), resolvable)


def range_of(evaluation: Evaluation, metric: str) -> Range:
    """Return a metric of an evaluation with its interval."""
    if metric == "auc":
        return Range(evaluation.auc, evaluation.auc_low, evaluation.auc_high)
    if metric == "partial_auc":
        return Range(evaluation.partial_auc, evaluation.partial_auc_low, evaluation.partial_auc_high)
    point = next(point for point in evaluation.points if f"tpr@{point.fpr:g}" == metric)
    return Range(point.tpr, point.low, point.high)


def optimism(one: Estimate, metric: str) -> float:
    """Return by how much the inner estimate is above the outer one."""
    return range_of(one.inner, metric).value - range_of(one.outer, metric).value
