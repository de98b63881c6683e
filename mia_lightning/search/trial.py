"""What a trial is, and the contract of what trials judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from mia_lightning.search.space import Params

Status = Literal["finished", "stopped", "failed"]

EpochCallback = Callable[[int, float], None]
"""Told (epoch, value; higher = better) while a trial runs; it may raise `StoppedError`."""


class StoppedError(Exception):
    """The scheduler has seen enough of a trial."""


@dataclass(frozen=True)
class Judgment:
    """What a trial found."""

    figures: Mapping[str, float]
    """Name to value."""

    by_fold: Sequence[float] = ()
    """The metric in each fold, to show how far it scatters."""


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried."""

    number: int
    """From 1; 0 is the run's own configuration."""

    params: Params
    status: Status
    figures: Mapping[str, float] = field(default_factory=dict)
    by_fold: Sequence[float] = ()
    epochs: Mapping[int, float] = field(default_factory=dict)
    """What was reported after each epoch, where anything was."""

    seconds: float = 0.0
    message: str = ""
    """Why it failed."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self) | {"epochs": {str(epoch): value for epoch, value in self.epochs.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """Return what `to_dict` was made from."""
        return cls(**{**values, "epochs": {int(epoch): value for epoch, value in values["epochs"].items()}})


class Problem(Protocol):
    """What trials judge; travels to other processes, so it holds arrays and plain data, and no private membership."""

    metric: str
    higher_is_better: bool

    @property
    def width(self) -> int:
        """Networks of one configuration."""
        ...

    def judge(self, params: Params, report: EpochCallback | None) -> Judgment:
        """Return the figures of one configuration; `report`, if there is one, is told of epochs."""
        ...

    def limited(self, threads: int) -> Problem:
        """Return the same problem for trials of so many threads."""
        ...

    def stack_key(self, params: Params) -> str | None:
        """Return what configurations that can be judged together have in common; None = by itself."""
        ...

    def judge_together(self, params: Sequence[Params]) -> list[Judgment]:
        """Return the figures of configurations of one `stack_key`."""
        ...


def failed(number: int, params: Params, error: BaseException, seconds: float) -> Trial:
    """Return the record of a trial that raised an error."""
    said = " ".join(str(error).split()) or "no message"
    return Trial(number, params, "failed", seconds=seconds, message=f"{type(error).__name__}: {said}"[:500])
