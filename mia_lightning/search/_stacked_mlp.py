"""Many MLP attacks of one shape trained side by side, each at its own rates: one batched product serves them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mia_lightning.attacks._losses import losses
from mia_lightning.attacks._mlp_training import BatchIterator, MLPTraining, Perceptrons

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""AdamW's own."""


def train_stack(
    settings: Sequence[MLPTraining], inputs: NDArray[np.float32], member: NDArray[np.int8], *, seed: int
) -> list[Perceptrons]:
    """Train what `train_perceptrons` trains for each of T settings, on the CPU; equal to it within rounding.

    Args:
        settings: They may differ in learning rate, weight decay and dropout only.
        inputs: (N, F) standardized.
        member: (N,) 1 or 0.
        seed: As there; starting weights and the order of the records are the same for all.
    """
    first, count = settings[0], len(settings)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        data = BatchIterator(torch.from_numpy(inputs), torch.from_numpy(member).float(), first, order)
        steps = len(data) * first.epochs
        start = [p.detach() for p in Perceptrons(first, inputs.shape[1], steps=steps).parameters()]
        state = torch.get_rng_state()
    noise = [torch.Generator() for _ in settings]
    for generator in noise:
        generator.set_state(state)
    weights = [p.repeat(count, 1, 1).requires_grad_() for p in start]
    optimizer = _AdamW(weights, settings)
    factors = iter(_schedule(steps) if first.schedule else [1.0] * steps)
    for _ in range(first.epochs):
        for generator in noise:  # a DataLoader draws its seed from the same stream at every epoch
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        for batch, known in data:
            log_odds = _forward(weights, batch.repeat(count, 1, 1), settings, noise)
            loss = losses(first.loss, log_odds, known.repeat(count, 1)).sum()
            optimizer.step(torch.autograd.grad(loss, weights), next(factors))
    return [_network(one, inputs.shape[1], weights, place) for place, one in enumerate(settings)]


def _forward(weights: list[Tensor], x: Tensor, settings: Sequence[MLPTraining], noise: list[torch.Generator]) -> Tensor:
    """Return log-odds (T * networks, B) of inputs (T * networks, B, F)."""
    *layers, last = zip(weights[::2], weights[1::2], strict=True)
    for weight, bias in layers:
        x = torch.baddbmm(bias, x, weight).relu()
        if any(one.dropout for one in settings):
            x = x * _masks(x, settings, noise)
    return torch.baddbmm(last[1], x, last[0]).squeeze(2)


def _masks(x: Tensor, settings: Sequence[MLPTraining], noise: list[torch.Generator]) -> Tensor:
    """Return the factors of dropout, each attack's drawn from its own stream."""
    mask = torch.ones_like(x)
    for part, one, generator in zip(mask.chunk(len(settings)), settings, noise, strict=True):
        if one.dropout:
            part.bernoulli_(1 - one.dropout, generator=generator).div_(1 - one.dropout)
    return mask


class _AdamW:
    """AdamW (Loshchilov & Hutter 2019) with a learning rate and a weight decay of its own for each network."""

    def __init__(self, weights: list[Tensor], settings: Sequence[MLPTraining]) -> None:
        networks = settings[0].ensemble_size

        def each(values: list[float]) -> Tensor:
            return torch.tensor(values).repeat_interleave(networks)[:, None, None]

        self.rate = each([one.learning_rate for one in settings])
        self.decay = each([one.learning_rate * one.weight_decay for one in settings])
        self.weights, self.taken = weights, 0
        self.mean, self.square = ([torch.zeros_like(w) for w in weights] for _ in range(2))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """Take one step at a factor of the learning rates."""
        self.taken += 1
        unbiased = [1 - beta**self.taken for beta in BETAS]
        rate, keep = self.rate * (-factor / unbiased[0]), 1 - self.decay * factor
        for weight, gradient, mean, square in zip(self.weights, gradients, self.mean, self.square, strict=True):
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            spread = square.sqrt().div_(unbiased[1] ** 0.5).add_(EPSILON)
            weight.mul_(keep).add_(mean.div(spread).mul_(rate))


def _schedule(steps: int) -> list[float]:
    """Return the share of the learning rate at each step of the one-cycle schedule."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    shares = []
    for step in range(steps):
        shares.append(float(cycle.get_last_lr()[0]))
        optimizer.step()
        if step + 1 < steps:
            cycle.step()
    return shares


def _network(settings: MLPTraining, inputs: int, weights: list[Tensor], place: int) -> Perceptrons:
    networks = Perceptrons(settings, inputs, steps=0)
    rows = slice(place * settings.ensemble_size, (place + 1) * settings.ensemble_size)
    with torch.no_grad():
        for own, stacked in zip(networks.parameters(), weights, strict=True):
            own.copy_(stacked[rows])
    return networks.eval()
