"""Probabilities of the true class from phi, and their mean over references."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.moments import Array, Mask, log_mean_exp

LOWEST = -600.0
"""phi below which a probability is close to the smallest number, and its logarithm is taken instead."""

HIGHEST = 300.0
"""Largest logarithm of a relative probability, whose square does not overflow."""


def log_probability(phi: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Array:
    """Return log p_y = -softplus(-phi), in float64."""
    size = np.abs(phi, dtype=np.float64)
    np.negative(size, out=size)
    return np.asarray(np.minimum(phi, 0.0) - np.log1p(np.exp(size, out=size), out=size))


class Probabilities:
    """p_y of the references on a block of records, computed once for all means.

    Args:
        phi: (K, n, Q).
    """

    def __init__(self, phi: NDArray[np.floating]) -> None:
        self.values: Array | None = None
        if phi.min(initial=0.0) < LOWEST:
            self.logs = log_probability(phi)
            return
        self.values = np.negative(phi, dtype=np.float64)
        np.exp(np.minimum(self.values, 700.0, out=self.values), out=self.values)
        self.values += 1.0
        np.reciprocal(self.values, out=self.values)

    def log_mean(self, mask: Mask) -> Array:
        """Return log mean_k p_k over the references of a mask (K, n), as (n, Q); -inf where there are none."""
        if self.values is None:
            return log_mean_exp(self.logs, mask[..., None])
        total = np.einsum("knq,kn->nq", self.values, mask.astype(np.float64))
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(total / np.maximum(mask.sum(axis=0), 1)[:, None]))

    def relative(self, log_mean: Array) -> Array:
        """Return p_k / mean p, mean over the queries, (K, n)."""
        if self.values is None:
            parts = np.exp(np.minimum(self.logs - log_mean, HIGHEST))
        else:
            parts = np.minimum(self.values * np.exp(-log_mean), np.exp(HIGHEST))
        return np.asarray(parts[..., 0] if parts.shape[-1] == 1 else parts.mean(axis=-1))
