"""References trained by Ray while a random worker is killed every few seconds, compared with a run without kills.

    python benchmarks/preemption.py [--minutes 10] [--every 60] [--workers 2] [--pause 0]

Small references are trained for about that time; it prints the kills that hit a worker, the losses that the run
reported, and whether phi of all references has the bytes of a run in one process. With a pause the workers wait that
many seconds in each epoch, so that ten minutes need little CPU.
"""

import argparse
import json
import logging
import os
import random
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from torch import nn

from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.networks import NetworkFactory
from mia_lightning.references.store import ReferenceStore
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.workers import ReferenceJob, train_references
from mia_lightning.targets.base import TargetForm
from mia_lightning.targets.demo import digits_network

RECORDS, COUNT, QUERIES, BATCH = 2000, 4, 2, 64

PAUSE = "SECONDS_PER_EPOCH"
"""Environment variable of the workers."""


class PausedNetwork(nn.Sequential):
    """The demo's network, which waits in each training batch."""

    def forward(self, batch):
        if self.training and (seconds := float(os.environ.get(PAUSE, "0"))):
            sleep(seconds * BATCH / (RECORDS / 2))
        return super().forward(batch)


def paused_network():
    return PausedNetwork(*digits_network())


def jobs(folder, epochs):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (RECORDS, 1, 8, 8), dtype=np.uint8)
    material = TrainingData(images, draw.integers(0, 10, RECORDS), (0.5,), (0.5,), 10, QUERIES)
    keep = draw.random((COUNT, RECORDS)) < 0.5
    store = ReferenceStore(folder, training={}, inference={}, records=RECORDS, queries=QUERIES)
    store.open(keep, weights_bytes=10_000)
    network = NetworkFactory("benchmarks.preemption:paused_network", 10, {}, TargetForm(), {})
    recipe = ReferenceTraining(epochs=epochs, batch_size=BATCH, learning_rate=0.01)
    return [ReferenceJob(k, keep[k], k, recipe, network, store, "cpu") for k in range(COUNT)], material


def workers_below(driver):
    """Return the processes of Ray's workers that a driver started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def is_below(pid):
        while pid > 1 and pid != driver:
            pid = parents.get(pid, 0)
        return pid == driver

    return [int(pid) for pid, _, command in rows if command.startswith("ray::_in_worker") and is_below(int(pid))]


def kill_workers(every, done, kills, seed=0):
    draw = random.Random(seed)
    while not done.wait(every):
        if workers := workers_below(os.getpid()):
            os.kill(draw.choice(workers), signal.SIGKILL)
            kills.append(perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0)
    arguments = parser.parse_args()
    losses: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: losses.append(record.getMessage())
    logging.getLogger("mia_lightning.references.workers").addHandler(handler)
    with tempfile.TemporaryDirectory() as temporary:
        few, material = jobs(Path(temporary) / "speed", 5)
        started = perf_counter()
        train_references(few[:1], material, ReferencesConfig())
        epoch = (perf_counter() - started) / few[0].recipe.epochs + arguments.pause
        epochs = max(10, int(arguments.minutes * 60 * arguments.workers / COUNT / epoch))
        alone, _ = jobs(Path(temporary) / "alone", epochs)
        train_references(alone, material, ReferencesConfig())
        preempted, _ = jobs(Path(temporary) / "preempted", epochs)
        losses.clear()
        os.environ[PAUSE] = str(arguments.pause)
        done, kills = threading.Event(), []
        killer = threading.Thread(target=kill_workers, args=(arguments.every, done, kills))
        killer.start()
        started = perf_counter()
        try:
            train_references(preempted, material, ReferencesConfig(workers=arguments.workers))
        finally:
            done.set()
            killer.join()
        phi = [some[0].store.matrix(COUNT) for some in (alone, preempted)]
        lost = sum("was lost" in line for line in losses)
        print(
            json.dumps(
                {
                    "minutes": round((perf_counter() - started) / 60, 1),
                    "epochs": epochs,
                    "kills": len(kills),
                    "losses": lost,
                    "same bytes": phi[0].tobytes() == phi[1].tobytes(),
                }
            )
        )


if __name__ == "__main__":
    main()
