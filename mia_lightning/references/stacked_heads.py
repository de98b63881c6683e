"""Linear heads on fixed features, all trained at once as one matrix problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.training import Epoch, optimizer_of, schedule_of
from mia_lightning.references.training_data import TrainingData
from mia_lightning.runtime.trainers import isolated_fabric


class StackedHeads(nn.Module):
    """K linear heads as one matrix: features (B, D) to logits (B, C, K).

    Args:
        heads: Linear layers of one shape.
    """

    def __init__(self, heads: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.shape = (heads[0].out_features, len(heads))
        self.weight = nn.Parameter(torch.stack([head.weight.detach() for head in heads], dim=1).flatten(0, 1))
        has_bias = heads[0].bias is not None
        self.bias = nn.Parameter(torch.stack([head.bias.detach() for head in heads], 1).flatten()) if has_bias else None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of all heads."""
        return F.linear(features, self.weight, self.bias).float().view(len(features), *self.shape)

    def state_of(self, index: int) -> dict[str, Tensor]:
        """Return one head's weights, by the names of `nn.Linear`."""
        named = {name: tensor.detach() for name, tensor in self.named_parameters()}
        stacked = {name: tensor.view(*self.shape, *tensor.shape[1:]) for name, tensor in named.items()}
        return {name: tensor[:, index].cpu().contiguous() for name, tensor in stacked.items()}


def head_labels(material: TrainingData, outputs: int) -> Tensor:
    """Return classes (N,) of a softmax, or (N, C) of 0 and 1 for independent logits, such as a single one."""
    labels = torch.from_numpy(material.labels)
    return labels[:, None] if outputs == 1 and labels.ndim == 1 else labels


def fit(
    heads: StackedHeads,
    features: Tensor,
    material: TrainingData,
    keep: Tensor,
    recipe: ReferenceTraining,
    *,
    seed: int,
    device: str,
    on_epoch: Epoch | None = None,
) -> None:
    """Train all heads in place, each on its own records, by minibatches of records in one order for all.

    A step reads as many records as leave each head with `batch_size` on average, and is that head's step on those among
    them that it is trained on: the same as training it alone on these. Weights of a head that diverges become NaN.

    Args:
        heads: K heads of C outputs with their first weights: a softmax over classes, or with labels (N, C), and with
            a single output, independent logits.
        features: (V, N, D) of the stored, and with V = 2 also the mirrored, images.
        material: The records' labels and order.
        keep: (K, N) bool, the records of each head.
        recipe: Loss, optimizer, schedule, epochs and records per step.
        seed: Drives the order of the records and their mirroring.
        device: "cpu" or "cuda".
        on_epoch: Callback invoked with (finished epochs times K, mean loss) after each epoch.
    """
    fabric = isolated_fabric(device, precision=recipe.precision)
    heads.to(fabric.device)
    classes, count = heads.shape
    epochs, batch_size = recipe.counts()
    labels, keep = head_labels(material, classes).to(fabric.device), keep.T.contiguous().to(fabric.device)
    size = min(len(keep), round(batch_size / float(keep.float().mean())))
    steps = len(keep) // size
    optimizer = optimizer_of(heads, recipe)
    schedule = schedule_of(optimizer, recipe, steps * epochs)
    rows = torch.from_numpy(np.arange(len(keep)) if material.order is None else material.order)
    smoothing = recipe.label_smoothing
    for epoch in range(epochs):
        draw = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
        order = rows[torch.randperm(len(rows), generator=draw)].to(fabric.device)
        mirrored = (torch.rand(len(rows), generator=draw) < 0.5).to(fabric.device).long() % len(features)
        total = torch.zeros((), device=fabric.device)
        for start in range(0, steps * size, size):
            index = order[start : start + size]
            batch, label = features[mirrored[start : start + size], index], labels[index]
            weight = keep[index].float()
            weight /= weight.sum(dim=0).clamp(min=1)
            with torch.no_grad(), fabric.autocast():
                logits = heads(batch)  # (B, C, K)
                if label.ndim == 2:
                    truth = (label * (1 - smoothing) + smoothing / 2)[..., None]
                    losses = F.softplus(logits).sub_(truth * logits).sum(dim=1)
                    error = logits.sigmoid_().sub_(truth)
                else:
                    p = logits.softmax(dim=1)
                    each = torch.arange(len(index), device=fabric.device)
                    losses = -p[each, label].clamp(min=torch.finfo(p.dtype).tiny).log()
                    p[each, label] -= 1 - smoothing
                    error = p.sub_(smoothing / classes)
                total += (losses * weight).sum() / count
                error = error.mul_(weight[:, None]).flatten(1)
                heads.weight.grad = (error.T @ batch).float()
                if heads.bias is not None:
                    heads.bias.grad = error.sum(dim=0)
            optimizer.step()
            schedule.step()
        if on_epoch is not None:
            on_epoch((epoch + 1) * count, float(total) / steps)
