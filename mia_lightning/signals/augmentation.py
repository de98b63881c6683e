"""Statistics of the target's outputs over several views of a record, (N,); query 0 is the stored image.

After Choquette-Choo et al. 2021 ("Label-Only Membership Inference Attacks"): outputs on a training record are stable
over the augmentations of the training.
"""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals.base import signal
from mia_lightning.signals.functional import Array


@signal(direction=1, per_query=False, multi_label=True)
def phi_queries(outputs: Outputs) -> Array:
    """Return phi of each query side by side, (N, Q)."""
    return _phi(outputs)


@signal(direction=1, per_query=False, multi_label=True)
def phi_original(outputs: Outputs) -> Array:
    """Return phi of the stored image."""
    return _phi(outputs)[:, 0]


@signal(direction=1, per_query=False, multi_label=True)
def phi_mean(outputs: Outputs) -> Array:
    """Return the mean of phi over the queries."""
    return np.asarray(_phi(outputs).mean(axis=1))


@signal(direction=0, per_query=False, multi_label=True)
def phi_std(outputs: Outputs) -> Array:
    """Return the standard deviation of phi over the queries (divided by Q), in [0, inf); 0 with one query."""
    return np.asarray(_phi(outputs).std(axis=1))


@signal(direction=1, per_query=False, multi_label=True)
def phi_min(outputs: Outputs) -> Array:
    """Return the smallest phi over the queries."""
    return np.asarray(_phi(outputs).min(axis=1))


@signal(direction=1, per_query=False, multi_label=True)
def phi_max(outputs: Outputs) -> Array:
    """Return the largest phi over the queries."""
    return np.asarray(_phi(outputs).max(axis=1))


@signal(direction=1, per_query=False, multi_label=True)
def phi_contrast(outputs: Outputs) -> Array:
    """Return the mean phi of the image and its mirror minus that of the shifted views; 0 where no query is shifted.

    A training that mirrors but does not shift fits the exact pixels and not their neighbors, and leaves this trace.
    """
    return _contrast(_phi(outputs))


@signal(direction=0, per_query=False, multi_label=True)
def canonical_contrast(outputs: Outputs) -> Array:
    """Return the contrast of `phi_contrast` for the canonical logits, (N, C)."""
    return _contrast(_canonical_logits(outputs))


@signal(direction=0, per_query=False, multi_label=True)
def shifted_logits(outputs: Outputs) -> Array:
    """Return the mean canonical logits over the shifted views alone, (N, C); zeros where no query is shifted.

    They measure the difficulty of the record without its stored pixels, as an input from which `QuantileRegression`
    predicts `phi_original`.
    """
    values = _canonical_logits(outputs)
    unshifted = _unshifted(values.shape[1])
    return np.asarray(values[:, ~unshifted].mean(axis=1)) if not unshifted.all() else np.zeros_like(values[:, 0])


@signal(direction=1, per_query=False)
def label_agreement(outputs: Outputs) -> Array:
    """Return the share of the queries whose predicted class is that of the stored image, in [1/Q, 1]; 1 with one query.

    Agreement with the prediction, not with the label: stability apart from correctness, which is the signal
    `is_correct`.
    """
    predicted = outputs.logits.argmax(axis=-1)
    return np.asarray((predicted == predicted[:, :1]).mean(axis=1))


def _contrast(values: Array) -> Array:
    """Return the mean of (N, Q, …) values over the unshifted queries minus that over the shifted ones.

    The unshifted ones are the first of either half: query sets list the mirrored views last.
    """
    unshifted = _unshifted(values.shape[1])
    if unshifted.all():
        return np.zeros_like(values[:, 0])
    return np.asarray(values[:, unshifted].mean(axis=1) - values[:, ~unshifted].mean(axis=1))


def _unshifted(queries: int) -> NDArray[np.bool_]:
    """Return which queries are the stored image or its mirror image, (Q,)."""
    unshifted = np.zeros(queries, dtype=bool)
    unshifted[[0, queries // 2]] = True
    return unshifted


def _phi(outputs: Outputs) -> Array:
    return F.phi(outputs.logits.astype(np.float64), outputs.labels[:, None])


def _canonical_logits(outputs: Outputs) -> Array:
    return F.canonical_logits(outputs.logits.astype(np.float64), outputs.labels[:, None])
