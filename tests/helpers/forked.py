"""Python processes forked from one that has imported the libraries, each eight seconds cheaper than a new interpreter.

The process that forks them is multiprocessing's fork server, one for each process of pytest.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("pytest", "lightning", "lightgbm", "sklearn.linear_model", "torch.utils.tensorboard", "torchvision.models"),
        *("mia_lightning.pipeline.run", "mia_lightning.config.command_line", "mia_lightning.config.commands"),
        *("mia_lightning.outputs.extraction", "mia_lightning.outputs.lightning_module", "mia_lightning.targets.load"),
        *("mia_lightning.records.readers.arrays", "mia_lightning.references.workers"),
        "helpers.short_runs",
    ]
)

PATIENCE = 900
"""Seconds after which a process is taken to hang; a busy machine may take ten times as long as an idle one."""


class Forked:
    """A process with the interface of `subprocess.Popen`; its standard output and standard error are kept.

    Args:
        function: What it runs; an exit code is raised as SystemExit. See `python`.
        env: Environment variables; None leaves those of this process.
        cwd: Working directory.
        start_new_session: Whether it leads a session of its own.
    """

    def __init__(
        self,
        function: Callable[[], object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: object = None,
        start_new_session: bool = False,
    ) -> None:
        self.stdout, self.stderr = (tempfile.NamedTemporaryFile("r") for _ in range(2))  # noqa: SIM115
        surroundings = (dict(os.environ if env is None else env), str(cwd or os.getcwd()), start_new_session)
        outputs = (self.stdout.name, self.stderr.name)
        self.process = CONTEXT.Process(target=_run, args=(function, outputs, *surroundings))
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    returncode = property(poll)

    def wait(self) -> int:
        self.process.join(PATIENCE)
        if self.poll() is None:
            self.process.kill()
            raise TimeoutError(f"it ran for {PATIENCE} s: {self.stderr.read()}")
        return self.poll()

    def communicate(self) -> tuple[str, str]:
        self.wait()
        return self.stdout.read(), self.stderr.read()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()


def python(arguments: Sequence[object], *, fresh: bool = False) -> Callable[[], object]:
    """Return what `python ARGUMENTS` does, for a script, `-c CODE` or `-m MODULE`.

    Args:
        arguments: As they follow `python` on a command line.
        fresh: Whether the package under test is imported again, as from another folder of PYTHONPATH.
    """
    return partial(_python, list(map(str, arguments)), fresh)


def _run(function, outputs, environment, folder, session):
    if session:
        os.setsid()
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if environment.get("PYTHONWARNINGS") == "ignore":
        warnings.simplefilter("ignore")
    function()


def _python(arguments, fresh):
    sys.orig_argv[:] = [sys.executable, *arguments]  # what helpers of several devices are started by
    for name in list(sys.modules):
        if name.partition(".")[0] in ("helpers", "mia_lightning") and (fresh or name.startswith("helpers")):
            del sys.modules[name]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    first, *rest = arguments
    if first == "-c":
        code, path = rest[0], "<string>"
        sys.argv = ["-c", *rest[1:]]
    else:
        path = os.path.abspath(first)
        sys.path.insert(0, os.path.dirname(path))
        sys.argv = arguments
        with open(path, encoding="utf-8") as file:
            code = file.read()
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = path
    exec(compile(code, path, "exec"), main.__dict__)
