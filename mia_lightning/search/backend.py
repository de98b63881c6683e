"""Where trials run: in this process, or by Ray where its start-up is worth it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from mia_lightning.config.search import TuneConfig
from mia_lightning.search.local import Finished, run_here
from mia_lightning.search.sampler import Proposals
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Problem

START_UP = 15.0
"""Seconds that Ray costs on two cores before its first trial ends."""

STACKED = 4.0
"""How many times as fast networks of one shape are trained side by side; see benchmarks/sweep.py."""


Engine = Callable[[Any, Proposals, Finished], None]


def engine_for(config: TuneConfig, problem: Problem, space: Space, seconds: float, count: int) -> Engine:
    """Return what runs the trials.

    Args:
        config: The search.
        problem: What trials judge.
        space: What they draw from.
        seconds: What the run's own configuration took.
        count: Trials to run.
    """
    search = config.search
    if count and (
        search.engine == "ray" or (search.engine == "auto" and _worth_ray(config, problem, space, seconds, count))
    ):
        from mia_lightning.search.ray_tune import run_with_ray

        most = max([1, *(_epochs(config, space))])
        return lambda problem, proposals, finished: run_with_ray(
            problem, proposals, search, finished, address=config.ray.address, most_epochs=most
        )
    return lambda problem, proposals, finished: run_here(problem, proposals, search, finished)


def _worth_ray(config: TuneConfig, problem: Problem, space: Space, seconds: float, count: int) -> bool:
    search = config.search
    if config.ray.address or search.gpus_per_trial:
        return True
    if find_spec("ray") is None:
        return False
    slots = search.max_concurrent or (os.cpu_count() or 1) // search.cpus_per_trial
    drawn = [space.draw(config.seed, number) for number in range(1, min(count, 64) + 1)]
    try:
        keys = [problem.stack_key(params) for params in drawn]
    except ValueError:
        keys = [None]
    side_by_side = search.batch_trials > 1 and search.scheduler == "none" and None not in keys
    speed = STACKED if side_by_side and len(drawn) >= 4 * len(set(keys)) else 1.0
    return slots > 1 and count * seconds / speed > START_UP + count * seconds / slots


def _epochs(config: TuneConfig, space: Space) -> list[int]:
    """Return the numbers of epochs that trials may have."""
    found = [int(attack.epochs) for attack in config.attacks.values() if hasattr(attack, "epochs")]
    for key, values in space.fields.items():
        if key.endswith(".epochs"):
            found += [int(value) for value in values.grid()]
    return found + [config.references.training.epochs] * (config.search.goal == "reference_training")
