"""Peak memory of extraction by number of records, each in a process of its own that reads them from a file.

Usage: python benchmarks/memory.py [--records 10000 100000 1000000] [--queries 1]

Random 32x32 images in an uncompressed .npz, a small convolutional network, one CPU process. Measured is anonymous
memory (RssAnon of /proc/self/status, looked at every 5 ms): what the process cannot do without. Pages of the mapped
files come on top while there is room, and the kernel takes them back when there is none.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mia_lightning.outputs.extraction import extract
from mia_lightning.outputs.request import ExtractionRequest
from mia_lightning.records.readers import arrays, read_records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.targets.base import Target

BLOCK, CLASSES = 10000, 10


def write_images(path, count):
    """Write an .npz whose images never are in memory at once."""
    import zipfile

    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, 32, 32)}
            np.lib.format.write_array_header_2_0(file, header)
            for start in range(0, count, BLOCK):
                file.write(rng.integers(0, 256, (min(BLOCK, count - start), 3, 32, 32), dtype=np.uint8).tobytes())
        for name, values in (("labels", np.arange(count) % CLASSES), ("membership", (np.arange(count) % 2))):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values)


def target():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network = nn.Sequential(body, nn.Linear(32, CLASSES)).eval().requires_grad_(False)
    return Target(network, CLASSES, "1", "small", "benchmark")


class Peak:
    """Largest anonymous and file-backed memory of this process, in MiB."""

    def __enter__(self):
        self.anonymous = self.mapped = 0.0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        while not self.ended.wait(0.005):
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.anonymous = max(self.anonymous, int(status["RssAnon"].split()[0]) / 1024)
            self.mapped = max(self.mapped, int(status["RssFile"].split()[0]) / 1024)

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def measure(path, store, queries):
    """Extract and print peak anonymous MiB, peak mapped MiB, seconds."""
    logging.disable(logging.WARNING)
    arrays.MAPPED = 1  # small files too, so that all sizes go the same way
    started = time.perf_counter()
    with Peak() as peak:
        hardware = Hardware(accelerator="cpu", batch_size=1024)
        options = {"mean": None, "std": None, "queries": queries, "gradients": False, "hardware": hardware}
        request = ExtractionRequest(Splits(read_records(path)), target(), store=Path(store), **options)
        outputs = extract(request).public
    assert np.isfinite(outputs.logits[-1]).all()
    print(peak.anonymous, peak.mapped, time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="print nothing but the peaks of anonymous memory, in MiB")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.queries)
        return
    if not options.plain:
        print("| records | file | anonymous memory, peak | mapped pages, peak | time |\n|---:|---:|---:|---:|---:|")
    for count in options.records:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npz"
            write_images(path, count)
            command = [sys.executable, __file__, "--queries", str(options.queries), "--measure", str(path), folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
            anonymous, mapped, seconds = map(float, done.stdout.split())
            size = path.stat().st_size / 2**20
        if options.plain:
            print(anonymous)
        else:
            print(f"| {count:,} | {size:,.0f} MiB | {anonymous:,.0f} MiB | {mapped:,.0f} MiB | {seconds:,.0f} s |")


if __name__ == "__main__":
    main()
