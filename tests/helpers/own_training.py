"""A user's own training: LightningModules and functions, some of them wrong."""

import random

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


def network(num_classes=4, channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes)
    )


class Lit(L.LightningModule):
    """Its augmentation draws from three global random states; its schedule steps per epoch."""

    def __init__(self, num_classes=4, lr=0.05, width=8, batch_size=16):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=4, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(4 * width, num_classes),
        )

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        images = images + 0.1 * torch.randn_like(images) + 0.1 * random.random() + 0.1 * float(np.random.rand())  # noqa: NPY002
        loss = F.cross_entropy(self(images), labels)
        self.log("loss", loss)
        self.logger.experiment.add_scalar("loss", loss, batch_idx)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]

    def configure_callbacks(self):
        return [ModelCheckpoint(monitor="loss")]


class NoStep(Lit):
    training_step = L.LightningModule.training_step


class NoOptimizer(Lit):
    configure_optimizers = L.LightningModule.configure_optimizers


class OfDictionary(Lit):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["image"]), batch["label"])


class Diverging(Lit):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * torch.nan


class Features(Lit):
    def forward(self, images):
        return self.network[:-1](images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch[0]), batch[1])


class Around(Lit):
    """Trains the network that it is given."""

    def __init__(self, net, lr=0.05):
        super(Lit, self).__init__()
        self.save_hyperparameters(ignore="net")
        self.network = net


class Late(Lit):
    """Fails in its second epoch."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            raise KeyError("no such weight")


class Counter(Callback):
    def __init__(self, limit=0):
        self.limit = limit

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.network[-1].bias.data += self.limit


def train(network, dataset, seed, on_epoch, lr=0.05, epochs=2):
    optimizer = torch.optim.SGD(network.parameters(), lr)
    for epoch in range(epochs):
        for images, labels in DataLoader(dataset, batch_size=16, shuffle=True):
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        on_epoch(epoch + 1, float(loss))
    return network


def train_nothing(network, dataset, seed, on_epoch):
    return None


def train_other(network, dataset, seed, on_epoch):
    return nn.Linear(2, 2)


def train_of_two(network, dataset):
    return network


def train_wrong(network, dataset, seed, on_epoch):
    return dataset[0].images


class NotLightning(nn.Module):
    pass


def augment(image):
    """A torchvision transform: from a PIL image to the network's input."""
    from torchvision.transforms import functional

    image = functional.hflip(image) if torch.rand(()) < 0.5 else image
    return functional.normalize(functional.to_tensor(image), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


class DigitsLit(Around):
    """For the demo's gray digits."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])
