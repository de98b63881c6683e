"""Trials by Ray Tune's workers, on this machine or a cluster; columns are shared, not copied."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from mia_lightning.config.search import SearchConfig
from mia_lightning.runtime.interruption import signals_as_keyboard_interrupt
from mia_lightning.runtime.ray_cluster import ray_session
from mia_lightning.search.local import Finished, judged
from mia_lightning.search.sampler import Proposals
from mia_lightning.search.trial import Problem, Trial, failed

TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""Tune's switches: no tables, no files, no complaint about a trial that failed before its first metric, no handler."""


def run_with_ray(
    problem: Problem,
    proposals: Proposals,
    search: SearchConfig,
    finished: Finished,
    *,
    address: str | None,
    most_epochs: int,
) -> None:
    """Run all trials that the proposals hand out, until the time budget is spent.

    Args:
        problem: What trials judge; arrays in it are put into the object store once and read there by all.
        proposals: What is tried.
        search: Resources, scheduler and budget.
        finished: Told of each trial when it ends, in this process.
        address: A running cluster; None starts Ray on this machine.
        most_epochs: Of any trial, for ASHA.

    Raises:
        MIAError: Ray is not installed, or no cluster is at the address.
    """
    for name, value in TUNE.items():
        os.environ.setdefault(name, value)
    machine = {"num_cpus": search.max_concurrent * search.cpus_per_trial} if search.max_concurrent else {}
    with ray_session(address, option="--ray.address", **machine):
        from ray import tune

        with tempfile.TemporaryDirectory(prefix="mia-search-") as scratch:  # the sweep has a journal of its own
            resources: dict[str, float] = {"cpu": search.cpus_per_trial, "gpu": search.gpus_per_trial}
            trainable = tune.with_resources(tune.with_parameters(run_trial, problem=problem), resources)
            options: dict[str, Any] = {
                "num_samples": len(proposals.waiting),
                "search_alg": _searcher(tune, proposals),
                "scheduler": _scheduler(search, most_epochs),
                "max_concurrent_trials": search.max_concurrent or None,
                "reuse_actors": True,
                "time_budget_s": search.time_budget,
                "trial_name_creator": _name,
                "trial_dirname_creator": _name,
            }
            run_config = tune.RunConfig(
                name="sweep", storage_path=scratch, verbose=0, callbacks=[_callback(tune, proposals, finished)]
            )
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost worker is told of in one line
            with signals_as_keyboard_interrupt():
                tune.Tuner(trainable, tune_config=tune.TuneConfig(**options), run_config=run_config).fit()


def run_trial(config: Mapping[str, Any], problem: Problem) -> None:
    """Judge one configuration and report it; Ray's trainable."""
    import torch
    from ray import tune

    torch.set_num_threads(config["threads"])
    epochs: dict[int, float] = {}

    def report(epoch: int, value: float) -> None:
        epochs[epoch] = value
        tune.report({"epoch": epoch, "watched": value})  # the scheduler ends the trial here if it has seen enough

    problem = problem.limited(config["threads"])
    trial = judged(problem, config["number"], config["params"], report if config["watch"] else None, epochs)
    tune.report({"trial": trial.to_dict()})


def _scheduler(search: SearchConfig, most_epochs: int) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if search.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    return ASHAScheduler(
        time_attr="epoch",
        metric="watched",
        mode="max",
        grace_period=search.grace_period,
        reduction_factor=3,
        max_t=max(most_epochs, search.grace_period) + 1,
    )


def _name(trial: Any) -> str:
    return str(trial.trial_id)


def _searcher(tune: Any, proposals: Proposals) -> Any:
    """Return Ray's view of the proposals."""

    class Handed(tune.search.Searcher):  # type: ignore[misc]
        """Hands out the proposals; hears of their end by the callback."""

        def __init__(self) -> None:
            super().__init__(metric="watched", mode="max")

        def suggest(self, trial_id: str) -> Any:
            """Return the next configuration."""
            handed = proposals.next()
            if handed is None:
                return self.FINISHED
            number, params = handed
            search = proposals.search
            threads, validation = search.cpus_per_trial, search.scheduler == "asha"
            return {"number": number, "params": params, "threads": threads, "watch": validation}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Nothing to do here."""

        def save(self, checkpoint_path: str) -> None:
            """Nothing to keep: the sweep has a journal of its own."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing to find."""

    return Handed()


def _callback(tune: Any, proposals: Proposals, finished: Finished) -> Any:
    """Return what tells the sweep of trials that end."""

    class Told(tune.Callback):  # type: ignore[misc]
        """Turns Ray's events into records of trials."""

        def __init__(self) -> None:
            self.epochs: dict[str, dict[int, float]] = {}

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            """Keep what was reported after an epoch."""
            if "watched" in result and "trial" not in result:
                self.epochs.setdefault(trial.trial_id, {})[int(result["epoch"])] = float(result["watched"])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """Pass on what the trial found, or that it was stopped; one that the time budget cut off is none."""
            result = trial.last_result or {}
            number, params = trial.config["number"], trial.config["params"]
            if "trial" in result:
                self._pass(Trial.from_dict(result["trial"]))
            elif epochs := self.epochs.get(trial.trial_id):
                seconds = float(result.get("time_total_s", 0.0))
                self._pass(Trial(number, params, "stopped", epochs=epochs, seconds=seconds))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """Pass on that a worker was lost."""
            error = trial.get_error() or RuntimeError("its worker was lost")
            self._pass(failed(trial.config["number"], trial.config["params"], error, 0.0))

        def _pass(self, trial: Trial) -> None:
            proposals.tell(trial)
            finished(trial)

    return Told()
