"""Held-out evaluation of the winner, next to the run's own configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.metrics.intervals import TAILS
from mia_lightning.metrics.ranks import allowed
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
    """Return the comparison with the paired interval of the gain."""
    member = outputs.public.membership[outputs.public.held_out]
    sides = [np.flatnonzero(member == value) for value in (1, 0)]

    def gain(rows: NDArray[np.intp]) -> float:
        scores = (winner.held_out_scores[rows], default.held_out_scores[rows])
        return metric_value(metric, scores[0], member[rows]) - metric_value(metric, scores[1], member[rows])

    rng = np.random.default_rng(seed)
    resampled = [gain(np.concatenate([rng.choice(side, len(side)) for side in sides])) for _ in range(RESAMPLES)]
    low, high = (float(end) for end in np.quantile(resampled, TAILS))
    fpr = PARTIAL if metric == "partial_auc" else float(metric.removeprefix("tpr@")) if metric != "auc" else None
    resolvable = fpr is None or allowed(len(sides[1]), fpr) >= ENOUGH
    return Comparison(metric, default, winner, Interval(gain(np.arange(len(member))), low, high), resolvable)


def interval_of(evaluation: Evaluation, metric: str) -> Interval:
    """Return a metric of an evaluation with its interval."""
    if metric == "auc":
        return Interval(evaluation.auc, evaluation.auc_low, evaluation.auc_high)
    if metric == "partial_auc":
        return Interval(evaluation.partial_auc, evaluation.partial_auc_low, evaluation.partial_auc_high)
    point = next(point for point in evaluation.points if f"tpr@{point.fpr:g}" == metric)
    return Interval(point.tpr, point.low, point.high)
