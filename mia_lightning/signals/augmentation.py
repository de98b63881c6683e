"""What the target's answers to several views of a record say together, (N,); query 0 is the stored image.

The idea of Choquette-Choo et al. 2021 ("Label-Only Membership Inference Attacks"): a record that was trained on is
answered steadily over the views that training drew.
"""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import functional as F
from mia_lightning.signals._views import query_logits
from mia_lightning.signals.base import signal
from mia_lightning.signals.functional import Array


@signal(direction=1, per_query=False)
def phi_queries(outputs: Outputs) -> Array:
    """Phi of each query side by side, (N, Q)."""
    return _phi(outputs)


@signal(direction=1, per_query=False)
def phi_original(outputs: Outputs) -> Array:
    """Phi of the stored image alone."""
    return _phi(outputs)[:, 0]


@signal(direction=1, per_query=False)
def phi_mean(outputs: Outputs) -> Array:
    """Mean of phi over the queries."""
    return np.asarray(_phi(outputs).mean(axis=1))


@signal(direction=0, per_query=False)
def phi_std(outputs: Outputs) -> Array:
    """Standard deviation of phi over the queries (divided by Q), in [0, inf); 0 with one query."""
    return np.asarray(_phi(outputs).std(axis=1))


@signal(direction=1, per_query=False)
def phi_min(outputs: Outputs) -> Array:
    """Smallest phi over the queries."""
    return np.asarray(_phi(outputs).min(axis=1))


@signal(direction=1, per_query=False)
def phi_max(outputs: Outputs) -> Array:
    """Largest phi over the queries."""
    return np.asarray(_phi(outputs).max(axis=1))


@signal(direction=1, per_query=False)
def phi_contrast(outputs: Outputs) -> Array:
    """Mean phi of the image and its mirror minus that of the shifted views; 0 where no query is shifted.

    Training that mirrors but does not shift fits the very pixels and not their neighbors, and leaves this trace.
    """
    return _contrast(_phi(outputs))


@signal(direction=0, per_query=False)
def canonical_contrast(outputs: Outputs) -> Array:
    """The same contrast of the canonical logits, (N, C)."""
    return _contrast(F.canonical_logits(*query_logits(outputs)))


@signal(direction=0, per_query=False)
def shifted_logits(outputs: Outputs) -> Array:
    """Mean canonical logits over the shifted views alone, (N, C); zeros where no query is shifted.

    They tell how hard the record is without having seen its stored pixels: what `QuantileRegression` can
    predict `phi_original` from.
    """
    values = F.canonical_logits(*query_logits(outputs))
    unshifted = _unshifted(values.shape[1])
    return np.asarray(values[:, ~unshifted].mean(axis=1)) if not unshifted.all() else np.zeros_like(values[:, 0])


@signal(direction=1, per_query=False)
def label_agreement(outputs: Outputs) -> Array:
    """Share of the queries whose predicted class is that of the stored image, in [1/Q, 1]; 1 with one query.

    Agreement with the prediction, not with the label: steadiness apart from correctness, which is a signal of its own.
    """
    predicted = outputs.logits.argmax(axis=-1)
    return np.asarray((predicted == predicted[:, :1]).mean(axis=1))


def _contrast(values: Array) -> Array:
    """Return the mean of (N, Q, …) values over the unshifted queries minus that over the others.

    The unshifted ones are the first of either half: the query sets put the mirrored views last.
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
    return F.phi(*query_logits(outputs))
