"""Optuna samplers whose draws depend on the seed, the trial's number and earlier results alone."""

from math import prod
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from mia_lightning.config.search import SearchConfig
from mia_lightning.search.space import Space

NUMBER = "trial"
"""Parameter that receives the trial's number, where a space has it (Ray Tune's trials)."""


class NumberedSampler(BaseSampler):
    """A sampler of Optuna that is seeded by the search's seed and the trial's number.

    A resumed search therefore draws what an uninterrupted one draws: RandomSampler and GridSampler always, TPESampler
    where it has seen the same results. Trial 1 of a search is number 0 of Optuna's study.

    Args:
        search: Algorithm and number of trials.
        space: The fields.
        seed: Of the search.
    """

    def __init__(self, search: SearchConfig, space: Space, seed: int) -> None:
        self.algorithm, self.seed = search.algorithm, seed
        self.grid = space.grid() if search.algorithm == "grid" else {}
        self.total = min(search.trials, prod(map(len, self.grid.values()))) if self.grid else search.trials
        self.sampler: BaseSampler = GridSampler(self.grid, seed=seed) if self.grid else RandomSampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for one trial."""
        seed = int(np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0])
        if self.algorithm == "random":
            self.sampler = RandomSampler(seed=seed)
        elif self.algorithm == "optuna":
            self.sampler = TPESampler(seed=seed, constant_liar=True)
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what the sampler draws jointly."""
        space = self.sampler.infer_relative_search_space(study, trial)
        return {name: distribution for name, distribution in space.items() if name != NUMBER}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw jointly."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one field."""
        if param_name == NUMBER:
            return trial.number + 1
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)


def new_study(sampler: NumberedSampler, search: SearchConfig, *, higher_is_better: bool) -> Study:
    """Return a study in memory that proposes the trials, with the pruner that stands for ASHA in this process."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        sampler=sampler,
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=search.grace_period, reduction_factor=3),
        direction="maximize" if higher_is_better else "minimize",
    )
