"""Formulas as pure functions of logits (..., C) and labels that broadcast to (...); float64 in, float64 out.

Labels (..., C) of 0 and 1 are those of a multi-label target: its C labels are independent, each with the signed
log-odds z_j where the label is 1 and -z_j where it is 0.

Each is finite for any finite logits and keeps its relative precision where softmax-then-log loses all digits:
everything about the true class follows from phi = log p_y - log(1 - p_y), which is a difference of logits. A formula
under `logit_signal` is a signal of the same name too.
"""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.signals.base import logit_signal

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def softplus(x: Array) -> Array:
    """Return the logarithm of 1 + exp(x). At -phi it is -log p_y."""
    return np.logaddexp(0.0, x)


def sigmoid(x: Array) -> Array:
    """Return the logistic function, to full relative precision for very negative x too. At -phi it is 1 - p_y."""
    return np.exp(-softplus(-x))


def log_sum_exp(logits: Array) -> Array:
    """Return log sum_j exp(z_j), (...)."""
    top = logits.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1)))


def signed_log_odds(logits: Array, labels: Labels) -> Array:
    """Return log p - log(1 - p) of the given value of each of C labels, (..., C)."""
    return np.where(labels == 1, logits, -logits)


def is_multi_label(logits: Array, labels: Labels | None) -> bool:
    """Whether labels are 0 or 1 for each logit, instead of the index of a class."""
    return labels is not None and labels.ndim == logits.ndim


@logit_signal(direction=1)
def label_logit(logits: Array, labels: Labels) -> Array:
    """Return z_y, (...)."""
    return np.asarray(np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0])


def is_class(logits: Array, classes: Labels) -> NDArray[np.bool_]:
    """Return (..., C), true at the given class."""
    return np.asarray(np.arange(logits.shape[-1]) == classes[..., None])


def other_logits(logits: Array, labels: Labels) -> Array:
    """Return the logits with -inf at the true class, (..., C)."""
    return np.where(is_class(logits, labels), -np.inf, logits)


@logit_signal(direction=1, multi_label=True)
def phi(logits: Array, labels: Labels) -> Array:
    """Return z_y - logsumexp_{j != y} z_j = log p_y - log(1 - p_y), (...); of multi-label targets the sum over labels.

    The logit-scaled confidence of Carlini et al. 2022 ("Membership Inference Attacks From First Principles", section
    IV.C), there log(p / (1 - p)) of a softmax output, here without the softmax that rounds it to infinity.
    """
    if is_multi_label(logits, labels):
        return np.asarray(signed_log_odds(logits, labels).sum(axis=-1))
    return label_logit(logits, labels) - log_sum_exp(other_logits(logits, labels))


@logit_signal(direction=-1, multi_label=True)
def loss(logits: Array, labels: Labels) -> Array:
    """Return the cross-entropy -log p_y = softplus(-phi), (...) in [0, inf) (Yeom et al. 2018); of multi-label targets
    the sum of the binary ones.
    """
    if is_multi_label(logits, labels):
        return np.asarray(softplus(-signed_log_odds(logits, labels)).sum(axis=-1))
    return softplus(-phi(logits, labels))


@logit_signal(direction=1, multi_label=True)
def hinge(logits: Array, labels: Labels) -> Array:
    """Return z_y - max_{j != y} z_j, (...); phi <= hinge <= phi + log(C - 1) (Carlini et al. 2022, code). Of
    multi-label targets the smallest signed log-odds of a label.
    """
    if is_multi_label(logits, labels):
        return np.asarray(signed_log_odds(logits, labels).min(axis=-1))
    return np.asarray(label_logit(logits, labels) - other_logits(logits, labels).max(axis=-1))


def log_probabilities(logits: Array) -> Array:
    """Return log p_j, (..., C).

    log p of the top class is -log1p(sum of the others' odds against it): lse - z would round it to 0 from odds of
    1e-16 on.
    """
    top = logits.argmax(axis=-1)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    odds = np.where(is_class(logits, top), 0.0, np.exp(shifted)).sum(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log1p(odds))


@logit_signal(direction=-1, multi_label=True)
def entropy(logits: Array, labels: Labels | None = None) -> Array:
    """Return -sum_j p_j log p_j, (...) in [0, log C] (Salem et al. 2019); of multi-label targets the sum of the C
    binary entropies, in [0, C log 2].
    """
    if is_multi_label(logits, labels):
        both = np.stack([logits, -logits])
        return np.asarray((sigmoid(both) * softplus(-both)).sum(axis=(0, -1)))
    log_p = log_probabilities(logits)
    return np.asarray(-(np.exp(log_p) * log_p).sum(axis=-1))


@logit_signal(direction=-1)
def modified_entropy(logits: Array, labels: Labels) -> Array:
    """Return -(1 - p_y) log p_y - sum_{j != y} p_j log(1 - p_j), (...) in [0, inf); low = confident and right.

    Song & Mittal 2021 ("Systematic Evaluation of Privacy Risks of Machine Learning Models", eq. for Mentr). Only the
    top class can have p_j > 1/2, where log(1 - p_j) needs care; there it is -softplus(phi of that class).
    """
    top = logits.argmax(axis=-1)
    at_top = is_class(logits, top)
    p = np.exp(log_probabilities(logits))
    minus_log_rest = np.where(at_top, softplus(phi(logits, top))[..., None], -np.log1p(-np.where(at_top, 0.0, p)))
    wrong = np.where(is_class(logits, labels), 0.0, p * minus_log_rest).sum(axis=-1)
    true = phi(logits, labels)
    return np.asarray(sigmoid(-true) * softplus(-true) + wrong)


@logit_signal(direction=1)
def top2_margin(logits: Array) -> Array:
    """Return p_(1) - p_(2), the gap of the two largest probabilities, (...) in [0, 1]."""
    second, first = np.moveaxis(np.partition(logits, -2, axis=-1)[..., -2:], -1, 0)
    return np.asarray(np.exp(log_probabilities(logits).max(axis=-1)) * -np.expm1(second - first))


@logit_signal(direction=-1)
def label_rank(logits: Array, labels: Labels) -> Array:
    """Return the number of classes with a larger logit than the true one, (...) in 0..C-1; 0 = none."""
    return np.asarray((logits > label_logit(logits, labels)[..., None]).sum(axis=-1), dtype=np.float64)


@logit_signal(direction=-1, multi_label=True)
def bias_gradient_norm(logits: Array, labels: Labels) -> Array:
    """Return ||p - e_y||_2, (...) in [0, sqrt 2]: the exact norm of the loss's gradient in the last layer's bias.

    With q the softmax over the other classes, p_j = (1 - p_y) q_j, so the norm is (1 - p_y) sqrt(1 + sum_j q_j^2).
    """
    if is_multi_label(logits, labels):
        return np.asarray(np.linalg.norm(sigmoid(-signed_log_odds(logits, labels)), axis=-1))
    rest = other_logits(logits, labels)
    q = np.exp(rest - log_sum_exp(rest)[..., None])
    return np.asarray(sigmoid(-phi(logits, labels)) * np.sqrt(1.0 + (q**2).sum(axis=-1)))


@logit_signal(direction=0, multi_label=True)
def canonical_logits(logits: Array, labels: Labels) -> Array:
    """Return the logits minus their mean, the true class first and the others in descending order, (..., C).

    Invariant to a shift of all logits and to the order of the other classes, so that classes can share an attack
    model. Centered by the mean, not by logsumexp, which follows the largest logit and would flatten it to 0. Of
    multi-label targets the signed log-odds in descending order.
    """
    if is_multi_label(logits, labels):
        return np.asarray(-np.sort(-signed_log_odds(logits, labels), axis=-1))
    centered = logits - logits.mean(axis=-1, keepdims=True)
    descending = -np.sort(-other_logits(centered, labels), axis=-1)[..., :-1]  # the true class, at -inf, is the last
    return np.concatenate([label_logit(centered, labels)[..., None], descending], axis=-1)
