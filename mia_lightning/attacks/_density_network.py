"""Density network: the distribution of a signal predicted from columns that describe the record."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]
Loss = Callable[[Tensor, Tensor], Tensor]

LEVELS: Array = 1 - np.logspace(0, -4, 41)
"""Quantile levels of the pinball loss, 0 to 0.9999, ascending (Bertran et al. 2023, appendix)."""

LOG_DEVIATION_FLOOR = -5.0
"""Smallest log standard deviation, in standard deviations of the signal over all fitting rows."""


@dataclass(frozen=True)
class Training:
    """Shape and optimization of the network."""

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    dropout: float


@dataclass(frozen=True, eq=False)
class Regression:
    """A fitted network; the signal is standardized by its moments over the fitting rows."""

    network: nn.Module
    center: float
    scale: float

    def standardized(self, signal: Array) -> Array:
        """Return the signal in the units of `predict`, (N,)."""
        return (signal - self.center) / self.scale

    @torch.inference_mode()
    def predict(self, inputs: NDArray[np.float32]) -> Array:
        """Return the network's output for (N, F) inputs: (N, 2) mean and log standard deviation, or (N, levels)."""
        parts = [self.network(block) for block in torch.split(torch.from_numpy(inputs), 8192)]
        return np.asarray(torch.cat(parts).double().numpy())


def regress(
    inputs: NDArray[np.float32], signal: Array, head: Literal["gaussian", "quantiles"], training: Training, *, seed: int
) -> Regression:
    """Fit a head on (N, F) standardized inputs and (N,) values of the signal.

    gaussian minimizes the normal negative log likelihood, quantiles the pinball loss at `LEVELS`.
    """
    center, scale = float(signal.mean()), max(float(signal.std()), 1e-12)
    target = torch.from_numpy(((signal - center) / scale).astype(np.float32))
    loss, outputs = (_gaussian, 2) if head == "gaussian" else (_pinball, len(LEVELS))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _perceptron(inputs.shape[1], outputs, training)
        _train(network, torch.from_numpy(inputs), target, loss, training)
    return Regression(network.eval(), center, scale)


def clipped(log_deviation: Array) -> Array:
    """Return log standard deviations clipped as in the loss."""
    return np.maximum(log_deviation, LOG_DEVIATION_FLOOR)


def _perceptron(inputs: int, outputs: int, training: Training) -> nn.Module:
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise((inputs, *training.hidden)):
        layers += [nn.Linear(in_features, out_features), nn.ReLU(), nn.Dropout(training.dropout)]
    return nn.Sequential(*layers, nn.Linear(training.hidden[-1] if training.hidden else inputs, outputs))


def _train(network: nn.Module, inputs: Tensor, target: Tensor, loss: Loss, training: Training) -> None:
    batch = min(training.batch_size, len(target))
    steps = training.epochs * (len(target) // batch)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, steps + 1, pct_start=0.1, cycle_momentum=False
    )
    network.train()
    for _ in range(training.epochs):
        order = torch.randperm(len(target))
        for rows in torch.split(order[: len(target) // batch * batch], batch):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(network(inputs[rows]), target[rows]))
            optimizer.step()
            schedule.step()


def _gaussian(predicted: Tensor, target: Tensor) -> Tensor:
    mean, log_deviation = predicted.unbind(dim=1)
    log_deviation = log_deviation.clamp(min=LOG_DEVIATION_FLOOR)
    return (log_deviation + 0.5 * ((target - mean) * torch.exp(-log_deviation)) ** 2).mean()


def _pinball(predicted: Tensor, target: Tensor) -> Tensor:
    levels = torch.tensor(LEVELS, dtype=predicted.dtype)
    residual = target[:, None] - predicted
    return torch.maximum(levels * residual, (levels - 1) * residual).mean()
