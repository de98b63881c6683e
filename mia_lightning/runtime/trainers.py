"""The processes of one run: this one, and one that helps it per further device of this machine.

Lightning would start the helpers itself, but they would meet at a port that is open on every interface, and SIGKILL for
all would be its answer to the end of one. Here the processes of one machine meet in a file, what goes wrong in a helper
becomes the error of the first process, and helpers end when the first one does. Lightning takes them for processes that
were started from outside, as it does those of torchrun and SLURM, whose meeting is theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher

from mia_lightning.errors import MIAError
from mia_lightning.runtime.hardware import Hardware, is_first_process, is_started_from_outside


def new_trainer(hardware: Hardware, **options: Any) -> L.Trainer:
    """Return a trainer for these devices; where their number is left open, for the processes of torchrun or SLURM.

    Args:
        hardware: Where.
        options: Further arguments of Lightning's trainer.

    Raises:
        MIAError: a device, strategy or number of processes that is not there.
    """
    devices, nodes = hardware.devices, hardware.num_nodes
    if (started := _started()) is not None:
        devices = started[0] if devices == "auto" else devices
        nodes = started[1] if nodes == 1 else nodes
    with readable_trainer_errors("--hardware"):
        trainer = L.Trainer(
            accelerator=hardware.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=hardware.strategy,
            precision=hardware.precision,
            **options,
        )
        if isinstance(launcher := trainer.strategy.launcher, _SubprocessScriptLauncher):
            launcher.cluster_environment.validate_settings(num_devices=trainer.num_devices, num_nodes=nodes)
    if isinstance(launcher, _MultiProcessingLauncher):
        raise MIAError(
            "--hardware.strategy: forked or spawned processes, as in notebooks, are not supported; use ddp in a "
            "script, or --hardware.devices 1"
        )
    if trainer.world_size == 1 and not is_first_process():
        raise MIAError("more processes were started than --hardware.devices asks for; leave it at auto")
    return trainer


def _started() -> tuple[int, int] | None:
    """Return how many processes torchrun or SLURM started on each machine and how many machines there are, if any."""
    each, machines = os.environ.get("LOCAL_WORLD_SIZE", ""), 1
    if each.isdecimal():
        machines = int(os.environ.get("WORLD_SIZE", each)) // int(each)
    elif is_started_from_outside() and SLURMEnvironment.detect():
        each, machines = os.environ.get("SLURM_NTASKS_PER_NODE", ""), int(os.environ.get("SLURM_NNODES", "1"))
    return (int(each), machines) if each.isdecimal() else None


@contextmanager
def readable_trainer_errors(option: str) -> Iterator[None]:
    """Turn what Lightning says of devices that are not there into one sentence.

    Raises:
        MIAError: in place of Lightning's own errors.
    """
    try:
        yield
    except (ValueError, MisconfigurationException) as error:
        said = " ".join(str(error).split()).rstrip(".!")
        raise MIAError(f"{option}: {said}; choose an accelerator, devices and a strategy that are there") from error
