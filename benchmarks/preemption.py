"""References trained by Ray while a random worker is killed every few seconds, compared with a run without kills.

    python benchmarks/preemption.py [--minutes 10] [--every 60] [--workers 2]

Small references are trained until the time is over; it prints the kills that hit a worker, the losses that the run
reported, and whether phi of all references has the bytes of a run in one process.
"""

from __future__ import annotations

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
from time import perf_counter

import numpy as np

from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.networks import NetworkFactory
from mia_lightning.references.store import ReferenceStore
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.workers import ReferenceJob, train_references
from mia_lightning.targets.base import TargetForm

RECORDS, COUNT, QUERIES = 2000, 4, 2


def jobs(folder, epochs):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (RECORDS, 1, 8, 8), dtype=np.uint8)
    material = TrainingData(images, draw.integers(0, 10, RECORDS), (0.5,), (0.5,), 10, QUERIES)
    keep = draw.random((COUNT, RECORDS)) < 0.5
    store = ReferenceStore(folder, training={}, inference={}, records=RECORDS, queries=QUERIES)
    store.open(keep, weights_bytes=10_000)
    network = NetworkFactory("mia_lightning.targets.demo:digits_network", 10, {}, TargetForm(), {})
    recipe = ReferenceTraining(epochs=epochs, batch_size=64, learning_rate=0.01)
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
    arguments = parser.parse_args()
    losses: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: losses.append(record.getMessage())
    logging.getLogger("mia_lightning.references.workers").addHandler(handler)
    with tempfile.TemporaryDirectory() as temporary:
        few, material = jobs(Path(temporary) / "speed", 5)
        started = perf_counter()
        train_references(few[:1], material, ReferencesConfig())
        epochs = max(10, int(arguments.minutes * 30 * arguments.workers / COUNT / (perf_counter() - started) * 5))
        alone, _ = jobs(Path(temporary) / "alone", epochs)
        train_references(alone, material, ReferencesConfig())
        preempted, _ = jobs(Path(temporary) / "preempted", epochs)
        losses.clear()
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
