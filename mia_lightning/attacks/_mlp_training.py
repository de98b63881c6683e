"""Training of the MLP attack: stacked perceptrons on batches that are already on the device."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from mia_lightning.attacks._losses import losses
from mia_lightning.metrics.torchmetric import TPRAtFPR
from mia_lightning.runtime.library_noise import quiet_lightning
from mia_lightning.runtime.trainers import isolated_trainer, readable_trainer_errors

WATCHED_FPRS = (0.01, 0.05)

Watched = tuple[NDArray[np.float32], NDArray[np.int8], Callable[[int, Mapping[str, float]], None]]


@dataclass(frozen=True)
class MLPTraining:
    """Shape and optimization of the networks of one MLP attack; the fields are those of `MLP`."""

    hidden: tuple[int, ...]
    ensemble_size: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: bool
    loss: Literal["bce", "focal", "pairwise", "partial_auc"]
    weight_decay: float
    dropout: float
    accelerator: str


class StackedLinear(nn.Module):
    """One linear layer of each of K networks in one batched product: (K, B, in) to (K, B, out)."""

    def __init__(self, networks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # the uniform initialization of nn.Linear
        self.weight = nn.Parameter(torch.empty(networks, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(networks, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return (K, B, out)."""
        return torch.baddbmm(self.bias, x, self.weight)


class Perceptrons(L.LightningModule):
    """Several perceptrons of one shape, trained together; their losses are summed, so they are independent."""

    def __init__(self, settings: MLPTraining, inputs: int, steps: int) -> None:
        super().__init__()
        self.settings, self.steps = settings, steps
        widths = [inputs, *settings.hidden]
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise(widths):
            layers += [
                StackedLinear(settings.ensemble_size, in_features, out_features),
                nn.ReLU(),
                nn.Dropout(settings.dropout),
            ]
        self.layers = nn.Sequential(*layers, StackedLinear(settings.ensemble_size, widths[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return log-odds (K, B) of inputs (K, B, F)."""
        log_odds: Tensor = self.layers(x)
        return log_odds.squeeze(2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the summed loss of a batch: inputs (K, B, F) and membership (K, B)."""
        inputs, member = batch
        loss = losses(self.settings.loss, self(inputs), member).sum()
        self.latest_loss = loss.detach() / self.settings.ensemble_size
        return loss

    def configure_optimizers(self) -> Any:
        """Return AdamW, with the one-cycle schedule if configured."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        if not settings.schedule:
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=settings.learning_rate, total_steps=self.steps, pct_start=0.1, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.inference_mode()
    def log_odds(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the networks' mean log-odds, (N,), of (N, F) inputs."""
        self.eval()
        parts = []
        for block in torch.split(torch.from_numpy(inputs), 8192):
            shared = block.to(self.device).expand(self.settings.ensemble_size, *block.shape)
            parts.append(self(shared).double().mean(dim=0).cpu())
        return torch.cat(parts).numpy()


class BatchIterator(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of a resident table in a new random order per network and epoch."""

    def __init__(self, inputs: Tensor, member: Tensor, settings: MLPTraining, generator: torch.Generator) -> None:
        self.inputs, self.member, self.settings, self.generator = inputs, member, settings, generator
        self.batch = min(settings.batch_size, len(member))

    def __len__(self) -> int:
        return len(self.member) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count, networks = len(self.member), self.settings.ensemble_size
        orders = torch.stack([torch.randperm(count, generator=self.generator) for _ in range(networks)])
        for start in range(0, len(self) * self.batch, self.batch):
            rows = orders[:, start : start + self.batch].to(self.inputs.device)
            yield self.inputs[rows], self.member[rows]


class _Report(L.Callback):
    """Reports loss and the validation rows' TPR@FPR after every epoch."""

    def __init__(self, watched: Watched) -> None:
        self.inputs, self.member, self.report = watched

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the watched rows and report."""
        assert isinstance(pl_module, Perceptrons)
        scores = torch.from_numpy(pl_module.log_odds(self.inputs))
        pl_module.train()
        values = {"loss": float(pl_module.latest_loss)}
        for fpr in WATCHED_FPRS:
            metric = TPRAtFPR(fpr)
            metric.update(scores, torch.from_numpy(self.member))
            values[f"tpr@{fpr:g}"] = float(metric.compute())
        self.report(trainer.current_epoch, values)


def train_perceptrons(
    settings: MLPTraining, inputs: NDArray[np.float32], member: NDArray[np.int8], *, seed: int, watched: Watched | None
) -> Perceptrons:
    """Train on (N, F) standardized inputs and (N,) membership, and return the networks in eval mode on the CPU."""
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        data = BatchIterator(torch.from_numpy(inputs), torch.from_numpy(member).float(), settings, generator)
        networks = Perceptrons(settings, inputs.shape[1], steps=len(data) * settings.epochs)
        trainer = _lean_trainer(settings, [] if watched is None else [_Report(watched)])
        trainer.fit(networks, DataLoader(data, batch_size=None))
    return networks.eval().cpu()


def _lean_trainer(settings: MLPTraining, callbacks: list[L.Callback]) -> L.Trainer:
    """Return a Trainer without what costs more than a step of a network this small: bar, logger, checkpoints."""
    with readable_trainer_errors("accelerator of the MLP"):
        return isolated_trainer(
            accelerator=settings.accelerator, devices=1, max_epochs=settings.epochs, callbacks=callbacks
        )
