"""A sweep from its options to its folder: reads like the README."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from mia_lightning.config.schema import RunConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.errors import MIAError, suggest
from mia_lightning.pipeline.audit import prepare, query_models, run_helper_process
from mia_lightning.pipeline.checks import check_names
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.results import Clock, LoadedInputs
from mia_lightning.pipeline.run_folder import RunFolder
from mia_lightning.runtime.hardware import is_first_process
from mia_lightning.search import attack_objective as attacks
from mia_lightning.search import recipe_objective as recipe
from mia_lightning.search.backend import engine_for
from mia_lightning.search.local import judged
from mia_lightning.search.progress import Progress
from mia_lightning.search.report import print_attack, print_recipe, write_best, write_outcome, write_trials
from mia_lightning.search.sampler import Proposals
from mia_lightning.search.selection import compare, estimate
from mia_lightning.search.space import Space
from mia_lightning.search.tensorboard import SearchBoard
from mia_lightning.search.trial import Trial
from mia_lightning.search.trial_log import Journal


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep left."""

    trials: list[Trial]
    """All that ended, the run's own configuration first."""

    winner: Trial
    config: RunConfig
    """The winner's, as best.yaml holds it."""


def tune(config: TuneConfig, *, resume: bool = False) -> Sweep:
    """Search, leave a folder and print what was found.

    Args:
        config: The run and the search over it.
        resume: Whether to go on with the trials that the folder holds.

    Raises:
        MIAError: any mistake in the configuration, the files it names, or the output folder.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mia_lightning").setLevel(logging.INFO if is_first_process() else logging.WARNING)
    space = check(config)
    if not is_first_process():  # started to help with extraction, and ends after it
        run_helper_process(config.run)
    folder = RunFolder(config)
    journal = Journal(folder.path)
    if journal.path.exists() and not resume:
        raise MIAError(
            f"{config.output} holds trials of this sweep already; add --resume to go on, or name another --output"
        )
    prepared = prepare(config.run)
    folder.claim()
    try:
        return _search(config, space, prepared, folder, journal)
    except MIAError:
        if not journal.path.exists():
            folder.abandon()
        raise
    finally:
        folder.release()


def check(config: TuneConfig) -> Space:
    """Check everything that needs no file to be read, and return the space.

    Raises:
        MIAError: an unknown field, attack or metric, an empty space, values that a field does not take, no hold-out, or
            ASHA where nothing has epochs.
    """
    search = config.search
    if search.goal == "reference_training":
        return Space(config.run, search.space, roots=recipe.ROOTS)
    if config.judged not in config.attacks:
        raise MIAError(f"search.attack {config.judged!r} is not configured; {suggest(config.judged, config.attacks)}")
    attacks.check_metric(config.run, search.metric)
    if not config.evaluation.holdout:
        raise MIAError(
            "a search needs public records that no trial sees, to report on; set --evaluation.holdout, 0.2 for example"
        )
    if search.scheduler == "asha" and not attacks.with_epochs(attacks.needed(config.attacks, config.judged)):
        raise MIAError(
            f"search.scheduler asha stops trials between epochs, but attack {config.judged!r} has none; use none"
        )
    space = Space(config.run, search.space, roots=attacks.ROOTS)
    check_names(config.run)
    return space


def _search(config: TuneConfig, space: Space, prepared: LoadedInputs, folder: RunFolder, journal: Journal) -> Sweep:
    run = config.run
    if config.search.goal == "reference_training":  # trials train references of their own
        run = replace(run, references=replace(run.references, count=0, imported=None))
    answered = query_models(run, prepared, Clock(load=prepared.seconds))
    problem = _problem(config, space, prepared, answered)
    done = journal.read()
    if not done:
        done = [judged(problem, 0, {}, None, {})]
        if done[0].status == "failed":
            raise MIAError(f"the run's own configuration fails: {done[0].message}")
        journal.append(done[0])
    board = SearchBoard(folder.path / "tensorboard", problem.metric, done)
    proposals = Proposals(
        space,
        config.search,
        seed=config.seed,
        done=done,
        metric=problem.metric,
        higher_is_better=problem.higher_is_better,
    )
    with Progress(proposals.total, done, problem) as progress:

        def finished(trial: Trial) -> None:
            journal.append(trial)
            board.add(trial)
            progress.add(trial)

        engine_for(config, problem, space, done[0].seconds, len(proposals.waiting))(problem, proposals, finished)
    return _conclude(config, space, problem, answered, folder, journal.read())


def _problem(config: TuneConfig, space: Space, prepared: LoadedInputs, answered: ModelOutputs) -> Any:
    if config.search.goal == "reference_training":
        return recipe.recipe_problem(space, config.run, prepared, answered, count=config.search.references)
    return attacks.attack_problem(space, answered, attack=config.judged, metric=config.search.metric)


def _conclude(
    config: TuneConfig,
    space: Space,
    problem: Any,
    answered: ModelOutputs,
    folder: RunFolder,
    trials: list[Trial],
) -> Sweep:
    finished = [trial for trial in trials if trial.status == "finished"]
    sign = 1 if problem.higher_is_better else -1
    ranked = sorted(finished, key=lambda trial: (-sign * trial.figures[problem.metric], trial.number))
    winner = ranked[0]
    best = replace(space.apply(winner.params), output=f"{config.output}-best")
    if config.search.attack:
        best = replace(best, submission=replace(best.submission, attack=config.search.attack))
    write_trials(folder, sorted(trials, key=lambda trial: trial.number), list(space.fields), problem.metric)
    write_best(folder, best)
    console = Console(width=None if sys.stdout.isatty() else 100)
    if config.search.goal == "reference_training":
        fresh = problem.fresh()
        again = [fresh.judge(params).figures for params in ({}, winner.params)]
        outcome = {"metric": problem.metric, "searched": [trials[0].figures, winner.figures], "fresh": again}
        write_outcome(folder, outcome)
        print_recipe(config, ranked, trials, again, console)
    else:
        default = estimate(problem, answered, config.run, 0)
        chosen = default if winner.number == 0 else estimate(problem, answered, best, winner.number)
        found = compare(default, chosen, answered, metric=problem.metric, seed=config.seed)
        write_outcome(folder, found.to_dict())
        print_attack(config, ranked, trials, found, console)
    return Sweep(trials, winner, best)
