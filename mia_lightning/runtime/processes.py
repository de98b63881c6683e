"""The processes of one run: this one, and one that helps it per further device of this machine.

Lightning would start the helpers itself, but they would meet at a port that is open on every interface, and SIGKILL for
all would be its answer to the end of one. Here the processes of one machine meet in a file, what goes wrong in a helper
becomes the error of the first process, and helpers end when the first one does. Lightning takes them for processes that
were started from outside, as it does those of torchrun and SLURM, whose meeting is theirs.
"""

from __future__ import annotations

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
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from mia_lightning.errors import MIAError
from mia_lightning.runtime.interruption import Interrupted

FOLDER, FIRST = "MIA_LIGHTNING_FOLDER", "MIA_LIGHTNING_FIRST"
"""What a helper finds in its environment: the folder where all meet, and the number of the process that started it."""


LAUNCHED = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What Lightning may set in this process's environment, where a later trainer would take it for torchrun's."""


LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


PATIENCE = 5.0
"""Seconds that helpers have to end when they are told to."""


LAST_WORDS = 2.0
"""Seconds that a helper has to end after this process has lost the connection to it."""


@contextmanager
def launch_processes(trainer: L.Trainer) -> Iterator[None]:
    """Let every process of the trainer run the block; after it, only the first one of all goes on.

    Args:
        trainer: New; its `predict` is to be called within the block.

    Raises:
        MIAError: the first process: whatever a helper raised, or that one ended early. Helpers raise SystemExit.
    """
    launcher = trainer.strategy.launcher
    with _kept_environment():
        if FOLDER in os.environ:
            with _helping(trainer, Path(os.environ[FOLDER])):
                yield
        elif (
            isinstance(launcher, _SubprocessScriptLauncher)
            and not launcher.cluster_environment.creates_processes_externally
        ):
            with _leading(trainer):
                yield
        else:
            yield
            if trainer.world_size > 1:
                _part(trainer, others=True)
        if not trainer.is_global_zero:
            raise SystemExit(0)


@contextmanager
def _kept_environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in LAUNCHED}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _leading(trainer: L.Trainer) -> Iterator[None]:
    """Start the helpers of this machine, and end with them."""
    with TemporaryDirectory(prefix="mia-lightning-") as folder:
        helpers = _Helpers(Path(folder))
        try:
            helpers.start(trainer)
            _meet(trainer, Path(folder))
            yield
            _part(trainer, others=trainer.num_nodes > 1)
            helpers.wait()
        except MIAError:
            raise
        except Exception:  # a connection that a helper's end has broken, among others
            helpers.check(seconds=LAST_WORDS)
            raise
        finally:
            helpers.end()


@contextmanager
def _helping(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """Help, and leave to the first process whatever there is to be said."""
    rank = trainer.strategy.local_rank  # type: ignore[attr-defined]
    try:
        first = _EndsWithFirst(int(os.environ[FIRST]))
        first.check()
        trainer.callbacks.append(first)  # type: ignore[attr-defined]
        (folder / f"here-{rank}").touch()
        _meet(trainer, folder)
        yield
        _part(trainer, others=trainer.num_nodes > 1)
    except MIAError as error:
        (folder / f"error-{rank}").write_text(str(error), encoding="utf-8")
        raise SystemExit(2) from None
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from None


def _meet(trainer: L.Trainer, folder: Path) -> None:
    """Connect the processes of one machine by a file; Lightning connects several machines by their address."""
    if trainer.num_nodes > 1:
        return
    if torch.distributed.is_initialized():  # left by an earlier try that failed
        torch.distributed.destroy_process_group()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", LOOPBACK)
    torch.distributed.init_process_group(
        torch.distributed.get_default_backend_for_device(trainer.strategy.root_device),
        init_method=f"file://{folder}/meeting",
        rank=trainer.strategy.local_rank,  # type: ignore[attr-defined]
        world_size=trainer.world_size,
    )


def _part(trainer: L.Trainer, *, others: bool) -> None:
    """Take the connection down, after waiting for `others` than this process and its helpers, which it sees end."""
    if others:
        trainer.strategy.barrier()
    torch.distributed.destroy_process_group()


class _Helpers(Callback):
    """The helpers that this process has started; as a callback it notices the end of one after each batch.

    Args:
        folder: Where all meet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, trainer: L.Trainer) -> None:
        """Start one for each further device and wait until all have come."""
        environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        os.environ["LOCAL_RANK"] = "0"
        if trainer.num_nodes > 1:
            os.environ["MASTER_ADDR"] = environment.main_address
            os.environ["MASTER_PORT"] = str(environment.main_port)
        own = {FOLDER: str(self.folder), FIRST: str(os.getpid())}
        for rank in range(1, trainer.strategy.num_processes):  # type: ignore[attr-defined]
            variables = os.environ | own | {"LOCAL_RANK": str(rank)}
            command = [sys.executable, *sys.orig_argv[1:]]
            # in a group of its own, since Ctrl-C is for this process, which ends them
            self.processes.append(subprocess.Popen(command, env=variables, process_group=0))
        trainer.callbacks.append(self)  # type: ignore[attr-defined]
        while missing := [number for number in self.numbers if not (self.folder / f"here-{number}").exists()]:
            self.check()
            for number in missing:
                if self.processes[number - 1].poll() is not None:
                    raise MIAError(self._last_words(number, 0))
            sleep(0.05)

    @property
    def numbers(self) -> range:
        """Their local ranks."""
        return range(1, len(self.processes) + 1)

    def check(self, *, seconds: float = 0.0) -> None:
        """Raise what a helper has raised, or that one ended early; wait so long for that to happen."""
        for wait in (*[0.05] * int(seconds / 0.05), 0.0):
            for number, process in zip(self.numbers, self.processes, strict=True):
                if process.poll():
                    raise MIAError(self._last_words(number, process.returncode))
            sleep(wait)

    def _last_words(self, number: int, code: int) -> str:
        try:
            return (self.folder / f"error-{number}").read_text(encoding="utf-8")
        except FileNotFoundError:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            why = "; is memory short? The" if code == -signal.SIGKILL else "; the"
            return f"process {number + 1} of {len(self.processes) + 1} {how}{why} same command goes on where it stopped"

    def wait(self) -> None:
        """Wait until all have ended, which they do when they have written what they had."""
        while any(process.poll() is None for process in self.processes):
            self.check()
            sleep(0.05)
        self.check()

    def end(self) -> None:
        """End those that are left, which get some seconds to leave no half-written file."""
        left = [process for process in self.processes if process.poll() is None]
        for process in left:
            process.terminate()
        last = monotonic() + PATIENCE
        for process in left:
            try:
                process.wait(max(0.0, last - monotonic()))
            except subprocess.TimeoutExpired:  # waiting for another process, where no signal reaches it
                process.kill()
                process.wait()

    def on_predict_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Go on only while all do."""
        self.check()


class _EndsWithFirst(Callback):
    """Ends a helper whose first process was killed: nobody is left to put together what it does."""

    def __init__(self, first: int) -> None:
        self.first = first

    def check(self) -> None:
        """Raise Interrupted if it has ended."""
        if os.getppid() != self.first:
            raise Interrupted(signal.SIGTERM)

    def on_predict_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Go on only while it does."""
        self.check()
