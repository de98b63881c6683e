"""Whole vectors, for attacks that learn from them."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals._views import query_logits
from mia_lightning.signals.base import signal
from mia_lightning.signals.functional import Array


@signal(direction=0, per_query=True)
def probabilities(outputs: Outputs) -> Array:
    """Softmax probabilities in the order of the classes, (N, Q, C) in [0, 1] (Shokri et al. 2017)."""
    return np.exp(F.log_probabilities(query_logits(outputs)[0]))


@signal(direction=0, per_query=True)
def logits(outputs: Outputs) -> NDArray[np.float32]:
    """Raw logits in the order of the classes, (N, Q, C) unbounded."""
    return outputs.logits


@signal(direction=0, per_query=True)
def canonical_logits(outputs: Outputs) -> Array:
    """Logits minus their mean, true class first, the others descending, (N, Q, C) unbounded."""
    return F.canonical_logits(*query_logits(outputs))


@signal(direction=0, per_query=False, needs="features")
def features(outputs: Outputs) -> NDArray[np.float32]:
    """Penultimate features of the stored image, (N, D)."""
    return outputs.features


@signal(direction=1, per_query=False, needs="features")
def feature_norm(outputs: Outputs) -> Array:
    """Euclidean norm of the penultimate features, (N,) in [0, inf)."""
    return np.asarray(np.linalg.norm(outputs.features.astype(np.float64), axis=-1))
