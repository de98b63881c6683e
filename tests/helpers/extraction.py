"""A small network, its records, and extraction with defaults fit for tests."""

import numpy as np
import torch
from torch import nn

from mia_lightning.outputs import extraction
from mia_lightning.outputs.request import ExtractionRequest
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.targets.base import Target

COUNT, CLASSES = 45, 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CPU = Hardware(accelerator="cpu", batch_size=16)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.Tanh(), nn.AdaptiveAvgPool2d(4)
        )
        self.head = nn.Linear(128, CLASSES)

    def forward(self, images):
        return self.head(self.body(images).flatten(1))


def with_statistics(network, seed=0):
    """Weights and batch-norm statistics as after training: folding them wrongly would show."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return network.eval().requires_grad_(False)


def small_target():
    torch.manual_seed(0)
    return Target(with_statistics(Small()), CLASSES, "head", "small", "digest of small")


def make_records(seed=0, dtype=np.uint8, source="public", count=COUNT, size=12):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    stored = images if dtype == np.uint8 else (images / np.float32(255)).astype(np.float32)
    ids = np.arange(count) + 1000 * seed
    return Records(ids, stored, rng.integers(0, CLASSES, count), np.zeros(count, np.int8), source)


def extract(store, public=None, private=None, target=None, **options):
    values = {"mean": MEAN, "std": STD, "queries": 1, "gradients": False, "hardware": CPU} | options
    records = Splits(public or make_records(), private)
    outputs = extraction.extract(
        ExtractionRequest(records=records, target=target or small_target(), store=store, **values)
    )
    return outputs.public, outputs.private


def normalized(records):
    scale = 255 if records.images.dtype == np.uint8 else 1
    images = torch.from_numpy(records.images.astype(np.float64) / scale)
    return ((images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).float()
