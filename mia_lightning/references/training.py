"""Training of one reference: images stay on the device, augmentation is batched, no step waits for the host."""

import logging
from collections.abc import Callable, Iterator
from math import isclose
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mia_lightning.errors import MIAError
from mia_lightning.references.checkpoints import load_checkpoint, save_checkpoint
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.training_data import MappedImages, Normalize, TrainingData, image_batches
from mia_lightning.references.training_step import DeviceSession, TrainingStep
from mia_lightning.runtime.trainers import isolated_fabric

log = logging.getLogger(__name__)

NUMBERS = 2
"""Version of the training code; increased with every change of the weights that a seed leads to."""

CHECKPOINT_SECONDS = 10.0
"""Shortest time between two checkpoints on CUDA, where writing one takes longer than an epoch; elsewhere 0."""

Epoch = Callable[[int, float], None]
"""Callback invoked with (finished epochs, mean loss) after each epoch."""


class DivergedError(Exception):
    """The loss of a reference became NaN or infinite."""


def train_reference(
    network: nn.Module,
    material: TrainingData,
    keep: NDArray[np.bool_],
    recipe: ReferenceTraining,
    *,
    seed: int,
    checkpoint: Path,
    device: str,
    on_epoch: Epoch | None = None,
    session: DeviceSession | None = None,
) -> nn.Module:
    """Train one reference, resuming from its last stored epoch if there is one, and return it.

    The order of records and the augmentation follow from the seed and the number of the epoch alone, so that a
    resumed training gives the same weights as an uninterrupted one.

    Args:
        network: Untrained, with the starting weights; changed in place.
        material: The records.
        keep: (N,) True for the records to train on.
        recipe: Training recipe.
        seed: Drives order and augmentation.
        checkpoint: File of the last stored epoch.
        device: "cpu" or "cuda".
        on_epoch: Callback invoked after each epoch.
        session: Shared by the references of a run; on CUDA the network then stays on the CPU until it is trained.

    Raises:
        DivergedError: a loss that is not finite.
        MIAError: fewer records than one batch, or a disk that is full.
    """
    fabric = isolated_fabric(device, precision=recipe.precision)
    order = np.arange(len(keep)) if material.order is None else material.order
    rows = torch.from_numpy(order[keep[order]])
    epochs, batch_size = recipe.counts()
    steps = len(rows) // batch_size
    if steps == 0:
        raise MIAError(
            f"a reference has {len(rows)} records to train on, fewer than one batch of {batch_size}; lower "
            "--references.training.batch_size"
        )
    images, labels = (session or DeviceSession(material)).resident(fabric.device)
    record = None if session is None else session.recorder(fabric.device)
    compiled = None if session is None else session.compiled

    def step_of(network: nn.Module) -> TrainingStep:
        network = with_small_convolutions(network, images.shape[1:]) if len(images.shape) == 4 else network
        network = network.to(fabric.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        return TrainingStep(network, fabric.autocast, recipe.label_smoothing, compiled)

    def recorded(network: nn.Module) -> TrainingStep:
        assert record is not None
        step, (index, batch) = step_of(network), next(_batches(images, rows, material, recipe, seed=seed, epoch=0))
        step.record(batch, labels[index], record)
        return step

    step = step_of(network) if session is None or record is None else session.step(network, recorded)
    optimizer = optimizer_of(step.network, recipe)
    schedule = schedule_of(optimizer, recipe, steps * epochs)
    first, stored = _resume(checkpoint, step.network, optimizer, schedule, epochs), monotonic()
    for epoch in range(first, epochs):
        total = torch.zeros((), device=fabric.device)
        for index, batch in _batches(images, rows, material, recipe, seed=seed, epoch=epoch):
            total += step(batch, labels[index])
            optimizer.step()
            schedule.step()
        mean = float(total) / steps  # the only time that the host waits
        if not np.isfinite(mean):
            raise DivergedError(f"its loss became {mean} in epoch {epoch + 1}")
        interval = CHECKPOINT_SECONDS if fabric.device.type == "cuda" else 0.0
        if epoch + 1 < epochs and monotonic() - stored >= interval:
            state = {"epoch": epoch + 1, "network": step.network.state_dict(), "schedule": schedule.state_dict()}
            save_checkpoint(checkpoint, {**state, "optimizer": optimizer.state_dict()})
            stored = monotonic()
        if on_epoch:
            on_epoch(epoch + 1, mean)
    if step.network is not network:
        network.load_state_dict(step.network.state_dict())
    return network.eval()


def optimizer_of(network: nn.Module, recipe: ReferenceTraining) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of all parameters."""
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, nesterov=recipe.momentum > 0, **options)
    return torch.optim.AdamW(network.parameters(), **options)


def schedule_of(
    optimizer: torch.optim.Optimizer, recipe: ReferenceTraining, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the recipe's learning-rate schedule over a number of steps."""
    if recipe.schedule == "one_cycle":
        has_one_step = isclose(recipe.warmup * (total + 1), 1)  # of warm-up, over whose length OneCycleLR divides: 0
        warmup = 0.0 if has_one_step else recipe.warmup
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total + 1, pct_start=warmup, cycle_momentum=False
        )
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _resume(
    checkpoint: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    epochs: int,
) -> int:
    """Return the epoch to resume at; a damaged checkpoint is ignored."""
    like = {"epoch": 0, "network": network.state_dict(), "schedule": schedule.state_dict()}
    like["optimizer"] = optimizer.state_dict()
    try:
        state = load_checkpoint(checkpoint, like, [tensor.shape for tensor in network.parameters()], epochs)
    except FileNotFoundError:
        return 0
    except (ValueError, MIAError) as error:
        log.warning("%s is damaged (%s); its reference starts from the beginning", checkpoint.name, error)
        return 0
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["epoch"])


def _batches(
    images: Tensor | MappedImages,
    rows: Tensor,
    material: TrainingData,
    recipe: ReferenceTraining,
    *,
    seed: int,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (rows, normalized and augmented images) of one epoch; all random numbers are drawn beforehand."""
    draw = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
    drawn = rows[torch.randperm(len(rows), generator=draw)]
    order = drawn.to(images.device)
    mirrored = (torch.rand(len(rows), generator=draw) < 0.5).to(images.device)
    shift = torch.randint(-recipe.shift, recipe.shift + 1, (2, len(rows)), generator=draw).to(images.device)
    normalize = Normalize(material, images)
    _, batch_size = recipe.counts()
    for number, stored in enumerate(image_batches(images, drawn, batch_size)):
        part = slice(number * batch_size, (number + 1) * batch_size)
        batch = normalize(stored)
        if batch.ndim != 4:  # only images are shifted and mirrored
            yield order[part], batch
            continue
        if recipe.shift:
            batch = _shifted(batch, shift[:, part], recipe.shift)
        if recipe.flip:
            batch = torch.where(mirrored[part].view(-1, 1, 1, 1), batch.flip(-1), batch)
        yield order[part], batch.contiguous(memory_format=torch.channels_last)


def _shifted(batch: Tensor, shift: Tensor, reach: int) -> Tensor:
    """Shift each image by its own (down, right) after reflection at the border, by one indexing operation."""
    height, width = batch.shape[-2:]
    windows = F.pad(batch, (reach,) * 4, mode="reflect").unfold(2, height, 1).unfold(3, width, 1)
    rows = torch.arange(len(batch), device=batch.device)
    return windows[rows, :, shift[0] + reach, shift[1] + reach]


class SmallConvolution(nn.Conv2d):
    """A convolution whose whole input is one window: a matrix product over the taps that do not only meet padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution returns; unused taps get gradients of exactly 0, as they do there."""
        padding: Any = self.padding  # numbers, never a word: see `_sees_all`
        (top, left), (height, width) = padding, x.shape[2:]
        used = self.weight[:, :, top : top + height, left : left + width]
        return F.linear(x.flatten(1), used.flatten(1), self.bias)[:, :, None, None]


def with_small_convolutions(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Replace, in place, each convolution with one output position that sees the whole input; names stay the same."""
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    named = [(name, module) for name, module in network.named_modules() if type(module) is nn.Conv2d]
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: seen.__setitem__(name, (inputs[0].shape[2:], output.shape[2:]))
        )
        for name, module in named
    ]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *shape))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    for name, module in named:
        if name in seen and _sees_all(module, *seen[name]):
            small = SmallConvolution.__new__(SmallConvolution)
            small.__dict__ = module.__dict__
            network.set_submodule(name, small)
    return network


def _sees_all(convolution: nn.Conv2d, size: tuple[int, ...], output: tuple[int, ...]) -> bool:
    plain = (
        convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and set(convolution.dilation) == {1}
        and max(convolution.kernel_size) > 1
    )
    if not plain or tuple(output) != (1, 1):
        return False
    padding: Any = convolution.padding
    return all(p + s <= k for p, s, k in zip(padding, size, convolution.kernel_size, strict=True))
