"""A search from its options to its folder."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mia_lightning.config.schema import RunConfig, SearchedConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.errors import MIAError, suggest
from mia_lightning.pipeline.terminal import output_console, show_log
from mia_lightning.runtime.hardware import is_first_process
from mia_lightning.runtime.ray_cluster import check_cluster

if TYPE_CHECKING:
    from mia_lightning.pipeline.model_outputs import ModelOutputs
    from mia_lightning.pipeline.results import LoadedInputs
    from mia_lightning.pipeline.run_folder import RunFolder
    from mia_lightning.search.progress import Recorder
    from mia_lightning.search.space import Space
    from mia_lightning.search.trial import Trial

RAY_START = 15.0
"""Seconds until Ray's first trial ends on two cores."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Result of a search."""

    trials: list[Trial]
    """All that ended, by number; the run's own configuration first."""

    ranked: list[Trial]
    """Those that finished, best first."""

    config: RunConfig
    """The winner's, as best.yaml holds it."""

    @property
    def winner(self) -> Trial:
        """The best trial."""
        return self.ranked[0]


def tune(config: TuneConfig, *, resume: bool = False) -> Sweep:
    """Search, write the folder and print the result.

    Args:
        config: The run and the search over it.
        resume: Continue with the trials that the folder holds.

    Raises:
        MIAError: any mistake in the configuration, the files it names, or the output folder.
    """
    show_log()
    names = ", ".join(config.search.space)
    log.info("search: %d trials over %s; checking the configuration and the files", config.search.trials, names[:200])
    space = check(config)

    check_cluster(
        config.ray.address,
        option="--ray.address",
        used=config.search.engine != "local" or config.references.workers > 0,
        needs="--search.engine ray",
    )

    from mia_lightning.pipeline.audit import prepare, run_helper_process
    from mia_lightning.pipeline.run_folder import RunFolder
    from mia_lightning.search.trial_log import FILE

    if not is_first_process():  # started to help with extraction, and ends after it
        run_helper_process(config.run)
    folder = RunFolder(config)
    if FILE in folder.names and not resume:
        raise MIAError(
            f"{config.output} holds trials of this search; add --resume to continue, or use another --output"
        )
    prepared = prepare(config.run)
    folder.acquire()
    try:
        return _search(config, space, prepared, folder)
    except MIAError:
        if not (folder.path / FILE).exists():
            folder.discard()
        raise
    finally:
        folder.release()


def check(config: TuneConfig) -> Space:
    """Check everything that needs no file to be read, and return the space.

    Raises:
        MIAError: an unknown field, attack or metric, an empty space, values that a field does not accept, a grid that
            is too large, no held-out set, or ASHA where nothing trains in epochs.
    """
    from mia_lightning.pipeline.checks import check_names
    from mia_lightning.search import attack_objective, reference_objective
    from mia_lightning.search.space import Space

    search = config.search
    attack_search = search.goal == "attack"
    if attack_search:
        name = config.searched_attack
        if name not in config.attacks:
            raise MIAError(f"--search.attack {name!r} is not configured; {suggest(name, config.attacks)}")
        attack_objective.check_metric(config.run, search.metric)
        if not config.evaluation.holdout:
            raise MIAError("a search needs public records that no trial sees; add --evaluation.holdout 0.2")
        attacks = attack_objective.required_attacks(config.attacks, name)
        if search.scheduler == "asha" and not attack_objective.last_with_epochs(attacks):
            raise MIAError(
                f"--search.scheduler asha stops trials between epochs, but attack {name!r} has none; use none"
            )
    roots = attack_objective.ROOTS if attack_search else reference_objective.ROOTS
    space = Space(config.run, search.space, roots=roots)
    if search.algorithm == "grid":
        space.grid()
    if attack_search:
        check_names(config.run)
    return space


def _search(config: TuneConfig, space: Space, prepared: LoadedInputs, folder: RunFolder) -> Sweep:
    from mia_lightning.pipeline.audit import query_models
    from mia_lightning.pipeline.results import Clock
    from mia_lightning.search.progress import Recorder
    from mia_lightning.search.sampler import NumberedSampler
    from mia_lightning.search.trial import run_trial

    run, search = config.run, config.search
    if search.goal == "reference_training":  # trials train references of their own and compare phi of one view
        run = replace(
            run,
            references=replace(run.references, count=0, imported=None, sets={}),
            extraction=replace(run.extraction, queries=1, gradients=False),
        )
    outputs = query_models(run, prepared, Clock(load=prepared.seconds))
    objective = _objective(config, space, prepared, outputs)
    recorder = Recorder(
        folder.path,
        space.without_paths(),
        metric=objective.metric,
        higher_is_better=objective.higher_is_better,
        total=NumberedSampler(search, space, config.seed).total,
    )
    if 0 not in recorder.journal.trials:
        log.info("trial 0: the run's own configuration")
        default = run_trial(objective, 0, {})
        if default.status == "failed":
            raise MIAError(f"the run's own configuration fails: {default.message}")
        recorder.add(default)
    _run_trials(config, space, objective, recorder, folder)
    return _conclude(config, space, objective, outputs, folder)


def _objective(config: TuneConfig, space: Space, prepared: LoadedInputs, outputs: ModelOutputs) -> Any:
    from mia_lightning.search.attack_objective import build_attack_objective
    from mia_lightning.search.reference_objective import build_reference_objective

    if config.search.goal == "reference_training":
        return build_reference_objective(space, config.run, prepared, outputs, count=config.search.references)
    return build_attack_objective(space, outputs, attack=config.searched_attack, metric=config.search.metric)


def _run_trials(config: TuneConfig, space: Space, objective: Any, recorder: Recorder, folder: RunFolder) -> None:
    """Run the remaining trials by the engine of the configuration."""
    from mia_lightning.search.local import run_local

    done = dict(recorder.journal.trials)
    remaining = recorder.total + 1 - len(done)
    if not remaining or not _use_ray(config, objective, done[0].seconds, remaining):
        run_local(objective, space, config.search, seed=config.seed, done=done, finished=recorder.add)
        return
    from mia_lightning.search.ray_tune import RaySearch, state_folder

    epochs = [int(attack.epochs) for attack in config.attacks.values() if hasattr(attack, "epochs")]
    epochs += [config.references.training.counts()[0]] * (config.search.goal == "reference_training")
    most_epochs = max([1, *epochs, *space.largest("epochs"), *space.largest("max_epochs")])
    state = state_folder(folder.path, folder.text, new=len(done) == 1)
    RaySearch(objective, space, config.search, config.seed, recorder, most_epochs).run(config.ray.address, state)


def _use_ray(config: TuneConfig, objective: Any, seconds: float, count: int) -> bool:
    """Whether workers run the trials: on request, or where they save more than Ray's start."""
    search = config.search
    if search.engine != "auto":
        return search.engine == "ray"
    if config.ray.address or search.gpus_per_trial:
        return True
    slots = search.max_concurrent or (os.cpu_count() or 1) // search.cpus_per_trial
    batched = search.batch_trials > 1 and search.scheduler == "none" and objective.batch_key({}) is not None
    saved = count * seconds * (1 - 1 / max(slots, 1))
    return not batched and saved > RAY_START and find_spec("ray") is not None


def _conclude(config: TuneConfig, space: Space, objective: Any, outputs: ModelOutputs, folder: RunFolder) -> Sweep:
    """Select the winner, evaluate it on what no trial saw, write and print the result."""
    from mia_lightning.search import report
    from mia_lightning.search.trial_log import TrialLog

    metric, sign = objective.metric, 1 if objective.higher_is_better else -1
    journal = TrialLog(folder.path, space, metric=metric, higher_is_better=objective.higher_is_better)
    trials = [journal.trials[number] for number in sorted(journal.trials)]
    finished = [trial for trial in trials if trial.status == "finished"]
    ranked = sorted(finished, key=lambda trial: (-sign * trial.figures[metric], trial.number))
    sweep = Sweep(trials, ranked, _best(config, space, ranked[0], len(trials), outputs))
    report.write_trials(folder, trials, space, metric)
    report.write_best(folder, sweep.config)
    if config.search.goal == "reference_training":
        _report_references(config, space, objective, folder, sweep)
    else:
        _report_attack(config, space, objective, outputs, folder, sweep)
    return sweep


def _report_references(config: TuneConfig, space: Space, objective: Any, folder: RunFolder, sweep: Sweep) -> None:
    """Train references of default and winner that no trial trained, and report how far they are from the target."""
    from mia_lightning.search import report
    from mia_lightning.search.page import sweep_page, write_page

    trials, ranked, metric = sweep.trials, sweep.ranked, objective.metric
    other = objective.fresh()
    fresh = [other.evaluate(params).figures for params in ({}, sweep.winner.params)]
    accuracy = objective.target.accuracy
    searched = [trials[0].figures, sweep.winner.figures]
    report.write_result(
        folder, {"metric": metric, "searched": searched, "fresh": fresh, "target_accuracy": list(accuracy)}
    )
    unmatched = report.unmatched_sentences(fresh[-1], accuracy)
    sentences = [*report.fresh_sentences(trials, ranked, fresh), *unmatched, report.count_sentence(trials)]
    write_page(folder, sweep_page(config, trials, ranked, space, metric, sentences))
    report.print_reference_search(config, ranked, trials, space, fresh, accuracy, output_console(100))


def _report_attack(
    config: TuneConfig, space: Space, objective: Any, outputs: ModelOutputs, folder: RunFolder, sweep: Sweep
) -> None:
    """Evaluate default and winner on the held-out records, and report the gain."""
    from mia_lightning.search import report, selection
    from mia_lightning.search.page import sweep_page, write_page

    trials, ranked, winner, metric = sweep.trials, sweep.ranked, sweep.winner, objective.metric
    default = selection.estimate(objective, outputs, config.run, 0)
    chosen = default if winner.number == 0 else selection.estimate(objective, outputs, sweep.config, winner.number)
    _check_journal(winner, selection.interval_of(chosen.inner, metric).value, metric, config)
    comparison = selection.compare(default, chosen, outputs, metric=metric, seed=config.seed)
    report.write_result(folder, comparison.to_dict())
    sentences = [report.gain_sentence(comparison), report.count_sentence(trials)]
    write_page(folder, sweep_page(config, trials, ranked, space, metric, sentences, comparison))
    report.print_attack_search(config, ranked, trials, space, comparison, output_console(100))


def _best(config: TuneConfig, space: Space, winner: Trial, trials: int, outputs: ModelOutputs) -> RunConfig:
    """Return the winner's configuration, marked as searched."""
    search, public = config.search, outputs.public
    attack_search = search.goal == "attack"
    searched = SearchedConfig(
        trials=trials,
        attack=config.searched_attack if attack_search else "",
        metric=search.metric if attack_search else "mismatch",
        seen_records=int((public.fold >= 0).sum()),
        holdout=int(public.held_out.sum()),
    )
    best = replace(space.apply(winner.params), output=f"{config.output}-best", searched=searched)
    if search.attack and attack_search:
        best = replace(best, submission=replace(best.submission, attack=search.attack))
    return best


def _check_journal(winner: Trial, value: float, metric: str, config: TuneConfig) -> None:
    """Warn where the winner, fitted again, does not have the figure of its trial."""
    if abs(value - winner.figures[metric]) > 0.02:
        log.warning(
            "trial %d has %s %.4f in %s/trials.jsonl, but %.4f when fitted again: the file was altered or the attack "
            "is not deterministic",
            winner.number,
            metric,
            winner.figures[metric],
            config.output,
            value,
        )
