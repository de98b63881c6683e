"""Commands as they are typed, in a checkout and in an installation, for hints that can be pasted."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

COMMANDS = ("train", "tune", "evaluate", "compare", "benchmark", "canaries", "planner")

SCRIPTS = tuple(f"mia-{name}" for name in COMMANDS)


def command(name: str) -> str:
    """Return how a command of this package is typed where this process was started.

    `mia-train` in an installation, `python train.py` in a checkout, with the interpreter of this process.
    """
    started = sys.argv[0] if sys.argv else ""
    script = Path(started)
    if script.name in SCRIPTS:
        sibling = f"mia-{name}"
        on_path = shutil.which(sibling)
        path = script.with_name(sibling)
        return sibling if on_path and path.exists() and os.path.samefile(on_path, path) else shlex.quote(str(path))
    if name not in ("train", "tune"):
        return f"{_interpreter()} -m mia_lightning.{name}"
    if script.name in ("train.py", "tune.py"):
        return f"{_interpreter()} {shlex.quote(str(script.with_name(f'{name}.py')))}"
    checkout = Path(__file__).parents[2] / f"{name}.py"
    if checkout.exists():
        return f"{_interpreter()} {shlex.quote(os.path.relpath(checkout))}"
    return f"mia-{name}"


def command_line(words: Iterable[str | Path]) -> str:
    """Return words as one line for a POSIX shell, each quoted where needed."""
    return " ".join(shlex.quote(str(word)) for word in words)


def option(name: str, value: str | Path) -> list[str]:
    """Return the words of an option; a value that begins with a dash is joined to it."""
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]


def program(name: str, module: str) -> str:
    """Return how a dependency's command is typed: by name if it is that of this interpreter, else as a module."""
    path = shutil.which(name)
    is_ours = path is not None and Path(path).parent == Path(sys.executable).parent
    return name if is_ours else f"{_interpreter()} -m {module}"


def _interpreter() -> str:
    """Return a name of this process's interpreter that starts the same one."""
    for name in ("python", "python3"):
        path = shutil.which(name)
        if path and Path(path).parent == Path(sys.executable).parent and os.path.samefile(path, sys.executable):
            return name
    relative = os.path.relpath(sys.executable)
    return shlex.quote(relative if not relative.startswith("..") else sys.executable)
