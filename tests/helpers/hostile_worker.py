"""Hostile files given to the command line under a memory limit, in a process of its own, with a report on each.

Started by the tests with the path of a JSON file: `{"cases": [[name, kind, path], ...], "good": {kind: path}}`. For
each case one line of JSON goes to stdout before it starts and one after it, so that the parent can tell which case
ended the process. Every attempt to start a program, open a connection, or create, change or delete a file outside the
scratch folder is reported.
"""

import contextlib
import faulthandler
import importlib
import io
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from unittest import mock

HEADROOM = 3 * 2**30
"""Bytes of address space a case may add to what the libraries take when they are loaded."""

PATIENCE = 40
"""Seconds after which a case is taken to hang."""

STARTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "pty.spawn",
}
CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"}
CONNECTS = {"socket.connect", "socket.bind", "urllib.Request"}


QUERY_PROCESS = "mia_lightning.targets.first_query"


class AuditHook:
    """Collects the events of a case that no reader should cause."""

    def __init__(self, scratch: str) -> None:
        self.scratch, self.seen, self.on = scratch, [], False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "subprocess.Popen" and QUERY_PROCESS in repr(arguments[1]):
            return  # the product's own child, in which a program is queried first
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in STARTS | CONNECTS or ((writes or event in CHANGES) and not self._is_scratch(arguments[0])):
            self.seen.append(f"{event} {arguments!r}"[:200])

    def _is_scratch(self, path: object) -> bool:
        if isinstance(path, int):  # a pipe or file that is open already
            return True
        with contextlib.suppress(TypeError, ValueError):
            return os.path.abspath(os.fsdecode(path)).startswith((self.scratch, "/dev/null"))
        return False


IN_CHILD = "programs/target: a weight of no type"
"""The program that a child of the command itself reads; each child takes four seconds to start."""

WHOLE = 8
"""One in this many cases goes through the complete command line, which is slow; the others call the reader behind the
same guard."""


def run(kind: str, path: str, good: dict[str, str], scratch: str, *, whole: bool = True, child: bool = False) -> int:
    """Give the file to the command that reads such files; return the exit code."""
    from mia_lightning import cli

    if not child:
        with mock.patch("mia_lightning.targets.first_query.read_in_child", read_here):
            return run(kind, path, good, scratch, whole=whole, child=True)
    if kind in ("records", "target") and not whole:
        from mia_lightning.records.readers import read_records
        from mia_lightning.targets import load_target

        def read(_: list[str]) -> int:
            (read_records if kind == "records" else load_target)(path)
            return 0

        return cli._guarded(read, [])
    output = ["--output", f"{scratch}/out"]
    if kind in ("records", "target", "config"):
        data, target = good["records"] if kind != "records" else path, good["target"] if kind != "target" else path
        config = ["--config", path] if kind == "config" else []
        return cli.train([*config, "--data.public", data, "--target.checkpoint", target, *output])
    if kind == "scores":
        return cli.evaluate([path])
    if kind == "key":
        return cli.evaluate([good["scores"], "--key", path])
    return cli.evaluate(["--leaderboard", good["key"], path])


def read_here(path: Path, form: object, shape: object, dtype: object) -> bytes:
    """Do in this process, whose events are seen, what else a child does."""
    from mia_lightning.targets import first_query

    return first_query.answer({"path": str(path), "resize": None, "transform": None, "shape": shape, "dtype": dtype})


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


def peak() -> int:
    """Return the most memory this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    good, scratch = plan["good"], plan["scratch"]
    hook = AuditHook(scratch)
    for kind in dict.fromkeys(kind for _, kind, _ in plan["cases"]):  # so that late imports happen before the limit
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run(kind, plan["bad"], good, scratch)
    importlib.import_module("mia_lightning.pipeline.run")
    for late in ("torchvision", "torch.export", "torch.export.pt2_archive", "safetensors.torch", "pyarrow.parquet"):
        importlib.import_module(late)
    importlib.import_module("mia_lightning.targets.load")
    limit_memory()
    for index, (name, kind, path) in enumerate(plan["cases"]):
        print(json.dumps({"start": name}), flush=True)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)  # ends the process even where C code loops
        before, started, err, out = peak(), time.perf_counter(), io.StringIO(), io.StringIO()
        hook.seen, hook.on, crash, code = [], True, "", None
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(
                    kind, path, good, scratch, whole=index % WHOLE == 0 or name == IN_CHILD, child=name == IN_CHILD
                )
        except BaseException:
            crash = traceback.format_exc()
        hook.on = False
        faulthandler.cancel_dump_traceback_later()
        report = {
            "name": name,
            "code": code,
            "error": err.getvalue(),
            "crash": crash[-1500:],
            "seen": hook.seen,
            "grown": peak() - before,
            "seconds": time.perf_counter() - started,
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
