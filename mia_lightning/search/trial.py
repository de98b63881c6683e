"""Trials of a search, and the protocol of the objectives they evaluate."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Literal, Protocol, Self

log = logging.getLogger(__name__)

Params = dict[str, Any]
"""Dotted field to the value as Optuna holds it: a number, or the index of a choice; see `Space.values`."""

EpochCallback = Callable[[int, float], None]
"""Callback (epoch, value; higher = better) during a trial; raises `StoppedError` to end the trial."""


class StoppedError(Exception):
    """End of a trial by the scheduler."""


@dataclass(frozen=True)
class TrialResult:
    """Figures of one configuration."""

    figures: Mapping[str, float]
    """Name to value; the metric among them."""

    by_fold: Sequence[float] = ()
    """The metric in each fold."""


@dataclass(frozen=True)
class Trial:
    """One configuration that was evaluated."""

    number: int
    """From 1; 0 is the run's own configuration."""

    params: Params
    status: Literal["finished", "stopped", "failed"]
    figures: Mapping[str, float] = field(default_factory=dict)
    by_fold: Sequence[float] = ()
    epochs: Mapping[int, float] = field(default_factory=dict)
    """Value (higher = better) reported after each epoch; empty without a scheduler."""

    seconds: float = 0.0
    message: str = ""
    """Error of a failed trial."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the parameters."""
        values = asdict(self) | {"epochs": {str(epoch): value for epoch, value in self.epochs.items()}}
        del values["params"]
        return values


class Objective(Protocol):
    """Objective of trials; sent to other processes, so it holds arrays and plain data, and no private membership."""

    metric: str
    higher_is_better: bool

    @property
    def networks(self) -> int:
        """Networks that one configuration trains."""
        ...

    def evaluate(self, params: Params, report: EpochCallback | None) -> TrialResult:
        """Return the figures of one configuration, after a report of each epoch where it has any."""
        ...

    def with_threads(self, threads: int) -> Self:
        """Return the same objective for trials of this number of threads; by default torch has the number."""
        return self

    def batch_key(self, params: Params) -> str | None:
        """Return a key that configurations of one batch share; None, the default, where they cannot be batched."""
        return None

    def evaluate_batch(self, params: Sequence[Params]) -> list[TrialResult]:
        """Return the figures of configurations of one `batch_key`, by default one by one."""
        return [self.evaluate(values, None) for values in params]


def run_trial(objective: Objective, number: int, params: Params, report: EpochCallback | None = None) -> Trial:
    """Evaluate one configuration; an error or a stop becomes the trial's status."""
    started, epochs = perf_counter(), dict[int, float]()

    def on_epoch(epoch: int, value: float) -> None:
        epochs[epoch] = _finite("the value of an epoch", value)
        if report is not None:
            report(epoch, value)

    try:
        result = objective.evaluate(params, on_epoch if report else None)
        for name, value in result.figures.items():
            _finite(name, value)
    except StoppedError:
        return Trial(number, params, "stopped", epochs=epochs, seconds=perf_counter() - started)
    except Exception as error:  # a trial may fail in any way; the search continues and reports the error
        return failed_trial(number, params, error, perf_counter() - started)
    return Trial(number, params, "finished", result.figures, result.by_fold, epochs, perf_counter() - started)


def run_batch(objective: Objective, trials: Sequence[tuple[int, Params]]) -> list[Trial]:
    """Evaluate configurations of one `batch_key` together; one by one where that fails."""
    started = perf_counter()
    try:
        results = objective.evaluate_batch([params for _, params in trials])
    except Exception:
        log.debug("a batch of trials failed", exc_info=True)
        return [run_trial(objective, number, params) for number, params in trials]
    seconds = (perf_counter() - started) / len(trials)
    return [
        Trial(number, params, "finished", result.figures, result.by_fold, seconds=seconds)
        for (number, params), result in zip(trials, results, strict=True)
    ]


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; training diverged")
    return value


def failed_trial(number: int, params: Params, error: BaseException, seconds: float) -> Trial:
    """Return the record of a trial that raised an error."""
    text = " ".join(str(error).split()) or "no message"
    return Trial(number, params, "failed", seconds=seconds, message=f"{type(error).__name__}: {text}"[:500])
