"""What is seen of a sweep while it runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Self

from tqdm import tqdm

from mia_lightning.search.trial import Problem, Trial

log = logging.getLogger(__name__)


class Progress:
    """One line: trials done and to do, time left, the best so far."""

    def __init__(self, total: int, done: Sequence[Trial], problem: Problem) -> None:
        self.problem, self.total, self.started = problem, total, perf_counter()
        self.before = self.count = len(done) - 1
        self.best: float | None = None
        self.failures = 0
        for trial in done:
            self._look(trial)

    def __enter__(self) -> Self:
        layout = "trials: {desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar: Any = tqdm(total=self.total, initial=self.count, disable=None, bar_format=layout)
        self._show()
        return self

    def add(self, trial: Trial) -> None:
        """Advance by a trial."""
        self.count += 1
        self._look(trial)
        self.bar.update()
        self._show()
        if trial.status == "failed":
            log.warning("trial %d failed: %s", trial.number, trial.message)
        if self.bar.disable and (self.count == self.total or self.count % max(1, self.total // 10) == 0):
            rate = (self.count - self.before) / (perf_counter() - self.started) * 60
            log.info(
                "trials: %d/%d, %.1f/minute, best %s %.4f",
                self.count,
                self.total,
                rate,
                self.problem.metric,
                self.best or 0.0,
            )

    def _look(self, trial: Trial) -> None:
        if trial.status == "finished":
            value = trial.figures[self.problem.metric]
            better = max if self.problem.higher_is_better else min
            self.best = value if self.best is None else better(self.best, value)

    def _show(self) -> None:
        self.bar.set_description(f"{self.count}/{self.total}")
        if self.best is not None:
            self.bar.set_postfix_str(f"best {self.problem.metric} {self.best:.4f}")

    def __exit__(self, *_: object) -> None:
        self.bar.close()
