"""Peak memory of a Ray worker that trains a reference on images in a file, by number of records.

Usage: python benchmarks/worker_memory.py [--records 20000 120000] [--copies]

Random 32x32 images in an uncompressed .npz, of which 2,000 are trained on for one epoch and all are queried. Measured
are anonymous and shared memory of the worker, looked at every 20 ms, and the peak of the process that started it;
`--copies` sends the images to the worker as clusters do, where files may be missing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from memory import write_images
from torch import nn

from mia_lightning.records.readers import arrays, read_records
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.networks import NetworkFactory
from mia_lightning.references.store import ReferenceStore
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.workers import ReferenceJob, train_references
from mia_lightning.targets.base import TargetForm


def network(num_classes=10):
    body = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(body, nn.Linear(32, num_classes))


def memory(pid):
    """Return anonymous memory, shared memory and their peak of a process, in MiB; zeros where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0, 0.0
    status = dict(line.split(":", 1) for line in lines)
    return tuple(int(status[name].split()[0]) / 1024 for name in ("RssAnon", "RssShmem", "VmHWM"))


def workers():
    """Return the processes of workers below this process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    parents = {pid: parent for pid, parent, _ in rows}
    for pid, parent, command in rows:
        while parent in parents and parent != str(os.getpid()):
            parent = parents[parent]
        if command.startswith("ray::_in_worker") and parent == str(os.getpid()):
            yield pid


def measure(path, folder):
    """Train one reference and print the worker's anonymous and shared memory, and this process's peak."""
    arrays.MAPPED = 1
    records = read_records(path)
    material = TrainingData(records.images, records.labels, (0.5,) * 3, (0.5,) * 3, 10, 1)
    keep = np.arange(len(records)) < 2000
    store = ReferenceStore(Path(folder) / ".store", training={}, inference={}, records=len(records), queries=1)
    store.open(keep[None], weights_bytes=1000)
    factory = NetworkFactory("worker_memory:network", 10, {}, TargetForm(), {})
    recipe = ReferenceTraining(epochs=1, batch_size=200, learning_rate=0.02)
    peaks, ended = np.zeros(2), threading.Event()

    def watch():
        while not ended.wait(0.02):
            for pid in workers():
                peaks[:] = np.maximum(peaks, memory(pid)[:2])

    threading.Thread(target=watch, daemon=True).start()
    train_references([ReferenceJob(0, keep, 0, recipe, factory, store, "cpu")], material, ReferencesConfig(workers=1))
    ended.set()
    print(*peaks, memory(os.getpid())[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, nargs="+", default=[20_000, 120_000])
    parser.add_argument("--copies", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.copies:
        TrainingData.by_file = lambda self: self
    if options.measure:
        measure(*options.measure)
        return
    print(
        "| records | images | worker, anonymous | worker, shared | starting process, peak |\n|---:|---:|---:|---:|---:|"
    )
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    for count in options.records:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npz"
            write_images(path, count)
            copies = ["--copies"] if options.copies else []
            command = [sys.executable, __file__, *copies, "--measure", str(path), folder]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            figures = [f"{float(value):,.0f} MiB" for value in done.stdout.split()[-3:]]
            print(f"| {count:,} | {count * 3072 >> 20} MiB | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
