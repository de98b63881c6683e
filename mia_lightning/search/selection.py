"""Held-out evaluation of the winner, next to the run's own configuration."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.metrics.intervals import TAILS
from mia_lightning.metrics.ranks import allowed, without_ties
from mia_lightning.metrics.roc import PARTIAL, Evaluation
from mia_lightning.pipeline.attack_results import attack_result
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.scores.crossfit import cross_fit
from mia_lightning.search.attack_objective import AttackObjective, metric_value, required_attacks

RESAMPLES = 2000

ENOUGH = 10
"""False positives that the held-out set must allow before the bootstrap interval of a TPR is reliable."""


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% confidence interval."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """Standard error of a normal interval of this width."""
        return (self.high - self.low) / 3.92


@dataclass(frozen=True, eq=False)
class Estimate:
    """Figures of one configuration on the development records and on the held-out set."""

    trial: int
    inner: Evaluation
    """Out-of-fold on the development records, where trials were compared."""

    outer: Evaluation
    """On the held-out set, which no trial saw."""

    held_out_scores: NDArray[np.float64]
    """(H,) mean of the folds' models."""

    def optimism(self, metric: str) -> float:
        """Return by how much the inner figure exceeds the outer one."""
        return interval_of(self.inner, metric).value - interval_of(self.outer, metric).value

    def to_dict(self, metric: str) -> dict[str, Any]:
        """Return plain values for JSON."""
        evaluations = {"inner": self.inner.to_dict(), "outer": self.outer.to_dict()}
        return {"trial": self.trial, **evaluations, "optimism": self.optimism(metric)}


@dataclass(frozen=True, eq=False)
class Comparison:
    """The winner and the run's own configuration."""

    metric: str
    default: Estimate
    winner: Estimate
    gain: Interval
    """Metric of the winner minus that of the default on the held-out set; paired, stratified bootstrap."""

    resolvable: bool
    """False where the held-out set allows fewer than ten false positives at the metric's rate: the interval of the
    gain then covers too rarely."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "metric": self.metric,
            "default": self.default.to_dict(self.metric),
            "winner": self.winner.to_dict(self.metric),
            "gain": {"value": self.gain.value, "low": self.gain.low, "high": self.gain.high},
            "gain_resolvable": self.resolvable,
        }


def estimate(objective: AttackObjective, outputs: ModelOutputs, config: RunConfig, trial: int) -> Estimate:
    """Fit a configuration as train.py does, and evaluate it on both parts of the public records."""
    attacks = required_attacks(config.attacks, objective.attack)
    table = objective.table(config)
    fits = cross_fit(attacks, table, objective.member, objective.fold, seed=config.seed, stability=True)
    result = attack_result(config, fits[objective.attack], outputs)
    assert result.held_out is not None
    return Estimate(trial, result.public, result.held_out, result.public_scores[outputs.public.held_out])


def compare(default: Estimate, winner: Estimate, outputs: ModelOutputs, *, metric: str, seed: int) -> Comparison:
    """Return the comparison with the paired interval of the gain.

    In the interval ties are split at random: otherwise scores of few values, whose highest ties exceed the rate, lose
    to any noise of many values. It is extended to the gain itself where that lies outside.
    """
    member = outputs.public.membership[outputs.public.held_out]
    sides = [np.flatnonzero(member == value) for value in (1, 0)]

    scores = (winner.held_out_scores, default.held_out_scores)
    untied = [without_ties(side, seed) for side in scores]
    value = metric_value(metric, scores[0], member) - metric_value(metric, scores[1], member)
    rng, resampled = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rng.choice(side, len(side)) for side in sides])
        first, second = (metric_value(metric, side[rows], member[rows]) for side in untied)
        resampled.append(first - second)
    low, high = (float(end) for end in np.quantile(resampled, TAILS))
    fpr = PARTIAL if metric == "partial_auc" else float(metric.removeprefix("tpr@")) if metric != "auc" else None
    resolvable = fpr is None or allowed(len(sides[1]), fpr) >= ENOUGH
    return Comparison(metric, default, winner, Interval(value, min(low, value), max(high, value)), resolvable)


def interval_of(evaluation: Evaluation, metric: str) -> Interval:
    """Return a metric of an evaluation with its interval."""
    if metric == "auc":
        return Interval(evaluation.auc, evaluation.auc_low, evaluation.auc_high)
    if metric == "partial_auc":
        return Interval(evaluation.partial_auc, evaluation.partial_auc_low, evaluation.partial_auc_high)
    point = next(point for point in evaluation.points if f"tpr@{point.fpr:g}" == metric)
    return Interval(point.tpr, point.low, point.high)
