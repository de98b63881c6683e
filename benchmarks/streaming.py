"""Streamed JPEGs compared with a bare DataLoader with the same workers, batch and network, ways taking turns.

Usage: python benchmarks/streaming.py [--rounds 5] [--images 1280] [--workers 2]

Pictures of smooth noise, 500x375 pixels, resized and cropped to 224x224 by the transform of ImageNet; a network that
costs next to nothing, so that decoding is compared. Indexing the folder is not timed. A ratio is the median over the
rounds of (bare loader / product) in that round, above 1 where the product is faster.
"""

import argparse
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from extraction import quiet
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from mia_lightning.outputs.extraction import extract
from mia_lightning.outputs.request import ExtractionRequest
from mia_lightning.records.readers.image_folder import read_transformed
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.targets.base import Target

BATCH = 64
TRANSFORM = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def write_images(folder, count):
    """Write smooth noise, whose files have the size of photographs' (some 40 kB)."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("train" if number % 2 else "test") / str(number // 2 % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (94, 125, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=75)


@torch.inference_mode()
def bare(folder, network, workers):
    """Return the logits of a loop over torchvision's ImageFolder."""
    results = []
    for half in ("train", "test"):
        loader = DataLoader(ImageFolder(str(folder / half), TRANSFORM), BATCH, num_workers=workers)
        results += [network(images) for images, _ in loader]
    return torch.cat(results)


def product(records, network, workers):
    """Return the logits of the extraction: Trainer.predict, shards, checksums, merge."""
    hardware = Hardware(accelerator="cpu", batch_size=BATCH, loader_workers=workers)
    target = Target(network, 2, None, "benchmark", "benchmark")
    with tempfile.TemporaryDirectory() as store, quiet():
        request = ExtractionRequest(
            Splits(records), target, None, None, 1, gradients=False, hardware=hardware, store=Path(store)
        )
        return torch.from_numpy(extract(request).public.logits[:, 0])


def timed(way):
    """Return wall and CPU seconds, worker processes included."""

    def cpu():
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    started, used = time.perf_counter(), cpu()
    way()
    return time.perf_counter() - started, cpu() - used


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("rounds", 5), ("images", 1280), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)]
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images)
        records = read_transformed(folder, transform=TRANSFORM, transform_name="streaming:TRANSFORM")
        ways = [partial(bare, Path(folder)), partial(product, records)]
        logits = [way(network, options.workers) for way in ways]
        order = np.argsort(["train" not in str(path) for path in records.ids], kind="stable")
        print(f"largest difference of a logit {float((logits[0] - logits[1][order]).abs().max()):.1e}")
        rows = []
        for turn in range(options.rounds):
            numbers = (turn % 2, 1 - turn % 2)
            taken = {number: timed(partial(ways[number], network, options.workers)) for number in numbers}
            rows.append([taken[0], taken[1]])
        seconds = np.array(rows)  # (round, way, wall or CPU)
        ratios, speeds = seconds[:, 0] / seconds[:, 1], options.images / np.median(seconds[..., 0], axis=0)
        print(f"images/s: bare {speeds[0]:,.0f}, product {speeds[1]:,.0f}")
        print("bare / product, wall and CPU:", *np.round(np.median(ratios, axis=0), 2), "by round", np.round(ratios, 2))


if __name__ == "__main__":
    main()
