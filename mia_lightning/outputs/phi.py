"""Logit-scaled confidence (phi) and predictions in torch; `mia_lightning.signals.functional` is the same in NumPy."""

import torch
from torch import Tensor


def phi(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y - logsumexp_{j != y} z_j, (B,), of logits (B, C) and class indices (B,).

    Carlini et al. 2022, "Membership Inference Attacks From First Principles", section IV.C. For multi-label targets,
    labels (B, C) of 0 and 1, the sum of the signed log-odds of all labels: z_j where label j is 1, -z_j where it is 0.
    """
    if labels.ndim == 2:
        return torch.where(labels == 1, logits, -logits).sum(dim=1)
    index = labels[:, None]
    return logits.gather(1, index)[:, 0] - logits.scatter(1, index, -torch.inf).logsumexp(dim=1)


def predicted(logits: Tensor, labels: Tensor) -> Tensor:
    """Return predicted class indices (B,), or labels (B, C) of 0 and 1 where the given ones are of that form."""
    return (logits > 0).long() if labels.ndim == 2 else logits.argmax(dim=1)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether the predicted class, or each of the predicted labels, is the given one, (B,) bool."""
    equal = predicted(logits, labels) == labels
    return equal.all(dim=1) if labels.ndim == 2 else equal
