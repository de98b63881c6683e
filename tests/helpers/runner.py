"""A small audit, and a runner of commands on it, with faults injected."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from helpers.forked import PATIENCE, Forked, python

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

    def start(self, output, *options):
        """Start train.py as a process of its own."""
        return Forked(python([ROOT / "train.py", *self.arguments(output, *options)]), env=self.environment)

    def serve(self, jobs):
        """Run jobs one after the other, each in a process of its own, and return their (exit code, stderr).

        A job is {"command": "train", "arguments": [], "kill_before": name, "kill_after": seconds, "mounts": []}, where
        `kill_before` sends SIGKILL when a file is about to take that name, and `mounts` are commands that mount file
        systems for this job alone.
        """
        processes = (Forked(partial(_job, job), env=self.environment) for job in jobs)
        return [(process.wait(), process.stderr.read()) for process in processes]


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
    for _ in range(20 * PATIENCE):
        if result := condition():
            return result
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError(f"nothing happened for {PATIENCE} s")


def _job(job):
    import mia_lightning.outputs.shards
    from mia_lightning import cli

    mia_lightning.outputs.shards.SHARD_BYTES = 1  # a shard per batch
    if job.get("mounts"):
        assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS: mounts that other processes do not see
        subprocess.run(["sh", "-c", " && ".join(["mount --make-rprivate /", *job["mounts"]])], check=True)
    if job.get("kill_after"):
        timer = threading.Timer(job["kill_after"], os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    if job.get("kill_before"):
        replace = Path.replace

        def dying(self, target):
            if Path(target).name.endswith(job["kill_before"]):
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)

        Path.replace = dying
    raise SystemExit(getattr(cli, job.get("command", "train"))(job["arguments"]))
