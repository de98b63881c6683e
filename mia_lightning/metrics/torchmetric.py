"""TPR at FPR as a torchmetrics metric, for training loops."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mia_lightning.metrics.roc import tpr_at_fpr


class TPRAtFPR(Metric):
    """True-positive rate at a false-positive rate as defined by `metrics.tpr_at_fpr`.

    Scores are compared as they are. The curve metrics of torchmetrics put scores through a float32 sigmoid as soon as
    one lies outside [0, 1], which ties all above 17, the records that decide a low FPR.

    Keeps all scores (memory O(N)); in distributed training they are gathered before the rate is taken.

    Args:
        fpr: The false-positive rate, in [0, 1).
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    scores: list[Tensor]
    member: list[Tensor]

    def __init__(self, fpr: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fpr = fpr
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("member", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, member: Tensor) -> None:
        """Add records.

        Args:
            scores: (N,) any scale, higher = more likely a member.
            member: (N,) 1 or 0.
        """
        self.scores.append(scores.detach())
        self.member.append(member.detach())

    def compute(self) -> Tensor:
        """Return the rate over all records so far, a float32 scalar; counted on the CPU in float64.

        Raises:
            MIAError: no members or no non-members yet, or a score is NaN or infinite.
        """
        scores = dim_zero_cat(self.scores).cpu().to(torch.float64).numpy()
        member = dim_zero_cat(self.member).cpu().numpy()
        return torch.tensor(tpr_at_fpr(scores, member, self.fpr), dtype=torch.float32, device=self.device)
