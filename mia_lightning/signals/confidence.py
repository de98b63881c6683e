"""How sure the target is of the true class."""

import numpy as np

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals._views import query_logits
from mia_lightning.signals.base import signal
from mia_lightning.signals.functional import Array


@signal(direction=-1, per_query=True)
def loss(outputs: Outputs) -> Array:
    """Cross-entropy -log p_y, (N, Q) in [0, inf) (Yeom et al. 2018)."""
    return F.loss(*query_logits(outputs))


@signal(direction=1, per_query=True)
def log_confidence(outputs: Outputs) -> Array:
    """Log p_y, (N, Q) in (-inf, 0]; the loss with its sign turned."""
    return -F.loss(*query_logits(outputs))


@signal(direction=1, per_query=True)
def confidence(outputs: Outputs) -> Array:
    """Probability of the true class, (N, Q) in [0, 1]; rounds to 1 from phi = 37 on, so rank by phi instead."""
    return F.sigmoid(F.phi(*query_logits(outputs)))


@signal(direction=1, per_query=True)
def phi(outputs: Outputs) -> Array:
    """Logit-scaled confidence log p_y - log(1 - p_y), (N, Q) unbounded (Carlini et al. 2022, section IV.C)."""
    return F.phi(*query_logits(outputs))


@signal(direction=1, per_query=True)
def hinge(outputs: Outputs) -> Array:
    """Margin of the true logit over the largest other one, (N, Q) unbounded (Carlini et al. 2022, code release)."""
    return F.hinge(*query_logits(outputs))


@signal(direction=1, per_query=True)
def label_logit(outputs: Outputs) -> Array:
    """Raw logit of the true class, (N, Q) unbounded."""
    return F.label_logit(*query_logits(outputs))


@signal(direction=1, per_query=True)
def is_correct(outputs: Outputs) -> Array:
    """1 where the predicted class is the true one, else 0, (N, Q) (the gap attack of Yeom et al. 2018)."""
    logits, labels = query_logits(outputs)
    return np.asarray(logits.argmax(axis=-1) == labels, dtype=np.float64)


@signal(direction=-1, per_query=True)
def label_rank(outputs: Outputs) -> Array:
    """How many classes have a larger logit than the true one, (N, Q) in 0..C-1."""
    return F.label_rank(*query_logits(outputs))


@signal(direction=-1, per_query=True)
def modified_entropy(outputs: Outputs) -> Array:
    """Entropy that knows the label, (N, Q) in [0, inf) (Song & Mittal 2021): low = confident and right."""
    return F.modified_entropy(*query_logits(outputs))
