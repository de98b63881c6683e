"""How sure the target is at all, whatever the true class."""

import numpy as np

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals._views import query_logits
from mia_lightning.signals.base import signal
from mia_lightning.signals.functional import Array


@signal(direction=-1, per_query=True)
def entropy(outputs: Outputs) -> Array:
    """Entropy of the probabilities, (N, Q) in [0, log C] (Salem et al. 2019)."""
    return F.entropy(query_logits(outputs)[0])


@signal(direction=1, per_query=True)
def top2_margin(outputs: Outputs) -> Array:
    """Gap of the two largest probabilities, (N, Q) in [0, 1]."""
    return F.top2_margin(query_logits(outputs)[0])


@signal(direction=1, per_query=True)
def max_logit(outputs: Outputs) -> Array:
    """Largest raw logit, (N, Q) unbounded."""
    return np.asarray(outputs.logits.max(axis=-1), dtype=np.float64)


@signal(direction=1, per_query=True)
def logit_norm(outputs: Outputs) -> Array:
    """Euclidean norm of the raw logits, (N, Q) in [0, inf)."""
    return np.asarray(np.linalg.norm(query_logits(outputs)[0], axis=-1))


@signal(direction=-1, per_query=True)
def energy(outputs: Outputs) -> Array:
    """Free energy -logsumexp_j z_j, (N, Q) unbounded (Liu et al. 2020, "Energy-based OOD Detection")."""
    return -F.log_sum_exp(query_logits(outputs)[0])
