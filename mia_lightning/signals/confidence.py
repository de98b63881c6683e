"""Confidence in the true class, derived from phi; the loss, phi and the margins are in `functional`."""

import numpy as np

from mia_lightning.signals import functional as F
from mia_lightning.signals.base import logit_signal
from mia_lightning.signals.functional import Array, Labels


@logit_signal(direction=1, multi_label=True)
def log_confidence(logits: Array, labels: Labels) -> Array:
    """Return log p_y, (...) in (-inf, 0]: the negative loss."""
    return -F.loss(logits, labels)


@logit_signal(direction=1, multi_label=True)
def confidence(logits: Array, labels: Labels) -> Array:
    """Return p_y, (...) in [0, 1]; rounds to 1 from phi = 37 on, so rank by phi instead. Of multi-label targets the
    probability of all labels together, exp(-loss).
    """
    if F.is_multi_label(logits, labels):
        return np.exp(-F.loss(logits, labels))
    return F.sigmoid(F.phi(logits, labels))


@logit_signal(direction=1, multi_label=True)
def is_correct(logits: Array, labels: Labels) -> Array:
    """Return 1 where the predicted class is the true one, else 0, (...) (gap attack of Yeom et al. 2018); of
    multi-label targets the share of the labels that are predicted.
    """
    if F.is_multi_label(logits, labels):
        return np.asarray(((logits > 0) == (labels == 1)).mean(axis=-1))
    return np.asarray(logits.argmax(axis=-1) == labels, dtype=np.float64)
