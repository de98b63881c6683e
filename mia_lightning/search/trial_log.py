"""The journal of a search: an Optuna study on JournalStorage, one line per finished trial."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mia_lightning.errors import MIAError
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Trial

FILE, STUDY = "trials.jsonl", "search"

LARGEST = 2**28
"""Bytes of a journal."""

STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class _FolderLock(JournalFileOpenLock):
    """The lock of the output folder, which the operating system releases when its process ends.

    Optuna's own lock files outlive a killed process, and the next one waits for half a minute.
    """

    def acquire(self) -> bool:
        """Return True: one process at a time claims the folder."""
        return True

    def release(self) -> None:
        """Keep the folder's lock, which is released at the end of the search."""


class TrialLog:
    """Trials of a search, on the disk when they end.

    Each is one line of JSON that Optuna appends at once, so a killed search loses the trials that were running and
    nothing else. Readable by Optuna: `optuna.load_study(study_name="search", storage=JournalStorage(...))`.

    Args:
        folder: Of the search, claimed by this process.
        space: Fields of the trials.
        metric: Figure that trials are compared by.
        higher_is_better: Of the metric.

    Raises:
        MIAError: the file is not a journal of this search, or cannot be written.
    """

    def __init__(self, folder: Path, space: Space, *, metric: str, higher_is_better: bool) -> None:
        self.path, self.space, self.metric = folder / FILE, space, metric
        self.direction: Literal["maximize", "minimize"] = "maximize" if higher_is_better else "minimize"
        self.trials: dict[int, Trial] = {}
        """By number."""
        self._study = self._open()

    def _open(self) -> Study:
        _cut_torn_line(self.path)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            storage = JournalStorage(JournalFileBackend(str(self.path), lock_obj=_FolderLock(str(self.path))))
            study = optuna.create_study(
                storage=storage, study_name=STUDY, direction=self.direction, load_if_exists=True
            )
            for frozen in study.get_trials(deepcopy=False):
                trial = _read(frozen, self.space, self.metric)
                self.trials.setdefault(trial.number, trial)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        except Exception as error:  # an altered line can fail anywhere in Optuna's replay
            text = " ".join(str(error).split())[:200]
            raise MIAError(
                f"{self.path} is damaged ({type(error).__name__}: {text}); remove it to start over, or name another "
                "--output"
            ) from error
        return study

    def append(self, trial: Trial) -> bool:
        """Add a trial; it is on the disk when this returns. Return False where the number is in the journal already.

        Raises:
            MIAError: the disk is full or cannot be written.
        """
        if trial.number in self.trials:
            return False
        frozen = optuna.trial.create_trial(
            state=STATES[trial.status],
            params=dict(trial.params),
            distributions=self.space.distributions if trial.params else {},
            value=trial.figures[self.metric] if trial.status == "finished" else None,
            user_attrs=trial.to_dict(),
        )
        try:
            self._study.add_trial(frozen)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.trials[trial.number] = trial
        return True


def _cut_torn_line(path: Path) -> None:
    """Remove the end of a line that a kill cut short.

    Raises:
        MIAError: not a regular file (a symbolic link, a pipe), or too large.
    """
    if not path.is_symlink() and not path.exists():
        return
    if path.is_symlink() or not path.is_file():
        raise MIAError(f"{path} is not a regular file; remove it, or name another --output")
    if path.stat().st_size > LARGEST:
        raise MIAError(f"{path} has over {LARGEST >> 20} MiB, more than a search writes; name another --output")
    try:
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> MIAError:
    return MIAError(f"cannot read or write {path}: {error.strerror}; free space or permit it")


def _read(frozen: FrozenTrial, space: Space, metric: str) -> Trial:
    """Return the trial of one record of the journal.

    Raises:
        ValueError: a value of another type or range than `TrialLog.append` writes.
    """
    values = frozen.user_attrs
    number, status, message = (values.get(name) for name in ("number", "status", "message"))
    figures, by_fold, epochs = _numbers(values["figures"]), values["by_fold"], _numbers(values["epochs"])
    if type(number) is not int or number < 0 or status not in STATES or not isinstance(message, str):
        raise ValueError(f"trial {number!r} has no valid number, status or message")
    if STATES[status] != frozen.state or (status == "finished" and metric not in figures):
        raise ValueError(f"trial {number} has no {metric}")
    if bool(frozen.params) != bool(number):
        raise ValueError(f"trial {number} has other parameters")
    space.values(frozen.params)
    return Trial(
        number=number,
        params=dict(frozen.params),
        status=status,
        figures=figures,
        by_fold=tuple(_numbers(dict(enumerate(by_fold))).values()),
        epochs={int(epoch): value for epoch, value in epochs.items()},
        seconds=_numbers({"seconds": values["seconds"]})["seconds"],
        message="".join(c if c.isprintable() else "?" for c in message),
    )


def _numbers(values: Any) -> dict[Any, float]:
    """Return a mapping whose values are finite numbers and whose names are printable.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(values, Mapping) or len(values) > 100_000:
        raise ValueError("expected a mapping of numbers")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name!r} must be a finite number, got {value!r}"[:100])
        if not str(name).isprintable():
            raise ValueError(f"{name!r} is not a name"[:100])
    return dict(values)
