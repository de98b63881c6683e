"""Commands: parse, run, print. Everything they do is also available from Python."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mia_lightning.errors import MIAError, printable
from mia_lightning.runtime.hardware import is_first_process
from mia_lightning.runtime.interruption import Interrupted, interruptible

REPEAT = "rerun the same command to resume"


def train(argv: Sequence[str] | None = None) -> int:
    """Run `train.py`: attack the target, write the run folder, print the tables. Return the exit code."""
    return _guarded(_train, argv)


def tune(argv: Sequence[str] | None = None) -> int:
    """Run `tune.py`: search hyper-parameters. Return the exit code."""
    return _guarded(_tune, argv, repeat="rerun the same command with --resume to continue")


def evaluate(argv: Sequence[str] | None = None) -> int:
    """Run `python -m mia_lightning.evaluate`: evaluate membership scores. Return the exit code."""
    return _guarded(_evaluate, argv, repeat="rerun the same command to start again")


def compare(argv: Sequence[str] | None = None) -> int:
    """Run `python -m mia_lightning.compare`: compare two targets on the same records. Return the exit code."""
    return _guarded(_compare, argv, repeat="rerun the same command to start again")


def canaries(argv: Sequence[str] | None = None) -> int:
    """Run `python -m mia_lightning.canaries`: make canaries, or audit by them. Return the exit code."""
    return _guarded(_canaries, argv, repeat="rerun the same command to start again")


def benchmark(argv: Sequence[str] | None = None) -> int:
    """Run `python -m mia_lightning.benchmark`: compare attacks over many targets. Return the exit code."""
    return _guarded(_benchmark, argv)


def planner(argv: Sequence[str] | None = None) -> int:
    """Run `python -m mia_lightning.planner`: forecast more reference models. Return the exit code."""
    return _guarded(_planner, argv, repeat="rerun the same command to start again")


def _guarded(command: Callable[[list[str]], int], argv: Sequence[str] | None, *, repeat: str = REPEAT) -> int:
    """Run a command and return its exit code: its own, 2 for a user's mistake, 128 plus the signal that ended it."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _take_flag(arguments, "--debug")
    try:
        with interruptible():
            return command(arguments)
    except (MIAError, OSError) as error:
        if debug or not (message := _message(error)):
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        if is_first_process():
            print(f"interrupted ({interruption.signal.name}); {repeat}", file=sys.stderr)
        return interruption.exit_code


def _message(error: Exception) -> str:
    """Return the message for the user, or "" where the error is not the user's."""
    if isinstance(error, MIAError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        name = f" {printable(Path(error.filename).name)}" if error.filename else ""
        return f"cannot write{name}: {error.strerror}; free space, or set another --output and --cache_dir"
    return ""


def _take_flag(arguments: list[str], flag: str) -> bool:
    """Remove a flag from the arguments, in place, and return whether it was among them."""
    given = flag in arguments
    arguments[:] = [argument for argument in arguments if argument != flag]
    return given


def _train(arguments: list[str]) -> int:
    from mia_lightning.config.command_line import parse_arguments

    overwrite = _take_flag(arguments, "--overwrite")
    config = parse_arguments(arguments)
    audited = config.data.public or config.references.imported
    _announce(f"mia_lightning: {f'audit of {audited}' if audited else 'audit'}, results in {config.output}")

    from mia_lightning.pipeline.run import run  # after parsing: --help and a mistake need not wait for torch

    targets = config.evaluation.targets
    is_table = targets is not None and (targets == "all" or len(targets) > 1 or config.data.public is not None)
    result = None if is_table and config.data.public is None else run(config, overwrite=overwrite)
    if is_table:
        from mia_lightning.benchmarking.run import run_targets

        run_targets(config, None if result is None else result.reference_outputs)
    return 0 if result is None or result.decision is None else result.decision.exit_code


def _tune(arguments: list[str]) -> int:
    from mia_lightning.config.command_line import parse_tuning

    resume = _take_flag(arguments, "--resume")
    config = parse_tuning(arguments)
    _announce(f"mia_lightning: search with {config.search.trials:,} trials, results in {config.output}")

    from mia_lightning.search.sweep import tune  # after parsing: --help and a mistake need not wait for torch

    tune(config, resume=resume)
    return 0


def _evaluate(arguments: list[str]) -> int:
    from mia_lightning.config.command_line import parse_evaluation

    overwrite = _take_flag(arguments, "--overwrite")
    config = parse_evaluation(arguments)
    if config.scores:
        _announce(f"mia_lightning: evaluation of {', '.join(config.scores[:3])}{' ...' if config.scores[3:] else ''}")

    from mia_lightning.pipeline.evaluate_scores import run  # after parsing: --help need not wait for scipy

    decision = run(config, overwrite=overwrite)
    return 0 if decision is None else decision.exit_code


def _compare(arguments: list[str]) -> int:
    from mia_lightning.config.command_line import parse_files
    from mia_lightning.evaluation.config import ComparisonConfig

    config = parse_files(arguments, ComparisonConfig, "runs")
    if config.runs:
        _announce(f"mia_lightning: comparison of {' and '.join(config.runs[:2])}")

    from mia_lightning.comparison.run import run  # after parsing: --help need not wait for scipy

    run(config)
    return 0


def _canaries(arguments: list[str]) -> int:
    from mia_lightning.canary.config import AuditConfig, MakeConfig
    from mia_lightning.config.command_line import parse_files, print_helps

    action = arguments.pop(0) if arguments and not arguments[0].startswith("--") else ""
    if action not in ("make", "audit"):
        if {"--help", "-h", "--help_all"} & set(arguments):
            print_helps(MakeConfig, AuditConfig)
        given = repr(printable(action, 40)) if action else "none"
        raise MIAError(f"expected canaries make or canaries audit; the action given is {given}")
    if action == "make":
        making = parse_files(arguments, MakeConfig, "records")
        if making.records:
            _announce(f"mia_lightning: canaries from {making.records[0]}, results in {making.output}")

        from mia_lightning.canary.make import make  # after parsing: --help need not wait for numpy

        manifest = make(making)
        in_ = sum(manifest.coins)
        made = f"made {len(manifest.ids):,} {manifest.pattern} canaries in {making.output}"
        print(printable(f"{made}: train on the {in_:,} of train.npz"))
        print(f"commitment, to be published before training: {manifest.commitment}")
        return 0
    auditing = parse_files(arguments, AuditConfig, "folder")
    if auditing.folder:
        _announce(f"mia_lightning: audit of the canaries in {auditing.folder[0]}")

    from mia_lightning.canary.audit import audit, lines

    for line in lines(audit(auditing)):
        print(printable(line))
    return 0


def _benchmark(arguments: list[str]) -> int:
    from mia_lightning.config.command_line import parse_benchmark

    config = parse_benchmark(arguments)
    _announce(f"mia_lightning: benchmark on {config.data or config.pool}, results in {config.output}")

    from mia_lightning.benchmarking.run import run  # after parsing: --help and a mistake need not wait for torch

    run(config)
    return 0


def _planner(arguments: list[str]) -> int:
    from mia_lightning.config.command_line import parse_files
    from mia_lightning.evaluation.config import PlannerConfig

    config = parse_files(arguments, PlannerConfig, "run")
    if config.run:
        _announce(f"mia_lightning: forecast of {config.run[0]}")

    from mia_lightning.planning.run import run  # after parsing: --help need not wait for scipy

    run(config)
    return 0


def _announce(line: str) -> None:
    """Print what the command does, before the libraries are loaded."""
    if is_first_process():
        print(printable(line), flush=True)
