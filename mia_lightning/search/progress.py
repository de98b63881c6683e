"""Record of a search while it runs: journal, TensorBoard and one line of progress."""

import logging
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from mia_lightning.search.space import Space
from mia_lightning.search.tensorboard import SearchBoard
from mia_lightning.search.trial import Trial
from mia_lightning.search.trial_log import TrialLog

log = logging.getLogger(__name__)


class Recorder:
    """Journal, TensorBoard events and progress of a search; files are opened on first use.

    A copy that was pickled opens them again, which lets Ray Tune restore an interrupted search together with it.

    Args:
        folder: Of the search, claimed by this process.
        space: Fields of the trials.
        metric: Figure that trials are compared by.
        higher_is_better: Of the metric.
        total: Trials of the search.
    """

    def __init__(self, folder: Path, space: Space, *, metric: str, higher_is_better: bool, total: int) -> None:
        self.folder, self.space, self.total = folder, space, total
        self.metric, self.higher_is_better = metric, higher_is_better

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("journal", "_board", "_bar")}

    @cached_property
    def journal(self) -> TrialLog:
        """Trials so far."""
        return TrialLog(self.folder, self.space, metric=self.metric, higher_is_better=self.higher_is_better)

    @cached_property
    def _board(self) -> SearchBoard:
        return SearchBoard(self.folder / "tensorboard", self.space, self.metric, self.journal.trials.values())

    @cached_property
    def _bar(self) -> Any:
        self._started, self._before = perf_counter(), self._count
        layout = "trials: {desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        return tqdm(total=self.total, initial=self._count, disable=None, bar_format=layout)

    @property
    def _count(self) -> int:
        return len(self.journal.trials) - 1

    def add(self, trial: Trial) -> None:
        """Record a trial; one whose number is recorded already is dropped."""
        board = self._board
        if trial.number > 0:
            bar = self._bar
        if not self.journal.append(trial):
            return
        board.add(trial)
        if trial.number == 0:
            return
        bar.update()
        bar.set_description(f"{self._count}/{self.total}")
        bar.set_postfix_str(f"best {self._best()}")
        if trial.status == "failed":
            log.warning("trial %d failed: %s", trial.number, trial.message)
        if bar.disable and (self._count == self.total or self._count % max(1, self.total // 10) == 0):
            rate = (self._count - self._before) / (perf_counter() - self._started) * 60
            log.info("trials: %d/%d, %.1f/minute, best %s", self._count, self.total, rate, self._best())
        if self._count == self.total:
            bar.close()

    def _best(self) -> str:
        figures = [trial.figures for trial in self.journal.trials.values() if trial.status == "finished"]
        best = max if self.higher_is_better else min
        return f"{self.metric} {best(values[self.metric] for values in figures):.4f}"
