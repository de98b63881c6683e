"""Trials by Ray Tune on this machine or a cluster: its Tuner, OptunaSearch and ASHAScheduler.

Results of a search by Ray are not reproducible to the last trial: which results TPE has seen when it proposes a trial,
and which trials ASHA compares, depends on the order in which workers end. Proposals of random and grid searches are
those of `--search.engine local`, and each trial's figures depend on its parameters and the run's seed alone.
"""

import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_lightning.config.search import SearchConfig
from mia_lightning.runtime.interruption import signals_as_keyboard_interrupt
from mia_lightning.runtime.ray_cluster import ray_session
from mia_lightning.search.progress import Recorder
from mia_lightning.search.sampler import NUMBER, NumberedSampler
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Objective, Params, Trial, failed_trial, run_trial

TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}
"""Ray Tune's switches: no tables, no second set of event files, trials that fail before their first metric, our signal
handlers, and a snapshot of the search every second."""

METRIC, RESULT = "objective", "result"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RaySearch:
    """A search by Ray Tune."""

    objective: Objective
    """Evaluates trials; its arrays are put into the object store once and shared by all workers."""

    space: Space
    search: SearchConfig
    """Algorithm, scheduler, resources and budget."""

    seed: int
    """Of the draws."""

    recorder: Recorder
    """Receives each trial when it ends, in this process."""

    most_epochs: int
    """Highest number of epochs of any trial, for ASHA."""

    def run(self, address: str | None, state: Path | None) -> None:
        """Run the trials that are not done, until the time budget is spent.

        Args:
            address: Of a running cluster; None starts Ray on this machine.
            state: Private folder of Ray's snapshot, from which an interrupted search continues; None keeps none.

        Raises:
            MIAError: Ray is not installed, or no cluster runs at the address.
        """
        for name, value in TUNE.items():
            os.environ.setdefault(name, value)
        search = self.search
        machine = {"num_cpus": search.max_concurrent * search.cpus_per_trial} if search.max_concurrent else {}
        with ray_session(address, option="--ray.address", **machine), _storage(state) as storage:
            from ray import tune

            resources: dict[str, float] = {"cpu": search.cpus_per_trial, "gpu": search.gpus_per_trial}
            settings = {"threads": search.cpus_per_trial, "watch": search.scheduler == "asha"}
            bound = tune.with_parameters(run_ray_trial, objective=self.objective, settings=settings)
            trainable = tune.with_resources(bound, resources)
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a lost worker is reported in one line
            tuner = _restored(tune, storage, trainable) or self._new_tuner(tune, storage, trainable)
            with signals_as_keyboard_interrupt():
                tuner.fit()

    def _new_tuner(self, tune: Any, storage: Path, trainable: Any) -> Any:
        """Return a Tuner for the trials that follow the first that is missing in the journal."""
        search, mode = self.search, "max" if self.objective.higher_is_better else "min"
        sampler = NumberedSampler(search, self.space, self.seed)
        searcher, history = self._searcher(sampler, mode)
        tune_config = tune.TuneConfig(
            num_samples=sampler.total - history,
            search_alg=searcher,
            scheduler=_scheduler(search, mode, self.most_epochs),
            max_concurrent_trials=search.max_concurrent or None,
            reuse_actors=True,
            time_budget_s=search.time_budget,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        )
        callbacks = [_callback_class()(self.recorder)]
        run_config = tune.RunConfig(name=storage.name, storage_path=str(storage.parent), verbose=0, callbacks=callbacks)
        return tune.Tuner(trainable, tune_config=tune_config, run_config=run_config)

    def _searcher(self, sampler: NumberedSampler, mode: str) -> tuple[Any, int]:
        """Return a searcher that has seen the first trials of the journal, and their number."""
        from optuna.distributions import IntDistribution

        space = {**self.space.distributions, NUMBER: IntDistribution(1, sampler.total)}
        searcher, history = _search_class()(space, metric=METRIC, mode=mode, sampler=sampler), 0
        while (trial := self.recorder.journal.trials.get(history + 1)) is not None:
            value = trial.figures.get(self.objective.metric)
            searcher.add_evaluated_point({**trial.params, NUMBER: trial.number}, value, error=value is None)
            history += 1
        return searcher, history


def run_ray_trial(config: Mapping[str, Any], objective: Objective, settings: Mapping[str, Any]) -> None:
    """Evaluate one configuration and report it; the trainable of Ray Tune."""
    import torch
    from ray import tune

    torch.set_num_threads(settings["threads"])
    sign = 1 if objective.higher_is_better else -1

    def report(epoch: int, value: float) -> None:
        tune.report({"epoch": epoch, METRIC: sign * value})  # the scheduler ends the trial here

    number, params = _split(config)
    objective = objective.with_threads(settings["threads"])
    trial = run_trial(objective, number, params, report if settings["watch"] else None)
    figure = trial.figures[objective.metric] if trial.status == "finished" else float("nan")
    tune.report({METRIC: figure, RESULT: trial})


def state_folder(output: Path, configuration: str, *, new: bool) -> Path | None:
    """Return the private folder for Ray Tune's snapshot of one search, None where the home folder cannot have it.

    Ray restores a search by unpickling, which can run code. The snapshot is therefore kept out of the output folder,
    in a folder that only this user can write: `$XDG_STATE_HOME` or `~/.local/state`.
    """
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "mia_lightning"
    digest = hashlib.sha256(f"{output.resolve()}\n{configuration}".encode()).hexdigest()[:32]
    folder = base / f"ray-{digest}"
    try:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = folder.lstat()
    except (OSError, RuntimeError):
        return None
    private = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o022
    return folder if private else None


@contextmanager
def _storage(state: Path | None) -> Iterator[Path]:
    """Yield the folder of Ray Tune's snapshot; it stays where the search is interrupted."""
    if state is None:
        with tempfile.TemporaryDirectory(prefix="mia-search-") as folder:
            yield Path(folder) / "search"
        return
    yield state / "search"
    shutil.rmtree(state, ignore_errors=True)


def _restored(tune: Any, storage: Path, trainable: Any) -> Any:
    """Return the Tuner of an interrupted search, None where its snapshot is missing or broken."""
    if not any(storage.glob("experiment_state-*.json")) or not tune.Tuner.can_restore(str(storage)):
        return None
    try:
        return tune.Tuner.restore(str(storage), trainable=trainable)
    except Exception:  # a kill can leave an empty tuner.pkl (ray-project/ray#58179); the journal has all results
        log.debug("Ray Tune's snapshot cannot be restored", exc_info=True)
        shutil.rmtree(storage, ignore_errors=True)
        return None


def _scheduler(search: SearchConfig, mode: str, most_epochs: int) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if search.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    return ASHAScheduler(
        time_attr="epoch",
        metric=METRIC,
        mode=mode,
        grace_period=search.grace_period,
        reduction_factor=3,
        max_t=max(most_epochs, search.grace_period) + 1,
    )


def _name(trial: Any) -> str:
    return str(trial.trial_id)


def _split(config: Mapping[str, Any]) -> tuple[int, Params]:
    """Return number and parameters of a trial of Ray."""
    return config[NUMBER], {key: value for key, value in config.items() if key != NUMBER}


def _search_class() -> Any:
    from ray.tune.search.optuna import OptunaSearch

    class TrialSearch(OptunaSearch):
        """OptunaSearch that counts stopped and failed trials as pruned, not as finished with their last value."""

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Report the end of a trial to Optuna."""
            trial = (result or {}).get(RESULT)
            finished = trial is not None and trial.status == "finished"
            super().on_trial_complete(trial_id, result if finished else None, error)

    return TrialSearch


def _callback_class() -> Any:
    from ray import tune

    class TrialCallback(tune.Callback):
        """Records Ray's trials when they end."""

        def __init__(self, recorder: Recorder) -> None:
            self.recorder = recorder
            self.epochs: dict[str, dict[int, float]] = {}

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            """Collect the value of an epoch."""
            if "epoch" in result:
                self.epochs.setdefault(trial.trial_id, {})[int(result["epoch"])] = float(result[METRIC])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """Record a trial that finished or was stopped; one that the time budget cut off is dropped."""
            result = trial.last_result or {}
            epochs = self.epochs.pop(trial.trial_id, {})
            if RESULT in result:
                self.recorder.add(result[RESULT])
            elif epochs:
                number, params = _split(trial.config)
                seconds = float(result.get("time_total_s", 0.0))
                self.recorder.add(Trial(number, params, "stopped", epochs=epochs, seconds=seconds))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """Record that a worker was lost."""
            number, params = _split(trial.config)
            self.recorder.add(
                failed_trial(number, params, trial.get_error() or RuntimeError("its worker was lost"), 0.0)
            )

    return TrialCallback
