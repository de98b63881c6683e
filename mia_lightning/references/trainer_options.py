"""Options of Lightning's Trainer for the training of references."""

import inspect
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger

from mia_lightning.errors import MIAError, suggest
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.runtime.trainers import isolated_trainer
from mia_lightning.targets.imported import first_line, import_callable

FIXED = {
    **dict.fromkeys(("accelerator", "devices", "num_nodes", "strategy"), "use --references.gpus_per_worker"),
    **dict.fromkeys(("plugins", "sync_batchnorm", "use_distributed_sampler"), "each reference has one device"),
    **dict.fromkeys(("logger", "default_root_dir", "profiler"), "references leave no other files than their weights"),
    **dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), "remove it"),
    **dict.fromkeys(("fast_dev_run", "overfit_batches", "barebones", "max_time"), "references are trained to the end"),
    "model_registry": "remove it",
}
"""Options of the Trainer that the run sets, and the advice."""


def new_trainer(
    recipe: ReferenceTraining, trainer: Mapping[str, Any], scratch: str, device: str, callbacks: list[Callback]
) -> L.Trainer:
    """Return the trainer of one reference; its root directory is a scratch folder.

    Raises:
        MIAError: an option that does not exist, that the run sets, or that Lightning refuses.
    """
    legal = [name for name in inspect.signature(L.Trainer).parameters if name not in FIXED]
    for name in trainer:
        if name in FIXED:
            raise MIAError(f"--references.trainer.{name} is set by the run; {FIXED[name]}")
        if name not in legal:
            raise MIAError(
                f"--references.trainer.{name}: Lightning's Trainer has no such option; {suggest(name, legal)}"
            )
    options = {"max_epochs": recipe.counts()[0], "precision": recipe.precision, "enable_checkpointing": True, **trainer}
    user_callbacks = [_callback(entry) for entry in options.pop("callbacks", None) or ()]
    try:
        return isolated_trainer(
            callbacks=[*user_callbacks, *callbacks],
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            logger=DummyLogger(),
            default_root_dir=scratch,
            **options,
        )
    except Exception as error:
        raise MIAError(f"--references.trainer: {first_line(error).rstrip('.')}; change or remove the option") from error


def _callback(entry: Any) -> Callback:
    """Return a callback of "package.module.Class" or {class_path, init_args}.

    Raises:
        MIAError: it cannot be made, or is not a Callback.
    """
    described: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {"class_path": entry}
    name, arguments = described.get("class_path"), described.get("init_args") or {}
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise MIAError(
            "--references.trainer callbacks: expected a list of {class_path: package.module.Class, init_args: {...}}"
        )
    module, _, attribute = name.replace(":", ".").rpartition(".")
    cls = import_callable(f"{module}:{attribute}", "--references.trainer callbacks")
    try:
        callback = cls(**dict(arguments))
    except Exception as error:
        raise MIAError(f"--references.trainer callbacks {name}: calling it failed: {first_line(error)}") from error
    if not isinstance(callback, Callback):
        raise MIAError(f"--references.trainer callbacks {name}: is not a Callback of Lightning")
    return callback
