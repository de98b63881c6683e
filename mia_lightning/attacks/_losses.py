"""Losses of the MLP attack."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["bce", "focal", "pairwise", "partial_auc"]

FOCAL_EXPONENT = 2.0
"""Exponent of the focal loss (Lin et al. 2017)."""

HARDEST_SHARE = 0.05
"""partial_auc: share of a batch's non-members, from the highest, that members are compared with."""


def losses(loss: Loss, log_odds: Tensor, member: Tensor) -> Tensor:
    """Return the loss of each of K networks on its own batch, (K,).

    bce: binary cross-entropy. focal: the same, each record weighted by the squared probability of being wrong (Lin et
    al. 2017, eq. 4 without alpha). pairwise: log(1 + exp(non-member - member)) over all pairs, a smooth 1 - AUC (Burges
    et al. 2005). partial_auc: the same over the pairs with the highest 5% of the non-members, a smooth partial AUC
    (pairs restricted as in Narasimhan & Agarwal 2013).

    Args:
        loss: Name of the loss.
        log_odds: (K, B).
        member: (K, B) 1.0 or 0.0.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(log_odds, member, reduction="none").mean(dim=1)
    if loss == "focal":
        entropy = F.binary_cross_entropy_with_logits(log_odds, member, reduction="none")
        wrong = torch.sigmoid(torch.where(member > 0, -log_odds, log_odds))
        return (wrong**FOCAL_EXPONENT * entropy).mean(dim=1)
    lowest = torch.finfo(log_odds.dtype).min
    non_members = log_odds.masked_fill(member > 0, lowest)
    if loss == "partial_auc":
        fewest = int((member == 0).sum(dim=1).min())
        non_members = non_members.topk(max(1, math.ceil(HARDEST_SHARE * fewest)), dim=1).values
    pairs = (member[:, :, None] > 0) & (non_members[:, None, :] > lowest)
    cost = F.softplus(non_members.clamp(min=lowest / 4)[:, None, :] - log_odds[:, :, None])
    return torch.where(pairs, cost, 0.0).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)
