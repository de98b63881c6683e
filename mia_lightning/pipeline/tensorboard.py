"""TensorBoard events of a run."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_lightning.config.files import strip_paths
from mia_lightning.runtime.atomic import UNWRITABLE

if TYPE_CHECKING:
    from mia_lightning.pipeline.results import AuditResult
    from mia_lightning.report.figures import Drawn


Hook = Callable[[threading.ExceptHookArgs], object]


class TensorBoard:
    """TensorBoard writer of a run: epochs during the run, figures and final values at its end."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)  # events of an earlier attempt would overlap these
        self.hook, threading.excepthook = threading.excepthook, _without_full_disks(threading.excepthook)
        self.writer = SummaryWriter(str(folder))

    def report(self, attack: str, fold: int, epoch: int, values: Mapping[str, float]) -> None:
        """Add one epoch of an attack in one fold."""
        for name, value in values.items():
            self.writer.add_scalar(f"{attack}/{name}/fold {fold}", value, epoch)

    def finish(self, result: AuditResult, drawn: Iterable[Drawn]) -> None:
        """Add the report's figures, final values and hyper-parameters, and close the file."""
        add_figure: Any = self.writer.add_figure
        for drawing in drawn:
            add_figure(drawing.name, drawing.figure)
        final = final_values(result)
        for name, value in final.items():
            self.writer.add_scalar(name, value, 0)
        options = flatten(strip_paths(result.config))
        self.writer.add_hparams(options, final, run_name="hparams")
        self.writer.close()
        threading.excepthook = self.hook


def _without_full_disks(hook: Hook) -> Hook:
    """Return a hook that omits disk errors of the writer's thread, which `report` or `finish` raise as well."""

    def filtered(arguments: threading.ExceptHookArgs) -> None:
        if not (isinstance(arguments.exc_value, OSError) and arguments.exc_value.errno in UNWRITABLE):
            hook(arguments)

    return filtered


def final_values(result: AuditResult) -> dict[str, float]:
    """Return AUC and TPR of every attack, as final/ATTACK/FIGURE."""
    values: dict[str, float] = {}
    for name, attack in result.attacks.items():
        values[f"final/{name}/auc"] = attack.public.auc
        values |= {f"final/{name}/tpr@{point.fpr:g}": point.tpr for point in attack.public.points}
    return values


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
