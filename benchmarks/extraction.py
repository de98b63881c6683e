"""Extraction compared with the loops that people write: records per second, in one process, ways taking turns.

Usage: python benchmarks/extraction.py [--rounds 5] [--records 20000]

A stock torchvision resnet18 with random weights on random 32x32 images. Every way's logits are compared with those of
the bare eager loop before anything is timed. A ratio is the median over the rounds of (way / bare loop) in that round.
"""

import argparse
import contextlib
import logging
import os
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18

from mia_lightning.outputs.extraction import extract
from mia_lightning.outputs.fuse import prepare_for_inference
from mia_lightning.outputs.request import ExtractionRequest
from mia_lightning.outputs.views import views
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.targets.base import Target
from mia_lightning.targets.features import FeatureTap

MEAN, STD, CLASSES = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26), 10


def make_network():
    torch.manual_seed(0)
    network = resnet18(num_classes=CLASSES)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network.eval().requires_grad_(False)


def make_records(count):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Records(np.arange(count), images, rng.integers(0, CLASSES, count), np.zeros(count, np.int8), "random")


class Pictures(Dataset):
    """The usual way: PIL images, a transform per item."""

    def __init__(self, records, transform):
        self.pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in records.images]
        self.transform = transform

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, item):
        return self.transform(self.pictures[item])


class Ways:
    """Each method queries all records and returns (N, CLASSES) logits, or (N, Q, CLASSES)."""

    def __init__(self, records):
        self.records, self.network = records, make_network()
        scaled = torch.from_numpy(records.images).float() / 255
        self.ready = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        as_tensor = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        self.pictures = Pictures(records, transforms.Compose(as_tensor))
        self.inner_network = FeatureTap(prepare_for_inference(self.network, self.ready[:8]), "fc")

    @torch.inference_mode()
    def bare_loop(self, batch=64):
        """Eager fp32 over ready, normalized batches that are already in memory."""
        return torch.cat([self.network(self.ready[i : i + batch]) for i in range(0, len(self.ready), batch)])

    def one_by_one(self):
        return self.bare_loop(batch=1)

    @torch.inference_mode()
    def pil_loader(self):
        """A DataLoader over PIL images, batch 64, in this process."""
        return torch.cat([self.network(images).cpu() for images in DataLoader(self.pictures, batch_size=64)])

    @torch.inference_mode()
    def inner_module(self):
        """The engine's own network over its own kind of batches: what Lightning and the store add is the rest."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        results = []
        for start in range(0, len(self.records), 256):
            images = torch.from_numpy(self.records.images[start : start + 256]).float() / 255
            images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
            results.append(self.inner_network(images)[0])
        return torch.cat(results)

    def engine(self, queries=1, precision="32-true"):
        """The product: Trainer.predict, shards, checksums, merge."""
        target = Target(self.network, CLASSES, "fc", "resnet18", "benchmark")
        hardware = Hardware(accelerator="cpu", precision=precision)
        with tempfile.TemporaryDirectory() as store, quiet():
            request = ExtractionRequest(
                Splits(self.records), target, MEAN, STD, queries, gradients=False, hardware=hardware, store=Path(store)
            )
            outputs = extract(request).public
        return torch.from_numpy(outputs.logits if queries > 1 else outputs.logits[:, 0])

    def engine_bf16(self):
        return self.engine(precision="bf16-mixed")

    def engine_18(self):
        return self.engine(queries=18)

    @torch.inference_mode()
    def bare_loop_18(self):
        """The bare loop over 18 views, each cut per batch."""
        results = []
        for start in range(0, len(self.ready), 64):
            results.append(torch.stack([self.network(v) for v in views(self.ready[start : start + 64], 18)], dim=1))
        return torch.cat(results)


@contextlib.contextmanager
def quiet():
    logging.disable(logging.WARNING)
    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        yield
    logging.disable(logging.NOTSET)


def timed(way):
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def measure(ways, names, base, rounds):
    seconds = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(timed(getattr(ways, name)))
    return {
        name: (float(np.median(s)), float(np.median(np.array(seconds[base]) / np.array(s))))
        for name, s in seconds.items()
    }


def check_equal(ways, name, base, tolerance):
    difference = float((getattr(ways, name)() - getattr(ways, base)()).abs().max())
    assert difference <= tolerance, f"{name} differs from {base} by {difference}"
    print(f"{name}: largest difference of a logit from {base} {difference:.1e}")


def show(results, count, base):
    print(f"\n| way | records/s | x {base} |\n|---|---:|---:|")
    for name, (seconds, ratio) in results.items():
        print(f"| {name} | {count / seconds:,.0f} | {ratio:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=20000)
    options = parser.parse_args()
    print(f"{date.today()}, {torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}\n")

    ways = Ways(make_records(options.records))
    for name in ("pil_loader", "inner_module", "engine"):
        check_equal(ways, name, "bare_loop", 1e-4)
    check_equal(ways, "engine_bf16", "bare_loop", 5e-2)
    names = ["bare_loop", "pil_loader", "inner_module", "engine", "engine_bf16"]
    show(measure(ways, names, "bare_loop", options.rounds), options.records, "bare_loop")

    few = Ways(make_records(options.records // 16))
    check_equal(few, "one_by_one", "bare_loop", 1e-4)
    check_equal(few, "engine_18", "bare_loop_18", 1e-4)
    show(measure(few, ["bare_loop_18", "engine_18"], "bare_loop_18", options.rounds), len(few.records), "bare_loop_18")
    show(measure(few, ["bare_loop", "one_by_one"], "bare_loop", options.rounds), len(few.records), "bare_loop")


if __name__ == "__main__":
    main()
