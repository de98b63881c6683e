"""Vectors per record, for attacks that learn from them; the canonical logits are in `functional`."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals.base import logit_signal, signal
from mia_lightning.signals.functional import Array


@logit_signal(direction=0)
def probabilities(logits: Array) -> Array:
    """Return the softmax probabilities in the order of the classes, (..., C) in [0, 1] (Shokri et al. 2017)."""
    return np.exp(F.log_probabilities(logits))


@signal(direction=0, per_query=True, multi_label=True)
def logits(outputs: Outputs) -> NDArray[np.float32]:
    """Return the raw logits in the order of the classes, (N, Q, C) unbounded, without a float64 copy."""
    return outputs.logits


@signal(direction=0, per_query=False, needs="features", multi_label=True)
def features(outputs: Outputs) -> NDArray[np.float32]:
    """Return the penultimate features of the stored image, (N, D)."""
    return outputs.features


@signal(direction=1, per_query=False, needs="features", multi_label=True)
def feature_norm(outputs: Outputs) -> Array:
    """Return the Euclidean norm of the penultimate features, (N,) in [0, inf)."""
    return np.asarray(np.linalg.norm(outputs.features.astype(np.float64), axis=-1))
