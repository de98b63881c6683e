"""Scale of the logits, whatever the true class; entropy and the margin of the top two classes are in `functional`."""

import numpy as np

from mia_lightning.signals import functional as F
from mia_lightning.signals.base import logit_signal
from mia_lightning.signals.functional import Array, Labels


@logit_signal(direction=1)
def max_logit(logits: Array) -> Array:
    """Return max_j z_j, (...) unbounded."""
    return np.asarray(logits.max(axis=-1))


@logit_signal(direction=1, multi_label=True)
def logit_norm(logits: Array) -> Array:
    """Return the Euclidean norm of the logits, (...) in [0, inf)."""
    return np.asarray(np.linalg.norm(logits, axis=-1))


@logit_signal(direction=-1, multi_label=True)
def energy(logits: Array, labels: Labels | None = None) -> Array:
    """Return the free energy -logsumexp_j z_j, (...) unbounded (Liu et al. 2020, "Energy-based OOD Detection"); of
    multi-label targets the joint energy -sum_j log(1 + exp z_j) (Wang et al. 2021).
    """
    if F.is_multi_label(logits, labels):
        return np.asarray(-F.softplus(logits).sum(axis=-1))
    return -F.log_sum_exp(logits)
