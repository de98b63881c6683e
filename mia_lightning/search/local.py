"""Trials in this process: MLPs of one shape trained in one batch, everything else one after the other."""

from collections.abc import Callable, Sequence
from time import perf_counter

import optuna
from optuna.study import Study
from optuna.trial import TrialState

from mia_lightning.config.search import SearchConfig
from mia_lightning.errors import MIAError
from mia_lightning.search.sampler import NumberedSampler, new_study
from mia_lightning.search.space import Space
from mia_lightning.search.trial import EpochCallback, Objective, Params, StoppedError, Trial, run_batch, run_trial

AHEAD = 8
"""Batches' worth of configurations that are drawn to fill one batch."""


def run_local(
    objective: Objective,
    space: Space,
    search: SearchConfig,
    *,
    seed: int,
    done: dict[int, Trial],
    finished: Callable[[Trial], object],
) -> None:
    """Run the trials of a search that are not done, until the time budget is spent.

    Trials are proposed in rounds, each from the results of earlier rounds: the same seed gives the same trials, after
    an interruption too.

    Args:
        objective: Evaluates trials.
        space: Fields of the trials.
        search: Algorithm, scheduler, size of batches, budget.
        seed: Of the draws.
        done: Trials of an interrupted search by number; `finished` may add to it.
        finished: Callback for each trial when it ends.

    Raises:
        MIAError: a trial of the interrupted search has other parameters than this one proposes.
    """
    ends = perf_counter() + (search.time_budget or float("inf"))
    sampler = NumberedSampler(search, space, seed)
    study = new_study(sampler, search, higher_is_better=objective.higher_is_better)
    can_batch = search.scheduler == "none" and objective.batch_key({}) is not None
    size = max(1, search.batch_trials // objective.networks) if can_batch else 1
    ahead = 1 if size == 1 else max(1, size // 2) if search.algorithm == "optuna" else size * AHEAD
    results = dict(done)
    for start in range(1, sampler.total + 1, ahead):
        proposals = {
            number: study.ask(space.distributions) for number in range(start, min(start + ahead, sampler.total + 1))
        }
        for number in proposals.keys() & done.keys():
            _check_same(space, proposals[number].params, done[number])
        waiting = [(number, trial.params) for number, trial in proposals.items() if number not in results]
        for batch in _batches(objective, waiting, size):
            if perf_counter() >= ends:
                return
            for trial in _run(objective, batch, study, proposals, search):
                results[trial.number] = trial
                finished(trial)
        for number, proposal in proposals.items():
            _tell(study, proposal, results[number], objective, replay=number in done)


def _batches(objective: Objective, trials: Sequence[tuple[int, Params]], size: int) -> list[list[tuple[int, Params]]]:
    """Return the trials in batches that share a `batch_key`."""
    groups: dict[object, list[tuple[int, Params]]] = {}
    for number, params in trials:
        try:
            key: object = (objective.batch_key(params) if size > 1 else None) or number
        except ValueError:  # a combination that a component refuses; its own trial reports it
            key = number
        groups.setdefault(key, []).append((number, params))
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def _run(
    objective: Objective,
    batch: Sequence[tuple[int, Params]],
    study: Study,
    proposals: dict[int, optuna.Trial],
    search: SearchConfig,
) -> list[Trial]:
    if len(batch) > 1:
        return run_batch(objective, batch)
    number, params = batch[0]
    report = _pruning(proposals[number], objective) if search.scheduler == "asha" else None
    return [run_trial(objective, number, params, report)]


def _pruning(proposal: optuna.Trial, objective: Objective) -> EpochCallback:
    """Return the callback that ends a trial when successive halving does."""
    sign = 1 if objective.higher_is_better else -1

    def report(epoch: int, value: float) -> None:
        proposal.report(sign * value, epoch)
        if proposal.should_prune():
            raise StoppedError

    return report


def _tell(study: Study, proposal: optuna.Trial, trial: Trial, objective: Objective, *, replay: bool) -> None:
    """Report a trial's end to the study; the epochs of an interrupted search first, for the pruner."""
    if replay:
        report = _pruning(proposal, objective)
        for epoch, value in trial.epochs.items():
            try:
                report(epoch, value)
            except StoppedError:
                break
    if trial.status == "finished":
        study.tell(proposal, trial.figures[objective.metric])
    else:
        study.tell(proposal, state=TrialState.PRUNED if trial.status == "stopped" else TrialState.FAIL)


def _check_same(space: Space, params: Params, trial: Trial) -> None:
    if space.values(params) != space.values(trial.params):
        raise MIAError(
            f"trials.jsonl holds other parameters for trial {trial.number} than this search draws; it was altered or "
            "written by another version: name another --output"
        )
