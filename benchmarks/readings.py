"""Rates of the check of the target's inputs: false warnings of sound small targets, and wrong readings that are found.

``python benchmarks/readings.py [--count 200] [--seed 1] [--wrong size]``: handwritten digits and random patterns with 2
to 50 classes, 100 to 2,000 records, MLPs and convolutions, 1 to 30 epochs. Each is queried as it was trained, or
wrongly in the way that `--wrong` names; "harmed" are those whose accuracy on members falls by more than ten points by
that. Every false warning is printed.
"""

import argparse
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from torch import nn

from mia_lightning.records.records import Records
from mia_lightning.targets.base import Target
from mia_lightning.targets.readings import check_readings

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, str]:
    """Return images (N, C, H, W) uint8, labels (N,), classes and a name."""
    count = int(np.exp(rng.uniform(np.log(100), np.log(2000))))
    if rng.random() < 0.4:
        digits = load_digits()
        rows = rng.permutation(len(digits.target))[:count]
        classes = int(rng.choice([2, 5, 10]))
        images = (digits.images[rows, None] * 15).astype(np.uint8)
        return images, digits.target[rows] * classes // 10, classes, "digits"
    classes, channels, side = int(rng.choice([2, 3, 5, 10, 20, 50])), int(rng.choice([1, 3])), int(rng.choice([8, 12]))
    labels = rng.integers(0, classes, count)
    patterns = rng.normal(0, 1, (classes, channels, side // 4, side // 4)).repeat(4, 2).repeat(4, 3)
    noise = rng.normal(0, 1, (count, channels, side, side))
    images = rng.uniform(90, 150) + rng.uniform(5, 40) * patterns[labels] + rng.uniform(15, 50) * noise
    return np.clip(images, 0, 255).astype(np.uint8), labels, classes, f"patterns {channels}x{side}"


def normalization(rng: np.random.Generator, images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = images.shape[1]
    name = rng.choice(["none", "own", "half", "published", "scaled"])
    if name == "own":
        values = images.transpose(1, 0, 2, 3).reshape(channels, -1) / 255
        return tuple(values.mean(1).tolist()), tuple(values.std(1).tolist())
    if name == "published":
        return IMAGENET if channels == 3 else ((0.1307,), (0.3081,))
    mean, std = {"none": (0.0, 1.0), "half": (0.5, 0.5), "scaled": (rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.6))}[name]
    return (mean,) * channels, (std,) * channels


def network_for(
    rng: np.random.Generator, shape: tuple[int, ...], classes: int, *, any_size: bool = False
) -> tuple[nn.Module, str]:
    channels, height, width = shape
    if rng.random() < 0.4 and not any_size:
        hidden = int(rng.choice([16, 64, 128]))
        inputs = channels * height * width
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)), "MLP"
    maps = int(rng.choice([8, 16]))
    norm = nn.BatchNorm2d(maps) if rng.random() < 0.5 else nn.Identity()
    layers = [nn.Conv2d(channels, maps, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(maps, 2 * maps, 3, stride=2)]
    side = int(rng.choice([1, 3]))
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(2 * maps * side * side, classes)]
    return nn.Sequential(*layers, *head), "convolutions"


def trained(
    rng: np.random.Generator, network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int
) -> nn.Module:
    decay = float(rng.choice([0, 0, 5e-4, 5e-2]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=float(rng.choice([1e-3, 3e-3, 1e-2])), weight_decay=decay)
    mirrored = rng.random() < 0.3
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(64):
            if len(rows) < 2:
                continue
            batch = inputs[rows].flip(3) if mirrored and rng.random() < 0.5 else inputs[rows]
            loss = nn.functional.cross_entropy(network(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def asked(
    rng: np.random.Generator, records: Records, mean: tuple[float, ...], std: tuple[float, ...], wrong: str
) -> tuple[Records, tuple[float, ...], tuple[float, ...]]:
    """Return the records and the normalization as configured: those of the training, or wrong in one or two ways."""
    if wrong in ("normalization", "both"):
        while np.allclose(mean, (chosen := normalization(rng, records.images))[0], atol=0.1) and np.allclose(
            std, chosen[1], rtol=0.3
        ):
            pass
        mean, std = chosen
    if wrong == "classes":
        order = rng.permutation(int(records.labels.max()) + 1)
        records = replace(records, labels=order[records.labels])
    if wrong == "channels":
        records = replace(records, images=np.ascontiguousarray(records.images[:, ::-1]))
    return records, mean, std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--wrong", choices=("none", "normalization", "size", "both", "classes", "channels"), default="none"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, statuses = time.process_time(), Counter()
    for index in range(options.count):
        rng = np.random.default_rng([options.seed, index])
        torch.manual_seed(index)
        images, labels, classes, source = data(rng)
        if options.wrong == "channels" and images.shape[1] == 1:
            continue
        mean, std = normalization(rng, images)
        network, name = network_for(rng, images.shape[1:], classes, any_size=options.wrong in ("size", "both"))
        epochs = int(np.exp(rng.uniform(0, np.log(31))))
        membership = (rng.permutation(len(labels)) < len(labels) // 2).astype(np.int8)
        center, spread = (torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (mean, std))
        inputs = (torch.from_numpy(images).float() / 255 - center) / spread
        if options.wrong in ("size", "both"):
            inputs = nn.functional.interpolate(inputs, size=28, mode="bilinear", antialias=True)
        members = torch.from_numpy(membership == 1)
        trained(rng, network, inputs[members], torch.from_numpy(labels)[members], epochs)
        records = Records(np.arange(len(labels)), images, labels, membership, source="generated")
        records, mean, std = asked(rng, records, mean, std, options.wrong)
        check = check_readings(Target(network, classes, None, "benchmarks.readings:network", ""), records, mean, std)
        if check is None:
            continue
        with torch.inference_mode():
            accuracy = float((network(inputs[members]).argmax(1).numpy() == labels[membership == 1]).mean())
        harmed = accuracy - check.members.accuracy > 0.1
        statuses[check.status, "harmed" if harmed else "alike"] += 1
        if options.wrong == "none" and check.status == "warn":
            print(f"{index}: {source}, {classes} classes, n = {len(labels)}, {name}, {epochs} epochs: {check.sentence}")
    total = statuses.total()
    for (status, effect), count in sorted(statuses.items()):
        low, high = binomtest(count, total).proportion_ci(0.95)
        print(f"{status}, {effect}: {count} of {total}, {count / total:.1%} [{low:.1%}, {high:.1%}]")
    print(f"{time.process_time() - started:.0f} s")


if __name__ == "__main__":
    main()
