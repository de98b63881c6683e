"""Probabilities of the true class from phi, and their mean over references."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.moments import Array, Mask, log_mean_exp

LOWEST = -600.0
"""phi below which a probability is close to the smallest number, and its logarithm is taken instead."""


def log_probability(phi: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Array:
    """Return log p_y = -softplus(-phi), in float64."""
    return -np.logaddexp(0.0, -phi.astype(np.float64))


def log_mean_probability(phi: NDArray[np.floating], shown: Mask) -> tuple[Array, Array]:
    """Return log mean_k p_k over the references shown, (n, Q), and p_k / mean p, mean over queries, (K, n)."""
    if phi.min(initial=0.0) < LOWEST:
        log_p = log_probability(phi)
        log_mean = log_mean_exp(log_p, shown[..., None])
        return log_mean, np.exp(np.minimum(log_p - log_mean, 300.0)).mean(axis=-1)  # no square may overflow
    p = np.negative(phi, dtype=np.float64)
    np.exp(np.minimum(p, 700.0, out=p), out=p)
    p += 1.0
    np.reciprocal(p, out=p)
    mean = np.einsum("knq,kn->nq", p, shown.astype(np.float64)) / np.maximum(shown.sum(axis=0), 1)[:, None]
    p /= mean
    return np.log(mean), p[..., 0] if p.shape[-1] == 1 else p.mean(axis=-1)
