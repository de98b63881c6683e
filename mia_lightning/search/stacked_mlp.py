"""MLP attacks of one shape trained in one batch, each with its own learning rate, weight decay and dropout."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mia_lightning.attacks import Attack
from mia_lightning.attacks._losses import losses
from mia_lightning.attacks._mlp_training import BatchIterator, MLPTraining, Perceptrons
from mia_lightning.attacks.mlp import MLP
from mia_lightning.errors import MIAError
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD
from mia_lightning.signals.table import SignalTable


def with_equal_rates(attack: Attack) -> MLP | None:
    """Return an MLP attack with fixed rates, to compare all else; None where it cannot be batched."""
    if not isinstance(attack, MLP) or attack.accelerator != "cpu":
        return None
    return replace(attack, learning_rate=1.0, weight_decay=0.0, dropout=0.0)


def cross_fit_batch(
    attacks: Sequence[Attack], table: SignalTable, member: NDArray[np.int8], fold: NDArray[np.int8], *, seed: int
) -> list[NDArray[np.float64]]:
    """Return the scores, (N,), that `cross_fit` returns for each attack alone, equal within rounding.

    Args:
        attacks: MLP attacks that differ in rates only and read no other attack.
        table: (N,) rows.
        member: (N,) 1 or 0; not read where fold is -1.
        fold: (N,) from 0; -1: scored by the mean of all folds' models.
        seed: As in `cross_fit`.

    Raises:
        MIAError: a score that is NaN or infinite.
    """
    folds, order = range(int(fold.max()) + 1), table.content_order()
    scores = [np.zeros(len(table)) for _ in attacks]
    for held_out in folds:
        fit_rows = order[((fold != held_out) & (fold != NOT_IN_ANY_FOLD))[order]]
        new_rows = np.flatnonzero((fold == held_out) | (fold == NOT_IN_ANY_FOLD))
        new_table, in_fold = table.rows(new_rows), fold[new_rows] == held_out
        fitted = fit_batch(cast("Sequence[MLP]", attacks), table.rows(fit_rows), member[fit_rows], seed=seed + held_out)
        for total, attack in zip(scores, fitted, strict=True):
            new = attack.score(new_table)
            if not np.isfinite(new).all():
                raise MIAError("a network's scores are NaN or infinite; lower its learning rate")
            total[new_rows] += np.where(in_fold, new, new / len(folds))
    return scores


def fit_batch(attacks: Sequence[MLP], table: SignalTable, member: NDArray[np.int8], *, seed: int) -> list[MLP]:
    """Return fitted copies of attacks that differ in learning rate, weight decay and dropout only.

    They train together on the CPU in a fraction of the time; equal to `MLP.fit` within rounding.
    """
    inputs = attacks[0].inputs(table)
    networks = train_batch([attack.training() for attack in attacks], inputs(table), member, seed=seed)
    fitted = [deepcopy(attack) for attack in attacks]
    for attack, trained in zip(fitted, networks, strict=True):
        attack.inputs_, attack.networks_ = inputs, trained
    return fitted


def train_batch(
    settings: Sequence[MLPTraining], inputs: NDArray[np.float32], member: NDArray[np.int8], *, seed: int
) -> list[Perceptrons]:
    """Train what `train_perceptrons` trains for each of T settings.

    Args:
        settings: (T,) that differ in learning rate, weight decay and dropout only.
        inputs: (N, F) standardized.
        member: (N,) 1 or 0.
        seed: As in `train_perceptrons`; starting weights and the order of the records are the same for all.
    """
    first, count = settings[0], len(settings)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        data = BatchIterator(torch.from_numpy(inputs), torch.from_numpy(member).float(), first, order)
        steps = len(data) * first.epochs
        start = [p.detach() for p in Perceptrons(first, inputs.shape[1], steps=steps).parameters()]
        state = torch.get_rng_state()
    generators = [torch.Generator() for _ in settings]
    for generator in generators:
        generator.set_state(state)
    weights = [p.repeat(count, 1, 1).requires_grad_() for p in start]
    optimizer = _BatchedAdamW(weights, settings, steps)
    for _ in range(first.epochs):
        for generator in generators:  # a DataLoader draws its seed from the same stream at every epoch
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        for batch, batch_member in data:
            log_odds = _forward(weights, batch.repeat(count, 1, 1), settings, generators)
            loss = losses(first.loss, log_odds, batch_member.repeat(count, 1)).sum()
            optimizer.step(torch.autograd.grad(loss, weights))
    return [_network(setting, inputs.shape[1], weights, index) for index, setting in enumerate(settings)]


def _forward(
    weights: list[Tensor], x: Tensor, settings: Sequence[MLPTraining], generators: list[torch.Generator]
) -> Tensor:
    """Return log-odds (T * networks, B) of inputs (T * networks, B, F)."""
    *layers, last = zip(weights[::2], weights[1::2], strict=True)
    for weight, bias in layers:
        x = torch.baddbmm(bias, x, weight).relu()
        if any(setting.dropout for setting in settings):
            x = x * _dropout_masks(x, settings, generators)
    return torch.baddbmm(last[1], x, last[0]).squeeze(2)


def _dropout_masks(x: Tensor, settings: Sequence[MLPTraining], generators: list[torch.Generator]) -> Tensor:
    """Return the factors of dropout, each attack's drawn from its own stream."""
    mask = torch.ones_like(x)
    for part, setting, generator in zip(mask.chunk(len(settings)), settings, generators, strict=True):
        if setting.dropout:
            part.bernoulli_(1 - setting.dropout, generator=generator).div_(1 - setting.dropout)
    return mask


class _BatchedAdamW:
    """AdamW (Loshchilov & Hutter 2019) with a learning rate and a weight decay per network.

    torch's Adam computes the steps at rate 1 times the schedule's share; they are scaled per network.
    """

    def __init__(self, weights: list[Tensor], settings: Sequence[MLPTraining], steps: int) -> None:
        def per_network(values: list[float]) -> Tensor:
            return torch.tensor(values).repeat_interleave(settings[0].ensemble_size)[:, None, None]

        self.rate = per_network([setting.learning_rate for setting in settings])
        self.decay = per_network([setting.learning_rate * setting.weight_decay for setting in settings])
        self.weights, self.moves = weights, [torch.zeros_like(weight) for weight in weights]
        self.adam = torch.optim.Adam(self.moves, lr=1.0, fused=True)
        self.schedule = (
            torch.optim.lr_scheduler.OneCycleLR(
                self.adam, max_lr=1.0, total_steps=steps, pct_start=0.1, cycle_momentum=False
            )
            if settings[0].schedule
            else None
        )

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step."""
        keep = 1 - self.decay * self.adam.param_groups[0]["lr"]
        for move, gradient in zip(self.moves, gradients, strict=True):
            move.zero_()
            move.grad = gradient
        self.adam.step()
        for weight, move in zip(self.weights, self.moves, strict=True):
            weight.mul_(keep).addcmul_(move, self.rate)
        if self.schedule is not None and self.schedule.last_epoch + 1 < self.schedule.total_steps:
            self.schedule.step()


def _network(settings: MLPTraining, inputs: int, weights: list[Tensor], index: int) -> Perceptrons:
    networks = Perceptrons(settings, inputs, steps=0)
    rows = slice(index * settings.ensemble_size, (index + 1) * settings.ensemble_size)
    with torch.no_grad():
        for parameter, stacked in zip(networks.parameters(), weights, strict=True):
            parameter.copy_(stacked[rows])
    return networks.eval()
