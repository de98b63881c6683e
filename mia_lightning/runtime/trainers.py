"""Lightning trainers that neither read nor write anything but what they are given.

By default a Trainer takes arguments from `PL_TRAINER_*` variables and callbacks from any installed package, saves
checkpoints on a signal of SLURM, and under SLURM loads whatever checkpoint of this name is in the working directory,
whichever model it is of.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import lightning.fabric.utilities.registry
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from mia_lightning.errors import MIAError, printable
from mia_lightning.runtime.environment import without_variables
from mia_lightning.runtime.hardware import Hardware, is_first_process, is_started_from_outside
from mia_lightning.runtime.interruption import SignalHandlers

NOWHERE = os.path.join(os.devnull, "no-checkpoints")
"""Root directory of trainers. It cannot exist, so nothing is found there and nothing can be saved."""

VARIABLES = ("PL_", "LT_")
"""Prefixes of the environment variables that override arguments of Lightning."""


class LocalEnvironment(LightningEnvironment):
    """One process per device of this machine, started by `launch_processes` rather than by Lightning."""

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts no processes."""
        return True


def new_trainer(hardware: Hardware, **options: Any) -> L.Trainer:
    """Return a trainer for these devices; under torchrun or SLURM, `auto` devices are one per process.

    Args:
        hardware: Devices.
        options: Further arguments of Lightning's Trainer.

    Raises:
        MIAError: a device, strategy or number of processes that does not exist.
    """
    devices, nodes = hardware.devices, hardware.num_nodes
    _check_strategy(hardware.strategy)
    with readable_trainer_errors("--hardware"):
        if (processes := _external_processes()) is not None:
            devices = processes[0] if devices == "auto" else devices
            nodes = processes[1] if nodes == 1 else nodes
        environment = _cluster_environment()
        trainer = isolated_trainer(
            accelerator=hardware.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=hardware.strategy,
            precision=hardware.precision,
            plugins=[environment],
            **options,
        )
        if trainer.world_size > 1:
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=nodes)
    if trainer.world_size > 1 and hardware.strategy == "auto" and hasattr(sys, "ps1"):
        _check_strategy("notebook")  # what Lightning chooses in an interactive session
    if trainer.world_size == 1 and not is_first_process():
        raise MIAError(
            "more processes were started than --hardware.devices allows; use --hardware.devices auto, or unset RANK, "
            "LOCAL_RANK, NODE_RANK and SLURM_PROCID where no launcher started this one"
        )
    return trainer


def isolated_trainer(
    *, callbacks: Sequence[Callback] = (), plugins: Sequence[ClusterEnvironment] = (), **options: Any
) -> L.Trainer:
    """Return a trainer without checkpoints, logger, bar and summary that leaves signal handlers and variables alone.

    Args:
        callbacks: Called before the one that restores signal handlers.
        plugins: Cluster environment; default: one process on this machine, whatever started it.
        options: Further arguments of Lightning's Trainer, or others than these.
    """
    defaults: dict[str, Any] = {
        "default_root_dir": NOWHERE,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with without_variables(*VARIABLES), _without_registered_callbacks():
        return L.Trainer(
            callbacks=[*callbacks, _RestoreHandlers()],
            plugins=list(plugins) or [LocalEnvironment()],
            **defaults | options,
        )


def isolated_fabric(accelerator: str, *, precision: Any = "32-true") -> Fabric:
    """Return a Fabric of one device that reads no environment variables."""
    with without_variables(*VARIABLES), _without_registered_callbacks():
        return Fabric(accelerator=accelerator, devices=1, precision=precision, plugins=[LocalEnvironment()])


@contextmanager
def _without_registered_callbacks() -> Iterator[None]:
    """Hide the callbacks that installed packages register, which could change results.

    Lightning (2.6) has no option against them: it reads them by the function `entry_points` of its module `registry`,
    which is replaced within the block. The search through all packages also takes most of a trainer's start.
    """
    registry: Any = lightning.fabric.utilities.registry
    search = registry.entry_points
    registry.entry_points = lambda **_: ()
    try:
        yield
    finally:
        registry.entry_points = search


class _RestoreHandlers(Callback):
    """Restores the signal handlers from before, since prediction would go on after a signal under Lightning's own."""

    def __init__(self) -> None:
        self.handlers = SignalHandlers()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.handlers.restore()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.handlers.restore()


def _cluster_environment() -> ClusterEnvironment:
    """Return the environment that started this process."""
    if SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)
    for environment in (TorchElasticEnvironment, LSFEnvironment, MPIEnvironment):
        if environment.detect():
            return environment()
    return LocalEnvironment()


def _external_processes() -> tuple[int, int] | None:
    """Return how many processes per machine torchrun or SLURM started, and on how many machines."""
    per_node, nodes = os.environ.get("LOCAL_WORLD_SIZE", ""), 1
    if per_node:
        nodes = _count("WORLD_SIZE", per_node) // _count("LOCAL_WORLD_SIZE", per_node)
    elif is_started_from_outside() and SLURMEnvironment.detect():
        per_node, nodes = os.environ.get("SLURM_NTASKS_PER_NODE", ""), _count("SLURM_NNODES", "1")
    return (int(per_node), max(nodes, 1)) if per_node.isdecimal() else None


def _count(name: str, default: str) -> int:
    """Return a launcher's number of processes or machines."""
    text = os.environ.get(name, default)
    if not text.isdecimal() or int(text) < 1:
        raise MIAError(f"environment variable {name} is {printable(text, 40)!r}; expected a number from 1, or unset it")
    return int(text)


def _check_strategy(strategy: str) -> None:
    if any(method in strategy for method in ("spawn", "fork", "notebook")):
        raise MIAError(
            "--hardware.strategy: forked or spawned processes, as in notebooks, are not supported; use ddp in a "
            "script, or --hardware.devices 1"
        )


@contextmanager
def readable_trainer_errors(option: str) -> Iterator[None]:
    """Turn Lightning's errors about devices into one sentence.

    Raises:
        MIAError: in place of Lightning's own errors.
    """
    try:
        yield
    except KeyError as error:  # only some of a launcher's variables are set, as in a shell opened inside a job
        raise MIAError(
            f"{option}: the variables of a launcher are incomplete, {error.args[0]} is missing; start the run by "
            "torchrun or srun, or unset the others"
        ) from error
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        message = " ".join(str(error).split()).rstrip(".!")
        raise MIAError(f"{option}: {message}; choose an accelerator, devices and a strategy that exist") from error
