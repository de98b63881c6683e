"""One epoch of a reference: the product's loops, the barest loop that does the same, and Lightning's Trainer.

python benchmarks/training.py [--records 4096] [--rounds 3]

All start from the same weights and see the same batches; their losses are compared before anything is timed, in
float64. In float32 the losses of resnet18 differ from the third step on, as its training amplifies rounding: memory
format (channels last or not) and small convolutions change the order of summation, and the fourth step's loss by up to
1%. The ways take turns on one thread; medians of records per CPU second are printed.
"""

import argparse
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from torchvision.models import resnet18

from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.fitting import fit_reference
from mia_lightning.references.training import _batches, train_reference, with_small_convolutions
from mia_lightning.references.training_data import TrainingData
from mia_lightning.runtime.library_noise import quiet_lightning

RECIPE = ReferenceTraining(epochs=1, batch_size=128, learning_rate=0.01, schedule="constant", flip=False)
OWN = replace(RECIPE, class_path="training:Own")


def small() -> nn.Module:
    blocks: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        blocks += [nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 16, 10))


def make_optimizer(network):
    return torch.optim.SGD(
        network.parameters(),
        RECIPE.learning_rate,
        momentum=RECIPE.momentum,
        nesterov=True,
        weight_decay=RECIPE.weight_decay,
        fused=True,
    )


def own(network, material, keep):
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        train_reference(
            network,
            material,
            keep,
            RECIPE,
            seed=0,
            checkpoint=Path(folder) / "checkpoint",
            device="cpu",
            on_epoch=lambda _, loss: losses.append(loss),
        )
    return losses[0]


def batches(material, keep):
    rows = torch.from_numpy(np.flatnonzero(keep))
    return _batches(torch.from_numpy(material.images), rows, material, RECIPE, seed=0, epoch=0)


def bare(network, material, keep):
    network = with_small_convolutions(network, material.images.shape[1:]).to(memory_format=torch.channels_last)
    optimizer, labels = make_optimizer(network), torch.from_numpy(material.labels)
    network.train()
    total, steps = torch.zeros(()), 0
    for index, batch in batches(material, keep):
        loss = F.cross_entropy(network(batch), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total, steps = total + loss.detach(), steps + 1
    return float(total) / steps


class Module(L.LightningModule):
    """A reference behind `training_step`."""

    def __init__(self, network, labels):
        super().__init__()
        self.network, self.labels = network, labels
        self.total, self.steps = torch.zeros(()), 0

    def training_step(self, batch, batch_idx):
        index, images = batch
        loss = F.cross_entropy(self.network(images), self.labels[index])
        self.total, self.steps = self.total + loss.detach(), self.steps + 1
        return loss

    def configure_optimizers(self):
        return make_optimizer(self.network)


class Own(L.LightningModule):
    """The same training as a user writes it; the product's datamodule gives the batches."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return make_optimizer(self.network)


def by_module(network, material, keep):
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        fit_reference(
            Own(network),
            material,
            keep,
            OWN,
            {},
            seed=0,
            checkpoint=Path(folder) / "checkpoint",
            device="cpu",
            on_epoch=lambda _, loss: losses.append(loss),
        )
    return losses[0]


class Epoch(IterableDataset):
    """The batches of one epoch, ready-made."""

    def __init__(self, material, keep):
        self.material, self.keep = material, keep

    def __iter__(self):
        return batches(self.material, self.keep)


def lightning(network, material, keep):
    """Lightning without bar, logger and checkpoints, on the same ready batches."""
    network = with_small_convolutions(network, material.images.shape[1:]).to(memory_format=torch.channels_last)
    module = Module(network, torch.from_numpy(material.labels))
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(Epoch(material, keep), batch_size=None))
    return float(module.total) / module.steps


WAYS = {
    "barest loop": bare,
    "the product's loop": own,
    "Lightning's Trainer, lean": lightning,
    "a user's LightningModule": by_module,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (arguments.records, 3, 32, 32), dtype=np.uint8)
    material = TrainingData(images, draw.integers(0, 10, arguments.records), (0.5,) * 3, (0.25,) * 3, 10, 1)
    keep = np.ones(arguments.records, bool)
    for name, network in (("small", small()), ("resnet18", resnet18(num_classes=10))):
        few = replace(material, images=images[:512], labels=material.labels[:512])
        torch.set_default_dtype(torch.float64)  # of the normalized batches too
        losses = [way(deepcopy(network).double(), few, keep[:512]) for way in WAYS.values()]
        torch.set_default_dtype(torch.float32)
        np.testing.assert_allclose(losses, losses[0], rtol=1e-6)  # means of losses are float32
        times = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way, run in WAYS.items():
                copy = deepcopy(network)
                started = process_time()
                run(copy, material, keep)
                times[way].append(process_time() - started)
        base = median(times["barest loop"])
        for way, seconds in times.items():
            taken = median(seconds)
            print(
                f"| {name} | {way} | {arguments.records / taken:,.0f} records/CPU s | {taken / base:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
