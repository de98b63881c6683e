"""Two signals of the method this project began with, as it defined them; its others are standard ones."""

import numpy as np

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals._views import query_logits
from mia_lightning.signals.base import signal
from mia_lightning.signals.functional import Array


@signal(direction=-1, per_query=True)
def course_adjusted_entropy(outputs: Outputs) -> Array:
    """Entropy times (1 - p_y), (N, Q) in [0, log C].

    Not the modified entropy of Song & Mittal 2021 (`modified_entropy`), which it was meant to be: that one weighs each
    class's surprise by itself and grows without bound for a confident mistake.
    """
    logits, labels = query_logits(outputs)
    return F.entropy(logits) * F.sigmoid(-F.phi(logits, labels))


@signal(direction=0, per_query=True)
def course_gradient_proxy(outputs: Outputs) -> Array:
    """|1 - z_y| of the raw true logit, (N, Q) in [0, inf).

    Unrelated to a gradient: it would be one of a squared error on the logit. The exact gradient of the last layer is
    `bias_gradient_norm`.
    """
    logits, labels = query_logits(outputs)
    return np.abs(1.0 - F.label_logit(logits, labels))
