"""The commands. They parse, run and print; whatever they can do, the Python API can."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from mia_lightning.errors import MIAError


def train(argv: Sequence[str] | None = None) -> int:
    """Run `train.py`: attack the target, leave a run folder, print the table. Return the exit code."""
    return _guarded(_train, argv)


def tune(argv: Sequence[str] | None = None) -> int:
    """Run `tune.py`. Return the exit code."""
    return _guarded(_tune, argv, again="the same command with --resume")


def evaluate(argv: Sequence[str] | None = None) -> int:
    """Run `python -m mia_lightning.evaluate`. Return the exit code."""
    return _guarded(_evaluate, argv)


def _guarded(
    command: Callable[[Sequence[str]], None], argv: Sequence[str] | None, *, again: str = "the same command"
) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        command([argument for argument in arguments if argument != "--debug"])
    except MIAError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {again} goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _train(arguments: Sequence[str]) -> None:
    from mia_lightning.parsing import parse_arguments

    config = parse_arguments(arguments, prog="train.py")

    from mia_lightning.run import run  # after parsing: --help and a typing error must not wait for torch

    run(config)


def _tune(arguments: Sequence[str]) -> None:
    from mia_lightning.parsing import parse_tuning

    config = parse_tuning([argument for argument in arguments if argument != "--resume"])

    from mia_lightning.search.sweep import tune  # after parsing: --help and a typing error must not wait for torch

    tune(config, resume="--resume" in arguments)


def _evaluate(arguments: Sequence[str]) -> None:
    from mia_lightning.parsing import parse_evaluation

    config = parse_evaluation(arguments)

    from mia_lightning.evaluate import run  # after parsing: --help and a typing error must not wait for scipy

    run(config)
