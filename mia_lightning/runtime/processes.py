"""Processes of one run: this one, and one helper per further device of this machine.

Lightning's own launcher would connect them through a port that is open on every interface, and kill all processes when
one ends. Here the processes of one machine connect through a file and the loopback interface, an error of a helper
becomes the error of the first process, and helpers end with the first process. Processes that torchrun, SLURM or the
like started are connected by Lightning as these prescribe.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from mia_lightning.errors import MIAError
from mia_lightning.runtime.environment import restored_variables
from mia_lightning.runtime.interruption import SIGNALS, Interrupted
from mia_lightning.runtime.trainers import LocalEnvironment

FOLDER, FIRST = "MIA_LIGHTNING_FOLDER", "MIA_LIGHTNING_FIRST"
"""Environment variables of a helper: the folder of the connection, and the id of the process that started it."""

CONNECTION = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Environment variables that a connection changes, which a later trainer would take for torchrun's."""

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

TERMINATION_SECONDS = 5.0
"""Time for helpers to end after SIGTERM, before SIGKILL."""

ERROR_SECONDS = 2.0
"""Time for a helper to end after this process has lost the connection to it."""


@contextmanager
def launch_processes(trainer: L.Trainer) -> Iterator[None]:
    """Run the block in every process of the trainer; after it, only the first process goes on.

    Args:
        trainer: A new one, from `new_trainer`; its `predict` is to be called within the block.

    Raises:
        MIAError: in the first process, what a helper raised, or that a helper ended early. Helpers raise SystemExit.
        Interrupted: a helper was ended by a signal.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    with restored_variables(*CONNECTION):
        if FOLDER in os.environ:
            with _helper(trainer, Path(os.environ[FOLDER])):
                yield
        elif isinstance(environment, LocalEnvironment) and "LOCAL_RANK" not in os.environ:
            with _first_process(trainer):
                yield
        else:
            yield
            if trainer.world_size > 1:
                _disconnect(trainer, wait=True)
        if not trainer.is_global_zero:
            raise SystemExit(0)


@contextmanager
def _first_process(trainer: L.Trainer) -> Iterator[None]:
    """Start the helpers of this machine and end them after the block."""
    with TemporaryDirectory(prefix="mia-lightning-") as folder:
        helpers = _Helpers(Path(folder))
        try:
            helpers.start(trainer)
            _connect(trainer, Path(folder))
            yield
            _disconnect(trainer, wait=trainer.num_nodes > 1)
            helpers.wait()
        except MIAError:
            raise
        except Exception:  # among others, a connection that ended with a helper
            helpers.check(seconds=ERROR_SECONDS)
            raise
        finally:
            helpers.end()


@contextmanager
def _helper(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """Leave errors for the first process to report."""
    rank = trainer.strategy.local_rank  # type: ignore[attr-defined]
    try:
        watch = _EndWithFirst(int(os.environ[FIRST]))
        watch.check()
        trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        (folder / f"ready-{rank}").touch()
        _connect(trainer, folder)
        yield
        _disconnect(trainer, wait=trainer.num_nodes > 1)
    except MIAError as error:
        (folder / f"error-{rank}").write_text(str(error), encoding="utf-8")
        raise SystemExit(2) from None
    except Interrupted as interrupted:
        raise SystemExit(interrupted.exit_code) from None


def _connect(trainer: L.Trainer, folder: Path) -> None:
    """Connect the processes of one machine through a file; Lightning connects several machines by their address."""
    if trainer.num_nodes > 1:
        return
    if torch.distributed.is_initialized():  # left by an earlier extraction that failed
        torch.distributed.destroy_process_group()
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
    torch.distributed.init_process_group(
        torch.distributed.get_default_backend_for_device(trainer.strategy.root_device),
        init_method=f"file://{folder}/rendezvous",
        rank=trainer.strategy.local_rank,  # type: ignore[attr-defined]
        world_size=trainer.world_size,
    )


def _disconnect(trainer: L.Trainer, *, wait: bool) -> None:
    """Close the connection, after waiting for processes that this one did not start."""
    if wait:
        trainer.strategy.barrier()
    torch.distributed.destroy_process_group()


class _Helpers(Callback):
    """Helpers of this process; as a callback, it checks after each batch that all are running.

    Args:
        folder: Of the connection.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, trainer: L.Trainer) -> None:
        """Start one for each further device and wait until all are ready."""
        environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        if trainer.num_nodes > 1:
            os.environ["MASTER_ADDR"] = environment.main_address
            os.environ["MASTER_PORT"] = str(environment.main_port)
        variables = {FOLDER: str(self.folder), FIRST: str(os.getpid())}
        for rank in range(1, trainer.strategy.num_processes):  # type: ignore[attr-defined]
            variables["LOCAL_RANK"] = str(rank)
            command = [sys.executable, *sys.orig_argv[1:]]
            # in a process group of its own: Ctrl-C reaches the first process only, which ends the helpers
            self.processes.append(subprocess.Popen(command, env=os.environ | variables, process_group=0))
        trainer.callbacks.append(self)  # type: ignore[attr-defined]
        while missing := [rank for rank in self.ranks if not (self.folder / f"ready-{rank}").exists()]:
            self.check()
            for rank in missing:
                if self.processes[rank - 1].poll() is not None:
                    raise self._error(rank, 0)
            sleep(0.05)

    @property
    def ranks(self) -> range:
        """Local ranks of the helpers."""
        return range(1, len(self.processes) + 1)

    def check(self, *, seconds: float = 0.0) -> None:
        """Raise what a helper has raised, or that it ended early; wait up to some seconds for that."""
        for wait in (*[0.05] * int(seconds / 0.05), 0.0):
            for rank, process in zip(self.ranks, self.processes, strict=True):
                if process.poll():
                    raise self._error(rank, process.returncode)
            sleep(wait)

    def _error(self, rank: int, code: int) -> MIAError | Interrupted:
        try:
            return MIAError((self.folder / f"error-{rank}").read_text(encoding="utf-8"))
        except FileNotFoundError:
            if code - 128 in SIGNALS:  # it was interrupted, as this process will be if a signal was sent to all
                return Interrupted(code - 128)
        process = f"process {rank + 1} of {len(self.processes) + 1}"
        if code == -signal.SIGKILL:
            return MIAError(f"{process} was killed (SIGKILL), probably out of memory; rerun the same command to resume")
        reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return MIAError(f"{process} {reason}; rerun the same command to resume")

    def wait(self) -> None:
        """Wait until all have ended, which they do when they have written their last shard."""
        while any(process.poll() is None for process in self.processes):
            self.check()
            sleep(0.05)
        self.check()

    def end(self) -> None:
        """End those that are running, with some seconds to remove half-written files."""
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            process.terminate()
        deadline = monotonic() + TERMINATION_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:  # in a collective operation, which no signal interrupts
                process.kill()
                process.wait()

    def on_predict_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Check that all are running."""
        self.check()


class _EndWithFirst(Callback):
    """Ends a helper after its first process was killed: nothing would use its outputs."""

    def __init__(self, first: int) -> None:
        self.first = first

    def check(self) -> None:
        """Raise Interrupted if the first process has ended."""
        if os.getppid() != self.first:
            raise Interrupted(signal.SIGTERM)

    def on_predict_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Check that the first process is running."""
        self.check()
