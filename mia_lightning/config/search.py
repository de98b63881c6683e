"""Options of a search. Imports neither torch, ray nor optuna, so that `--help` is instant."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mia_lightning.config.schema import RunConfig


@dataclass
class SearchConfig:
    """Search space and objective."""

    goal: Literal["attack", "reference_training"] = "attack"
    """attack: search fields of attacks, signals and references.scores for the highest out-of-fold metric;
    reference_training: search references.training for the reference models that behave most like the target."""

    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Dotted field of the run to its distribution: {dist: uniform, low: 0, high: 0.5}, {dist: loguniform, low: 1.0e-4,
    high: 1.0e-2}, {dist: int, low: 1, high: 8} or {dist: choice, values: [...]}."""

    trials: int = 100
    """Configurations to try besides the run's own; a grid may have fewer."""

    metric: str = "tpr@0.01"
    """Objective of an attack search: auc, partial_auc (up to 5% FPR, much less noisy), or tpr@FPR for one of
    evaluation.fprs."""

    attack: str | None = None
    """Attack to evaluate (default: the submitted one)."""

    algorithm: Literal["random", "optuna", "grid"] = "random"
    """random: Optuna's RandomSampler; optuna: its TPESampler; grid: its GridSampler, with uniform and loguniform at
    `steps` points (default: 5)."""

    scheduler: Literal["none", "asha"] = "none"
    """asha: stop trials early by successive halving of their held-out figure in the first fold after each epoch."""

    grace_period: int = 3
    """Epochs that every trial trains under asha."""

    engine: Literal["auto", "local", "ray"] = "auto"
    """local: in this process; MLPs with the same shape are trained in one batch. ray: Ray Tune, on this machine or the
    cluster at ray.address. auto: ray where it saves more time than its start costs."""

    batch_trials: int = 16
    """Networks trained in one batch by the local engine; 1 trains each trial alone."""

    max_concurrent: int = 0
    """Trials that Ray runs at the same time; 0: as many as the processors allow."""

    cpus_per_trial: int = 1
    """Processors, and so threads, of each trial under Ray."""

    gpus_per_trial: float = 0.0
    """GPUs of each trial under Ray, 0.25 for four trials per GPU; the attack's accelerator option sets where it
    trains."""

    time_budget: float | None = None
    """Seconds after which no new trial starts (default: no limit)."""

    references: int = 1
    """Reference models trained per trial of a reference_training search."""

    def __post_init__(self) -> None:
        for name in ("trials", "grace_period", "batch_trials", "cpus_per_trial", "references"):
            if getattr(self, name) < 1:
                raise ValueError(f"search.{name} must be at least 1, got {getattr(self, name)}")
        if self.max_concurrent < 0 or not 0 <= self.gpus_per_trial < math.inf:
            raise ValueError("search.max_concurrent and search.gpus_per_trial must be 0 or more")
        if self.time_budget is not None and not self.time_budget > 0:
            raise ValueError(f"search.time_budget must be above 0, got {self.time_budget}")


@dataclass
class TuneConfig(RunConfig):
    """A run and the search over its fields."""

    search: SearchConfig = field(default_factory=SearchConfig)

    @property
    def run(self) -> RunConfig:
        """The run without the search."""
        return RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})

    @property
    def searched_attack(self) -> str:
        """Name of the attack that trials evaluate."""
        return self.search.attack or self.submitted
