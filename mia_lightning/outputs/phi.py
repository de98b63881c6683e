"""Logit-scaled confidence (phi) in torch; `mia_lightning.signals.functional.phi` is the same in NumPy, in float64."""

import torch
from torch import Tensor
from torch.nn import functional as F


def phi(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y - logsumexp_{j != y} z_j, (B,), of logits (B, C) and class indices (B,).

    Carlini et al. 2022, "Membership Inference Attacks From First Principles", section IV.C.
    """
    is_label = F.one_hot(labels, logits.shape[1]).bool()
    return logits[is_label] - logits.masked_fill(is_label, -torch.inf).logsumexp(dim=1)
