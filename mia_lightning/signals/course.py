"""Two signals of the course baseline that no paper defines; its other signals are standard ones."""

import numpy as np

from mia_lightning.signals import functional as F
from mia_lightning.signals.base import logit_signal
from mia_lightning.signals.functional import Array, Labels


@logit_signal(direction=-1)
def course_adjusted_entropy(logits: Array, labels: Labels) -> Array:
    """Return the entropy times (1 - p_y), (...) in [0, log C].

    Not the modified entropy of Song & Mittal 2021 (`modified_entropy`), although meant to be: that one weighs each
    class by its own -log(1 - p_j) and grows without bound for a confident mistake.
    """
    return F.entropy(logits) * F.sigmoid(-F.phi(logits, labels))


@logit_signal(direction=0)
def course_gradient_proxy(logits: Array, labels: Labels) -> Array:
    """Return |1 - z_y| of the raw true logit, (...) in [0, inf).

    The gradient of a squared error in that logit, not of the cross-entropy: the exact gradient norm of the last layer
    is `bias_gradient_norm`.
    """
    return np.abs(1.0 - F.label_logit(logits, labels))
