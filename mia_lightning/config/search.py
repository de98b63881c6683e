"""Options of a search. Imports neither torch, ray nor optuna, so that `--help` is instant."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mia_lightning.config.schema import RunConfig


@dataclass
class SearchConfig:
    """What is tried, and by what it is judged."""

    goal: Literal["attack", "reference_training"] = "attack"
    """attack searches fields of attacks, signals and references.scores for the highest metric, out-of-fold; recipe
    searches references.training for the references that behave most like the target."""

    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Dotted field of the run to its distribution: {dist: uniform, low: 0, high: 0.5}, {dist: loguniform, low: 1.0e-4,
    high: 1.0e-2}, {dist: int, low: 1, high: 8} or {dist: choice, values: [...]}."""

    trials: int = 100
    """How many configurations are tried beside the run's own; a grid may have fewer."""

    metric: str = "tpr@0.01"
    """auc, partial_auc (up to FPR 5%, much less noisy), or tpr@FPR for one of evaluation.fprs."""

    attack: str | None = None
    """The attack that is judged; the submitted one when not given."""

    algorithm: Literal["random", "optuna", "grid"] = "random"
    """optuna is its TPE sampler; grid takes every combination, of uniform and loguniform at their `steps` points."""

    scheduler: Literal["none", "asha"] = "none"
    """asha stops trials by what the first fold's held-out rows show after each epoch."""

    grace_period: int = 3
    """asha: epochs that every trial may train."""

    engine: Literal["auto", "local", "ray"] = "auto"
    """here runs trials in this process, networks that differ in rates only side by side; ray lets workers run them;
    auto takes ray where its start-up is worth it."""

    batch_trials: int = 16
    """here: most networks trained side by side; 1 trains each trial by itself."""

    max_concurrent: int = 0
    """ray: trials at the same time; 0 = as many as there are processors for."""

    cpus_per_trial: int = 1
    """ray: processors, and so threads, of each trial."""

    gpus_per_trial: float = 0.0
    """ray: GPUs of each trial, 0.25 for four on one; the attack's own accelerator option says where it trains."""

    time_budget: float | None = None
    """Seconds after which no new trial starts."""

    references: int = 1
    """recipe: reference models trained per trial."""

    def __post_init__(self) -> None:
        for name in ("trials", "grace_period", "batch_trials", "cpus_per_trial", "references"):
            if getattr(self, name) < 1:
                raise ValueError(f"search.{name} must be at least 1, got {getattr(self, name)}")
        if self.max_concurrent < 0 or self.gpus_per_trial < 0:
            raise ValueError("search.max_concurrent and .gpus_per_trial must be 0 or more")
        if self.time_budget is not None and self.time_budget <= 0:
            raise ValueError(f"search.time_budget must be above 0, got {self.time_budget}")


@dataclass
class TuneConfig(RunConfig):
    """A run, and the search over its fields."""

    search: SearchConfig = field(default_factory=SearchConfig)

    @property
    def run(self) -> RunConfig:
        """The run without the search: what the search starts from."""
        return RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})

    @property
    def judged(self) -> str:
        """Name of the attack that is judged."""
        return self.search.attack or self.submitted
