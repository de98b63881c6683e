"""The commands. They parse, run and print; whatever they can do, the Python API can."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.runtime.hardware import is_first_process
from mia_lightning.runtime.interruption import Interrupted, interruptible


def train(argv: Sequence[str] | None = None) -> int:
    """Run `train.py`: attack the target, leave a run folder, print the table. Return the exit code."""
    return _guarded(_train, argv)


def tune(argv: Sequence[str] | None = None) -> int:
    """Run `tune.py`. Return the exit code."""
    return _guarded(_tune, argv, again="the same command with --resume goes on where it stopped")


def evaluate(argv: Sequence[str] | None = None) -> int:
    """Run `python -m mia_lightning.evaluate`. Return the exit code."""
    return _guarded(_evaluate, argv, again="the same command starts anew")


def _guarded(
    command: Callable[[Sequence[str]], None],
    argv: Sequence[str] | None,
    *,
    again: str = "the same command goes on where it stopped",
) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        with interruptible():
            command([argument for argument in arguments if argument != "--debug"])
    except (MIAError, OSError) as error:
        if debug or not (sentence := _sentence(error)):
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        if is_first_process():
            print(f"ended by {stop.signal.name}; {again}", file=sys.stderr)
        return stop.exit_code
    return 0


def _sentence(error: Exception) -> str:
    """Return what to tell the user, or "" where the error is none of theirs."""
    if isinstance(error, MIAError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        where = f" {Path(error.filename).name}" if error.filename else ""
        return f"cannot write{where}: {error.strerror}; free space, or name another --output and --cache_dir"
    return ""


def _train(arguments: Sequence[str]) -> None:
    from mia_lightning.config.command_line import parse_arguments

    config = parse_arguments(arguments, prog="train.py")

    from mia_lightning.pipeline.run import run  # after parsing: --help and a typing error must not wait for torch

    run(config)


def _tune(arguments: Sequence[str]) -> None:
    from mia_lightning.config.command_line import parse_tuning

    config = parse_tuning([argument for argument in arguments if argument != "--resume"])

    from mia_lightning.search.sweep import tune  # after parsing: --help and a typing error must not wait for torch

    tune(config, resume="--resume" in arguments)


def _evaluate(arguments: Sequence[str]) -> None:
    from mia_lightning.config.command_line import parse_evaluation

    config = parse_evaluation(arguments)

    from mia_lightning.pipeline.evaluate_scores import (
        run,  # after parsing: --help and a typing error must not wait for scipy
    )

    run(config)
