"""Convolutional targets of several recipes under shipped configurations, on records of withheld membership.

    python benchmarks/targets.py images.npz [--recipes NAME ...] [--configs NAME ...] [--records 4000] [--epochs 24]

Each target is a small network trained on a random half of the records. Half of the records are public; figures are of
the others, whose membership no attack sees. The single signal is the best of all on these records, a bar that no
attacker can choose. `*` marks a figure outside the run's own out-of-fold interval. Differences are against that signal,
with 95% intervals of a paired bootstrap. images.npz: images (N, C, H, W) or (N, H, W, C) uint8, labels (N,).
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

import mia_lightning
from mia_lightning.evaluation.comparison import paired_bootstrap
from mia_lightning.evaluation.single_signals import single_signals
from mia_lightning.metrics.roc import Evaluation
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData
from mia_lightning.signals import expand_names, get_signal

RECIPES = {
    "mirrors": ReferenceTraining(epochs=20, batch_size=100),
    "weight decay": ReferenceTraining(epochs=20, batch_size=100, weight_decay=5e-3),
    "Adam": ReferenceTraining(epochs=20, batch_size=100, optimizer="adamw", learning_rate=3e-3, weight_decay=1e-2),
    "crops and mirrors": ReferenceTraining(epochs=40, batch_size=100, shift=4),
    "smoothing and dropout": ReferenceTraining(epochs=25, batch_size=100, label_smoothing=0.1),
    "no augmentation": ReferenceTraining(epochs=20, batch_size=100, flip=False),
    "barely overfit": ReferenceTraining(epochs=6, batch_size=100),
}
DROPOUT = {"smoothing and dropout": 0.3}
CONFIGS = ["course_baseline", "no_reference", "small_references", "few_references"]
FPRS = (0.05, 0.01)
MEAN, STD = 0.5, 0.25


class Network(nn.Module):
    """Three convolutions and a hidden layer."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for start, end, stride in ((channels, 32, 2), (32, 32, 1), (32, 64, 2)):
            layers += [nn.Conv2d(start, end, 3, stride, 1, bias=False), nn.BatchNorm2d(end), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 128), nn.ReLU(), nn.Dropout(dropout)]
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, C, H, W)."""
        logits: Tensor = self.fc(self.body(images))
        return logits


def trained(recipe: str, data: TrainingData, members: np.ndarray, seed: int) -> nn.Module:
    """Return a target trained on its members by a recipe."""
    torch.manual_seed(seed)
    network = Network(data.images.shape[1], data.num_classes, DROPOUT.get(recipe, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "target.ckpt"
        return train_reference(network, data, members, RECIPES[recipe], seed=seed, checkpoint=checkpoint, device="cpu")


def row(recipe: str, data: TrainingData, configs: list[str], epochs: int, seed: int) -> str:
    """Return a row of the table: the best single signal, then figures of each configuration's submitted attack."""
    draw = np.random.default_rng(seed)
    members, public = draw.random((2, len(data.labels))) < 0.5
    network = trained(recipe, data, members, seed)
    inputs = (data.images.astype(np.float32) / 255 - MEAN) / STD
    known, non_members, unknown = (
        (inputs[rows], data.labels[rows]) for rows in (public & members, public & ~members, ~public)
    )
    like_target = dict.fromkeys(("few_references", "references"), asdict(RECIPES[recipe]))
    training = {"small_references": {"epochs": epochs}, **like_target}
    scores, covered, seconds = {}, {}, []
    for config in configs:
        options = {"references": {"training": training[config], "workers": 0}} if config in training else {}
        started = perf_counter()
        audit = mia_lightning.audit(network, known, non_members, unknown=unknown, config=config, **options)
        seconds.append(f"{perf_counter() - started:.0f}")
        submitted = audit.attacks[audit.config.submitted]
        scores[config], covered[config] = submitted.private_scores, submitted.public
        names = expand_names(audit.config.signals.names)
        directions = {name: get_signal(name).direction for name in names}
        columns = single_signals(audit.result.table.rows(slice(int(public.sum()), None)), directions)
        scores = {f"signal {name}": values for name, values in columns.items()} | scores
    boot = paired_bootstrap(scores, members[~public].astype(np.int8), FPRS, resamples=1000, seed=0)
    names = list(scores)
    figures = dict(zip(names, boot.estimates, strict=True))
    single = max((name for name in names if name.startswith("signal ")), key=lambda name: figures[name][1])
    cells = [recipe, f"{single.removeprefix('signal ')} {_shown(figures[single])}"]
    for name in configs:
        gain = boot.resampled[:, names.index(name), 1] - boot.resampled[:, names.index(single), 1]
        low, high = np.quantile(gain, (0.025, 0.975))
        cells.append(f"{_shown(figures[name], covered[name])} [{low:+.3f}, {high:+.3f}]")
    return " | ".join([*cells, " + ".join(seconds) + " s"])


def _shown(figures: np.ndarray, own: Evaluation | None = None) -> str:
    """Return AUC / TPR@5% / TPR@1%, marked where the run's own interval does not cover one."""
    intervals = [] if own is None else [(own.auc_low, own.auc_high)]
    intervals += [] if own is None else [(point.low, point.high) for point in map(own.at, FPRS)]
    misses = [not low <= value <= high for value, (low, high) in zip(figures, intervals, strict=False)] or [False] * 3
    return " / ".join(f"{value:.3f}{'*' * missed}" for value, missed in zip(figures, misses, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=24, help="epochs of small_references")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    loaded = np.load(arguments.images)
    chosen = np.random.default_rng(arguments.seed).permutation(len(loaded["labels"]))[: arguments.records]
    images = loaded["images"][chosen]
    images = images.transpose(0, 3, 1, 2) if images.shape[-1] in (1, 3) else images
    labels = loaded["labels"][chosen].astype(np.int64)
    channels = images.shape[1]
    data = TrainingData(
        np.ascontiguousarray(images), labels, (MEAN,) * channels, (STD,) * channels, int(labels.max()) + 1, 2, 1.0, None
    )
    print("recipe | best single signal: AUC / TPR@5% / TPR@1%", *arguments.configs, "seconds", sep=" | ")
    for number, recipe in enumerate(arguments.recipes):
        print(row(recipe, data, arguments.configs, arguments.epochs, arguments.seed + number), flush=True)


if __name__ == "__main__":
    main()
