"""What the signals take from the outputs, cast up to float64."""

import numpy as np

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals.functional import Array, Labels


def query_logits(outputs: Outputs) -> tuple[Array, Labels]:
    """Return logits (N, Q, C) of all queries and labels (N, 1) that broadcast over them."""
    return outputs.logits.astype(np.float64), outputs.labels[:, None]


def stored_logits(outputs: Outputs) -> tuple[Array, Labels]:
    """Return logits (N, C) of the stored image and labels (N,)."""
    return outputs.logits[:, 0].astype(np.float64), outputs.labels
