"""Which configurations are tried: drawn, from a grid, or proposed by Optuna from what was found so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mia_lightning.config.search import SearchConfig
from mia_lightning.search.space import Choice, IntRange, LogUniform, Params, Space, rounded
from mia_lightning.search.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Proposals:
    """Hands out numbered configurations and hears how they did.

    A drawn configuration or one of a grid depends on the seed and its number alone, so a sweep that goes on tries what
    it would have tried. Optuna is told of all trials so far, and may then propose others.

    Args:
        space: The fields.
        search: Algorithm, scheduler and number of trials.
        seed: Drives the draws.
        done: Trials of an earlier try of this sweep.
        metric: What trials are judged by.
        higher_is_better: Of the metric.
    """

    def __init__(
        self,
        space: Space,
        search: SearchConfig,
        *,
        seed: int,
        done: Sequence[Trial],
        metric: str,
        higher_is_better: bool,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.search, self.seed = space, search, seed
        self.study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=search.grace_period, reduction_factor=3),
            direction="maximize" if higher_is_better else "minimize",
        )
        self.sign = 1 if higher_is_better else -1
        self.grid = space.grid() if search.algorithm == "grid" else []
        self.total = min(search.trials, len(self.grid)) if self.grid else search.trials
        self.metric = metric
        self._asked: dict[int, Any] = {}
        for trial in done:
            self._enter(trial)
        known = {trial.number for trial in done}
        self.waiting = [number for number in range(1, self.total + 1) if number not in known]

    def next(self) -> tuple[int, Params] | None:
        """Return number and parameters of a new trial, or None when all are handed out."""
        if not self.waiting:
            return None
        number = self.waiting.pop(0)
        if self.search.algorithm == "optuna":
            asked = self.study.ask(self._distributions())
            params = self._decoded(asked.params)
        else:
            params = self.grid[number - 1] if self.grid else self.space.draw(self.seed, number)
            self.study.enqueue_trial(self._encoded(params))
            asked = self.study.ask(self._distributions())
        self._asked[number] = asked
        return number, params

    def should_stop(self, number: int, epoch: int, value: float) -> bool:
        """Return whether successive halving stops a trial that reached a value (higher = better) after an epoch."""
        asked = self._asked[number]
        asked.report(self.sign * value, epoch)
        return bool(asked.should_prune())

    def tell(self, trial: Trial) -> None:
        """Hear how a trial ended."""
        from optuna.trial import TrialState

        asked = self._asked.pop(trial.number)
        if trial.status == "finished":
            self.study.tell(asked, trial.figures[self.metric])
        else:
            self.study.tell(asked, state=TrialState.PRUNED if trial.status == "stopped" else TrialState.FAIL)

    def _enter(self, trial: Trial) -> None:
        """Add a trial of an earlier try."""
        from optuna.trial import TrialState, create_trial

        if trial.number == 0:
            return
        state = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
        self.study.add_trial(
            create_trial(
                state=state[trial.status],
                params=self._encoded(trial.params),
                distributions=self._distributions(),
                value=trial.figures[self.metric] if trial.status == "finished" else None,
                intermediate_values={epoch: self.sign * value for epoch, value in trial.epochs.items()},
            )
        )

    def _distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {}
        for key, values in self.space.fields.items():
            if isinstance(values, Choice):  # Optuna keeps no lists, so it is told their places
                found[key] = CategoricalDistribution(range(len(values.values)))
            elif isinstance(values, IntRange):
                found[key] = IntDistribution(values.low, values.high)
            else:
                found[key] = FloatDistribution(values.low, values.high, log=isinstance(values, LogUniform))
        return found

    def _encoded(self, params: Params) -> Params:
        fields = self.space.fields
        return {
            key: list(values.values).index(params[key]) if isinstance(values, Choice) else params[key]
            for key, values in fields.items()
        }

    def _decoded(self, params: Params) -> Params:
        found: Params = {}
        for key, values in self.space.fields.items():
            if isinstance(values, Choice):
                found[key] = values.values[params[key]]
            elif isinstance(values, IntRange):
                found[key] = params[key]
            else:
                found[key] = rounded(params[key], values.low, values.high)
        return found
