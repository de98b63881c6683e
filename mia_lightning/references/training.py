"""Training one reference, fast: images stay on the device, augmentation is batched, no step waits for the host."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mia_lightning.errors import MIAError
from mia_lightning.inference import prepare_for_inference
from mia_lightning.queries import views
from mia_lightning.references.config import Recipe
from mia_lightning.store import write_atomically

log = logging.getLogger(__name__)

Epoch = Callable[[int, float], None]
"""Told (finished epochs, mean loss) after each epoch."""


@dataclass(frozen=True, eq=False)
class Material:
    """What all references are trained on and asked about."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """(N, C, H, W) public records first; uint8 in 0..255, or float32 as stored."""

    labels: NDArray[np.int64]
    """(N,) class indices."""

    mean: tuple[float, ...]
    """Per channel, of images in [0, 1]."""

    std: tuple[float, ...]
    """Likewise."""

    num_classes: int
    queries: int
    """See `mia_lightning.queries`."""


class DivergedError(Exception):
    """The loss of a reference became NaN or infinite."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What one reference says of all records."""

    phi: NDArray[np.float32]
    """(N, Q)."""

    accuracy_in: float
    """On the records it was trained on, as stored, in eval mode."""

    accuracy_out: float
    """On all other records."""


def train_reference(
    network: nn.Module,
    material: Material,
    keep: NDArray[np.bool_],
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path,
    weights: Path,
    device: str,
    on_epoch: Epoch | None = None,
) -> Trained:
    """Train one reference from its last finished epoch on, save its weights, and ask it about every record.

    The order of records, the augmentation and the starting weights follow from the seed and the number of the epoch
    alone, so that a training that was killed and goes on gives the same weights as one that was not.

    Args:
        network: Untrained, with the starting weights.
        material: The records.
        keep: (N,) True for the records to train on.
        recipe: How.
        seed: Drives order and augmentation.
        checkpoint: File of the last finished epoch, removed at the end.
        weights: File of the finished weights; where it exists, nothing is trained.
        device: "cpu" or "cuda".
        on_epoch: Told of each finished epoch.

    Raises:
        DivergedError: a loss that is not finite.
        MIAError: fewer records than one batch, or a disk that is full.
    """
    fabric = Fabric(accelerator=device, devices=1, precision=recipe.precision)
    images = torch.from_numpy(material.images).to(fabric.device)
    network = with_small_convolutions(network, images.shape[1:]).to(fabric.device, memory_format=torch.channels_last)
    if weights.exists():
        network.load_state_dict(torch.load(weights, weights_only=True, map_location=fabric.device))
    else:
        _train(fabric, network, images, material, keep, recipe, seed, checkpoint, on_epoch)
        _save(weights, network.state_dict())
    checkpoint.unlink(missing_ok=True)
    phi, correct = ask(network, images, material)
    return Trained(phi, float(correct[keep].mean()), float(correct[~keep].mean()))


def _train(
    fabric: Fabric,
    network: nn.Module,
    images: Tensor,
    material: Material,
    keep: NDArray[np.bool_],
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    on_epoch: Epoch | None,
) -> None:
    rows = torch.from_numpy(np.flatnonzero(keep))
    steps = len(rows) // recipe.batch_size
    if steps == 0:
        raise MIAError(
            f"a reference has {len(rows)} records to train on, fewer than one batch of {recipe.batch_size}; lower "
            "--references.recipe.batch_size"
        )
    optimiser = _optimiser(network, recipe, fabric.device.type)
    schedule = _schedule(optimiser, recipe, steps)
    first = _resume(checkpoint, network, optimiser, schedule, fabric.device)
    labels = torch.from_numpy(material.labels).to(fabric.device)
    network.train()
    for epoch in range(first, recipe.epochs):
        total = torch.zeros((), device=fabric.device)
        for index, batch in _batches(images, rows, material, recipe, seed=seed, epoch=epoch):
            with fabric.autocast():
                loss = F.cross_entropy(network(batch), labels[index], label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.detach()
        mean = float(total) / steps  # the only time that the host waits
        if not np.isfinite(mean):
            raise DivergedError(f"its loss became {mean} in epoch {epoch + 1}")
        if on_epoch:
            on_epoch(epoch + 1, mean)
        if epoch + 1 < recipe.epochs:
            state = {"epoch": epoch + 1, "network": network.state_dict(), "schedule": schedule.state_dict()}
            _save(checkpoint, {**state, "optimiser": optimiser.state_dict()})


def _optimiser(network: nn.Module, recipe: Recipe, device: str) -> torch.optim.Optimizer:
    fused = device in ("cpu", "cuda")
    if recipe.optimiser == "sgd":
        options = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
        return torch.optim.SGD(
            network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused, **options
        )
    return torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
    )


def _schedule(
    optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = steps * recipe.epochs
    if recipe.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.learning_rate, total + 1, pct_start=recipe.warmup, cycle_momentum=False
        )
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    return torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)


def _resume(
    checkpoint: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    device: torch.device,
) -> int:
    """Return the epoch to go on with; a checkpoint that is damaged is as good as none."""
    if not checkpoint.exists():
        return 0
    try:
        payload = checkpoint.read_bytes()
        if sha256(payload[32:]).digest() != payload[:32]:
            raise ValueError("checksum")
        from io import BytesIO

        state = torch.load(BytesIO(payload[32:]), weights_only=True, map_location=device)
    except (OSError, ValueError, RuntimeError) as error:
        log.warning("%s is damaged (%s); this reference begins anew", checkpoint.name, error)
        return 0
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    return int(state["epoch"])


def _save(path: Path, state: object) -> None:
    from io import BytesIO

    buffer = BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, sha256(payload).digest() + payload if path.suffix == ".checkpoint" else payload)


def _batches(
    images: Tensor, rows: Tensor, material: Material, recipe: Recipe, *, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (rows, normalised and augmented images) of one epoch; everything is drawn at once before it begins."""
    draw = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
    order = rows[torch.randperm(len(rows), generator=draw)].to(images.device)
    mirrored = (torch.rand(len(rows), generator=draw) < 0.5).to(images.device)
    shift = torch.randint(-recipe.shift, recipe.shift + 1, (2, len(rows)), generator=draw).to(images.device)
    normalise = Normalise(material, images)
    for start in range(0, len(rows) - recipe.batch_size + 1, recipe.batch_size):
        part = slice(start, start + recipe.batch_size)
        batch = normalise(images[order[part]])
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


class Normalise:
    """Turn stored images into the target's inputs, on their device."""

    def __init__(self, material: Material, images: Tensor) -> None:
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (material.mean, material.std))
        self.scale, self.shift = 1 / (scale * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W) float32."""
        return torch.addcmul(self.shift, images.float(), self.scale)


@torch.inference_mode()
def ask(network: nn.Module, images: Tensor, material: Material) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return phi (N, Q), in float32 whatever the precision of training, and whether the stored image is classed right.

    Batches are filled up to one size, so that a record's phi does not depend on which others are asked with it.
    """
    device = images.device
    batch_size = 256 if device.type == "cpu" else 4096
    normalise = Normalise(material, images)
    network = network.eval()
    fast = prepare_for_inference(network.cpu(), normalise(images[:8]).cpu()).to(device)
    labels = torch.from_numpy(material.labels).to(device)
    phi = torch.empty(len(images), material.queries, device=device)
    correct = torch.empty(len(images), dtype=torch.bool, device=device)
    for start in range(0, len(images), batch_size):
        rows = torch.arange(start, start + batch_size, device=device).clamp(max=len(images) - 1)
        count = min(batch_size, len(images) - start)
        own = F.one_hot(labels[rows], material.num_classes).bool()
        batch = normalise(images[rows]).contiguous(memory_format=torch.channels_last)
        for query, view in enumerate(views(batch, material.queries)):
            logits = fast(view).float()
            value = logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)
            phi[start : start + count, query] = value[:count]
            if query == 0:
                correct[start : start + count] = (logits.argmax(dim=1) == labels[rows])[:count]
    return phi.cpu().numpy(), correct.cpu().numpy()


class SmallConvolution(nn.Conv2d):
    """A convolution whose whole input is one window: a matrix product over the taps that do not only meet padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution returns; unused taps get gradients of exactly 0, as they do there."""
        (top, left), (height, width) = self.padding, x.shape[2:]  # type: ignore[misc]
        used = self.weight[:, :, top : top + height, left : left + width]  # type: ignore[operator]
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
    with torch.no_grad():
        network.eval()(torch.zeros(2, *shape))
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
    return all(p + s <= k for p, s, k in zip(convolution.padding, size, convolution.kernel_size, strict=True))  # type: ignore[arg-type]


@contextmanager
def thread_count(count: int | None) -> Iterator[None]:
    """Use this many CPU threads; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    os.environ.setdefault("OMP_NUM_THREADS", str(count or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
