"""TensorBoard events of a search: a row of HParams and a panel of scalars per trial."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mia_lightning.pipeline.tensorboard import flatten
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Trial


class SearchBoard:
    """Events of trials, written when they end.

    Args:
        folder: Of the events; those of an interrupted search are replaced.
        space: Fields of the trials.
        metric: Figure that trials are compared by.
        done: Trials of an interrupted search.
    """

    def __init__(self, folder: Path, space: Space, metric: str, done: Iterable[Trial]) -> None:
        if folder.is_symlink():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.space, self.metric = folder, space, metric
        for trial in done:
            self.add(trial)

    def add(self, trial: Trial) -> None:
        """Add a trial: parameters and final figures, the metric by fold, and the value after each epoch."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        if trial.status == "failed":
            return
        with SummaryWriter(str(self.folder / f"trial-{trial.number:04d}")) as writer:
            final = {f"final/{name}": value for name, value in trial.figures.items()}
            write_row: Any = hparams
            params = flatten(self.space.values(trial.params))
            for summary in write_row(params, final or {f"final/{self.metric}": float("nan")}):
                assert writer.file_writer is not None
                writer.file_writer.add_summary(summary)
            for name, value in final.items():
                writer.add_scalar(name, value, 0)
            for fold, value in enumerate(trial.by_fold):
                writer.add_scalar(f"{self.metric} by fold", value, fold)
            for epoch, value in trial.epochs.items():
                writer.add_scalar("first fold by epoch", value, epoch)
