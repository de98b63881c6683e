"""TensorBoard events of a run, and the user's Lightning logger."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.class_paths import resolve
from mia_lightning.config.files import strip_paths
from mia_lightning.errors import MIAError, reason
from mia_lightning.report.page import card
from mia_lightning.runtime.atomic import UNWRITABLE

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from torch.utils.tensorboard import SummaryWriter

    from mia_lightning.config.schema import LoggerConfig
    from mia_lightning.pipeline.results import AuditResult
    from mia_lightning.references.store import ReferenceRecord
    from mia_lightning.report.contents import Report
    from mia_lightning.report.figures import Drawn

LARGEST = 1e19
"""Largest score that is drawn as it is: the bins of TensorBoard's histograms end at 1e20."""

Hook = Callable[[threading.ExceptHookArgs], object]


def build_logger(config: LoggerConfig) -> Logger | None:
    """Return the logger of `--logger.class_path`, None without one.

    Raises:
        MIAError: it is not a subclass of Lightning's Logger, or cannot be built from its arguments.
    """
    if config.class_path is None:
        if config.init_args:
            raise MIAError("--logger.init_args is given without --logger.class_path; name the logger's class")
        return None
    from lightning.pytorch.loggers import Logger

    cls = resolve(config.class_path, Logger, "logger.class_path")
    try:
        logger = cls(**config.init_args)
    except Exception as error:
        raise MIAError(f"--logger.class_path {config.class_path}: {reason(error)}; see --logger.init_args") from error
    assert isinstance(logger, Logger)
    return logger


class TensorBoard:
    """TensorBoard writer of a run: epochs during the run, report and final values at its end.

    Every fold is a run of its own, so that one chart shows the folds of an attack; every reference is one, too.

    Args:
        folder: Of the events; those of an earlier attempt are replaced.
        logger: Lightning logger that receives epochs, options and final values as well; None = none.
    """

    def __init__(self, folder: Path, logger: Logger | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)  # events of an earlier attempt would overlap these
        self.hook, threading.excepthook = threading.excepthook, _without_full_disks(threading.excepthook)
        self.folder, self.logger = folder, logger
        self.writer = SummaryWriter(str(folder))
        self.folds: dict[int, SummaryWriter] = {}
        self.references: set[tuple[str, int]] = set()

    def report(self, attack: str, fold: int, epoch: int, values: Mapping[str, float]) -> None:
        """Add one epoch of an attack in one fold."""
        from torch.utils.tensorboard import SummaryWriter

        if fold not in self.folds:
            self.folds[fold] = SummaryWriter(str(self.folder / f"fold {fold}"))
        for name, value in values.items():
            self.folds[fold].add_scalar(f"{attack}/{name}", value, epoch)
        if self.logger is not None:
            self.logger.log_metrics({f"{attack}/{name}/fold {fold}": v for name, v in values.items()}, step=epoch)

    def extraction(self, records: int, per_second: float) -> None:
        """Add the rate of the extraction of the target's outputs, visible at once."""
        self.writer.add_scalar("extraction/records per second", per_second, records)
        self.writer.flush()
        if self.logger is not None:
            self.logger.log_metrics({"extraction/records per second": per_second}, step=records)

    def reference(self, row: ReferenceRecord, set_name: str = "") -> None:
        """Add the losses and accuracies of one reference of a set, which is a run of its own in the charts of all."""
        from torch.utils.tensorboard import SummaryWriter

        self.references.add((set_name, row.number))
        name_of = f"{set_name} reference".lstrip()
        epochs = range(1, len(row.losses) + 1)
        values = [("references/loss", loss, epoch) for epoch, loss in zip(epochs, row.losses, strict=True)]
        if row.status == "trained":
            values += [
                ("references/accuracy on training records", row.accuracy_in, max(1, len(epochs))),
                ("references/accuracy on others", row.accuracy_out, max(1, len(epochs))),
            ]
        with SummaryWriter(str(self.folder / f"{name_of} {row.number:02d}")) as writer:
            for name, value, epoch in values:
                writer.add_scalar(name, value, epoch)
        if self.logger is not None:
            for name, value, epoch in values:
                self.logger.log_metrics({f"{name}/{name_of} {row.number}": value}, step=epoch)

    def finish(self, result: AuditResult, report: Report, drawn: Iterable[Drawn]) -> None:
        """Add the audit card, the report's figures in its order, and a row of hyper-parameters; close the files."""
        for set_name, references in result.reference_sets.items():
            for row in references.rows:
                if (set_name, row.number) not in self.references:  # from the cache
                    self.reference(row, set_name)
        writer: Any = self.writer
        writer.add_text("audit card", card(report))
        for number, drawing in enumerate(drawn):
            writer.add_figure(f"report/{number:02d} {drawing.name.replace('/', ', ')}", drawing.figure)
        self._add_scores(result, report)
        final = final_values(result)
        options = flatten(strip_paths(result.config))
        writer.add_hparams(options, final, run_name="hparams")
        if self.logger is not None:
            self.logger.log_hyperparams(options)
            self.logger.log_metrics(final, step=0)
            self.logger.finalize("success")
        for each in (self.writer, *self.folds.values()):
            each.close()
        threading.excepthook = self.hook

    def add_histogram(self, name: str, scores: NDArray[np.float64]) -> None:
        """Add the distribution of scores, limited to what TensorBoard can draw."""
        writer: Any = self.writer
        writer.add_histogram(name, np.clip(scores, -LARGEST, LARGEST))

    def _add_scores(self, result: AuditResult, report: Report) -> None:
        """Add score histograms by membership and precision-recall curves of the calibrated probabilities."""
        writer: Any = self.writer
        records = report.assessment.records
        evaluated = result.public.fold >= 0
        for name, scores in records.scores.items():
            for side, words in ((1, "members"), (0, "non-members")):
                self.add_histogram(f"scores/{name}, {words}", scores[records.membership == side])
            probabilities = result.attacks[name].public_probabilities[evaluated]
            writer.add_pr_curve(f"precision and recall/{name}", records.membership, probabilities)


def _without_full_disks(hook: Hook) -> Hook:
    """Return a hook that omits disk errors of the writer's thread, which `report` or `finish` raise as well."""

    def filtered(arguments: threading.ExceptHookArgs) -> None:
        if not (isinstance(arguments.exc_value, OSError) and arguments.exc_value.errno in UNWRITABLE):
            hook(arguments)

    return filtered


def final_values(result: AuditResult) -> dict[str, float]:
    """Return AUC and TPR of the submitted attack, as final/FIGURE."""
    evaluation = result.attacks[result.config.submitted].public
    return {"final/auc": evaluation.auc} | {f"final/tpr@{point.fpr:g}": point.tpr for point in evaluation.points}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return nested options by dotted name; values of types that HParams does not support as text."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
