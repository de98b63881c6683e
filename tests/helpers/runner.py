"""A small audit, and a server that runs commands on it in forked processes, so that libraries are imported once.

As a program: reads JSON lists of jobs, one a line, from the standard input and prints a line of results for each. A
job is {"command": "train", "arguments": [...], "kill_before": name, "kill_after": seconds}; `kill_before` sends SIGKILL
when a file is about to take that name.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
COUNT = 160

TARGET = """
import torch


def network():
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)]
    return torch.nn.Sequential(*layers)
"""


@dataclass
class Audit:
    """Files of a small audit."""

    folder: Path
    servers: dict[str, subprocess.Popen] = field(default_factory=dict)
    """The server by the environment and working directory that it was started in; it ends with this process."""

    @property
    def environment(self):
        own = {"PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}", "PYTHONWARNINGS": "ignore"}
        started = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "PYTEST_CURRENT_TEST")
        return {name: value for name, value in os.environ.items() if name not in started} | own

    def arguments(self, output, *options):
        return [
            *("--data.public", str(self.folder / "public.npz"), "--data.private", str(self.folder / "private.npz")),
            *("--target.architecture", "tiny_target:network", "--hardware.accelerator", "cpu"),
            *("--evaluation.folds", "2", "--hardware.batch_size", "20", "--output", str(output), *options),
        ]

    def start(self, output, *options, **popen):
        """Start train.py as a process of its own."""
        command = [sys.executable, str(ROOT / "train.py"), *self.arguments(output, *options)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, **(pipes | popen))

    def serve(self, jobs, *, prefix=()):
        """Run jobs one after the other and return their (exit code, stderr)."""
        surroundings = json.dumps([list(prefix), os.getcwd(), self.environment], sort_keys=True)
        if surroundings not in self.servers:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            command = [*prefix, sys.executable, __file__]
            self.servers[surroundings] = subprocess.Popen(command, env=self.environment, **pipes)
        server = self.servers[surroundings]
        timer = threading.Timer(400, server.kill)
        timer.start()
        print(json.dumps(jobs), file=server.stdin, flush=True)
        results = server.stdout.readline()
        timer.cancel()
        assert results, f"the server ended with exit code {server.wait()}"
        return [tuple(result) for result in json.loads(results)]


def make_audit(folder):
    import numpy as np

    rng = np.random.default_rng(0)
    for half, name in enumerate(("public", "private")):
        arrays = {"images": rng.integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)}
        arrays |= {"ids": np.arange(COUNT) + half * COUNT, "labels": rng.integers(0, 4, COUNT)}
        if name == "public":
            arrays["membership"] = rng.permutation(np.repeat([0, 1], COUNT // 2))
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "tiny_target.py").write_text(TARGET)
    return Audit(folder)


REFERENCES = """
references:
  count: 4
  architecture: tiny_reference:network
  training: {epochs: 20, batch_size: 16, flip: false}
  scores:
    lira: {class_path: LiRA}
"""


def reference_options(audit):
    """Return the options of a run with references of a network of their own."""
    (audit.folder / "tiny_reference.py").write_text(
        TARGET.replace("    torch.manual_seed(0)\n", "").replace("16", "24")
    )
    (audit.folder / "references.yaml").write_text(REFERENCES)
    return ["--config", str(audit.folder / "references.yaml")]


def wait_for(condition, process=None):
    for _ in range(3600):
        if result := condition():
            return result
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("nothing happened for three minutes")


def _serve():
    for module in BEFORE_FORKS:
        importlib.import_module(module)
    import mia_lightning.outputs.shards

    mia_lightning.outputs.shards.SHARD_BYTES = 1  # a shard per batch
    for line in sys.stdin:
        print(json.dumps([_run(job) for job in json.loads(line)]), flush=True)


BEFORE_FORKS = [
    *("lightning", "lightgbm", "sklearn.linear_model", "torch.utils.tensorboard", "mia_lightning.pipeline.run"),
    *("mia_lightning.config.command_line", "mia_lightning.config.commands", "mia_lightning.outputs.extraction"),
    *("mia_lightning.records.readers.arrays", "mia_lightning.targets.load", "mia_lightning.outputs.lightning_module"),
]
"""Modules that every job imports."""


def _run(job):
    from mia_lightning import cli

    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            _inject(job)
            os._exit(getattr(cli, job.get("command", "train"))(job["arguments"]))
        status = os.waitpid(child, 0)[1]
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read()


def _inject(job):
    replace = Path.replace

    def dying(self, target):
        if Path(target).name.endswith(job["kill_before"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    if job.get("kill_after"):
        timer = threading.Timer(job["kill_after"], os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    if job.get("kill_before"):
        Path.replace = dying


if __name__ == "__main__":
    _serve()
