"""Trials in this process: networks of one shape side by side, everything else one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter

from mia_lightning.config.search import SearchConfig
from mia_lightning.search.sampler import Proposals
from mia_lightning.search.space import Params
from mia_lightning.search.trial import Problem, StoppedError, Trial, failed

log = logging.getLogger(__name__)

Finished = Callable[[Trial], None]
"""Told of each trial when it ends."""

AHEAD = 8
"""Stacks' worth of drawn configurations looked at to fill a stack."""

Numbered = tuple[int, Params]


def run_here(problem: Problem, proposals: Proposals, search: SearchConfig, finished: Finished) -> None:
    """Run all trials that the proposals hand out, until the time budget is spent."""
    ends = perf_counter() + (search.time_budget or float("inf"))
    together = search.scheduler == "none" and problem.stack_key({}) is not None
    stack = max(1, search.batch_trials // problem.width) if together else 1
    while perf_counter() < ends:
        adaptive = search.algorithm == "optuna"  # proposes better the more it knows, so it is asked for little ahead
        asked_for = max(1, stack // 2 if adaptive else stack * AHEAD) if stack > 1 else 1
        asked = [one for _ in range(asked_for) if (one := proposals.next()) is not None]
        if not asked:
            return
        for group in _groups(problem, asked, stack):
            if perf_counter() >= ends:
                break
            for trial in (
                _together(problem, group) if len(group) > 1 else [_alone(problem, *group[0], proposals, search)]
            ):
                proposals.tell(trial)
                finished(trial)


def _groups(problem: Problem, asked: list[Numbered], size: int) -> list[list[Numbered]]:
    """Return the configurations in groups that can be judged together."""
    if size == 1:
        return [[one] for one in asked]
    groups: dict[object, list[Numbered]] = {}
    for number, params in asked:
        try:
            key: object = problem.stack_key(params) or number
        except ValueError:  # a combination that a component refuses; its own trial will say so
            key = number
        groups.setdefault(key, []).append((number, params))
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def _together(problem: Problem, group: list[Numbered]) -> list[Trial]:
    started = perf_counter()
    try:
        found = problem.judge_together([params for _, params in group])
    except Exception:  # one by one, so that only those that fail are lost
        log.debug("a stack failed", exc_info=True)
        return [_alone(problem, number, params) for number, params in group]
    seconds = (perf_counter() - started) / len(group)
    return [
        Trial(number, params, "finished", one.figures, one.by_fold, seconds=seconds)
        for (number, params), one in zip(group, found, strict=True)
    ]


def _alone(
    problem: Problem,
    number: int,
    params: Params,
    proposals: Proposals | None = None,
    search: SearchConfig | None = None,
) -> Trial:
    epochs: dict[int, float] = {}

    def report(epoch: int, value: float) -> None:
        epochs[epoch] = value
        if proposals is not None and proposals.should_stop(number, epoch, value):
            raise StoppedError

    watched = report if search is not None and search.scheduler == "asha" else None
    return judged(problem, number, params, watched, epochs)


def judged(
    problem: Problem, number: int, params: Params, report: Callable[[int, float], None] | None, epochs: dict[int, float]
) -> Trial:
    """Judge one configuration; an error or a stop becomes part of the record."""
    started = perf_counter()
    try:
        found = problem.judge(params, report)
    except StoppedError:
        return Trial(number, params, "stopped", epochs=epochs, seconds=perf_counter() - started)
    except Exception as error:  # a trial may fail in any way; the sweep goes on and says how
        return failed(number, params, error, perf_counter() - started)
    return Trial(number, params, "finished", found.figures, found.by_fold, epochs, perf_counter() - started)
