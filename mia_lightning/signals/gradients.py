"""Gradient norms: that of the last layer's weight from the outputs, those in the image from a backward pass."""

import numpy as np

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals.base import signal
from mia_lightning.signals.functional import Array, Labels
from mia_lightning.signals.vectors import feature_norm


@signal(direction=-1, per_query=False, needs="features", multi_label=True)
def weight_gradient_norm(outputs: Outputs) -> Array:
    """Return the norm of the loss's gradient in the last layer's weight, (N,) in [0, inf), for the stored image; exact.

    The gradient is the outer product of p - e_y and the penultimate features h, so its norm is ||p - e_y|| ||h||
    (Nasr et al. 2019, "Comprehensive Privacy Analysis of Deep Learning").
    """
    return F.bias_gradient_norm(*_stored_image(outputs)) * feature_norm(outputs)


@signal(direction=-1, per_query=False, needs="gradient_norms")
def input_gradient_norm(outputs: Outputs) -> Array:
    """Return the Euclidean norm of the loss's gradient in the stored image, (N,) in [0, inf).

    The loss is softplus(-phi), so its gradient is that of phi times -sigmoid(-phi): precise where a backward pass
    through softmax would have returned 0.
    """
    return F.sigmoid(-F.phi(*_stored_image(outputs))) * _gradient(outputs, 0)


@signal(direction=0, per_query=False, needs="gradient_norms", multi_label=True)
def phi_gradient_norm(outputs: Outputs) -> Array:
    """Return the Euclidean norm of phi's gradient in the stored image, (N,) in [0, inf)."""
    return _gradient(outputs, 0)


@signal(direction=0, per_query=False, needs="gradient_norms", multi_label=True)
def phi_gradient_l1(outputs: Outputs) -> Array:
    """Return the sum of the absolute values of phi's gradient in the stored image, (N,) in [0, inf)."""
    return _gradient(outputs, 1)


@signal(direction=0, per_query=False, needs="gradient_norms", multi_label=True)
def phi_gradient_max(outputs: Outputs) -> Array:
    """Return the largest absolute value of phi's gradient in the stored image, (N,) in [0, inf)."""
    return _gradient(outputs, 2)


def _stored_image(outputs: Outputs) -> tuple[Array, Labels]:
    return outputs.logits[:, 0].astype(np.float64), outputs.labels


def _gradient(outputs: Outputs, column: int) -> Array:
    return outputs.gradient_norms[:, column].astype(np.float64)
