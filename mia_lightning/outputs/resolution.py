"""Resolution of a target's outputs: records tied at probabilities of exactly 0 or 1."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mia_lightning.outputs.access import shows_labels_alone
from mia_lightning.outputs.outputs import Outputs

LARGEST_TIE = 0.005
"""Share of the records that may tie at one end without a note."""


def resolution_notes(outputs: Outputs, membership: NDArray[np.int8]) -> Iterator[str]:
    """Yield sentences about outputs that rounding has tied, with their effect on low false-positive rates.

    Args:
        outputs: Of N records.
        membership: (N,) 1, 0 or -1.
    """
    import torch

    from mia_lightning.outputs.phi import phi as logit_confidence

    logits = torch.from_numpy(outputs.logits[:, 0].astype(np.float64))
    phi = logit_confidence(logits, torch.tensor(outputs.labels)).numpy()
    if len(phi) < 2 or shows_labels_alone(outputs):  # which another note names
        return
    for tied, is_highest in ((phi == phi.max(), True), (phi == phi.min(), False)):
        count, non_members = int(tied.sum()), int((tied & (membership == 0)).sum())
        if count < max(3, LARGEST_TIE * len(phi)):
            continue
        total = int((membership == 0).sum())
        effect = (
            f"they include {non_members:,} of {total:,} non-members, so no threshold on phi has a false-positive rate "
            f"between 0 and {non_members / total:.2g}"
            if is_highest and non_members
            else "phi cannot rank them"
        )
        probability = round(float(np.exp(-np.logaddexp(0, -phi[tied][0]))), 6)
        yield f"{count:,} of {len(phi):,} records tie at a label probability of exactly {probability:g}: {effect}"
