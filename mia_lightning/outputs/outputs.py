"""Outputs of a target on all records."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDER_LOGITS = 4
"""Logits that `Outputs.content_order` compares at most."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs on N records under Q queries (views), in the order of the records."""

    logits: NDArray[np.float32]
    """(N, Q, C) raw logits, cast up to float32 whatever precision the network ran in; query 0 is the stored image."""

    features: NDArray[np.float32]
    """(N, D) penultimate features of the stored image (query 0); D = 0 if the target has none."""

    gradient_norms: NDArray[np.float32]
    """(N, G) per-record gradient norms of query 0 (see extraction); G = 0 without --extraction.gradients."""

    labels: NDArray[np.int64]
    """(N,) class indices, or (N, C) of 0 and 1 for multi-label targets; where missing, as predicted for query 0."""

    def content_order(self) -> NDArray[np.intp]:
        """Return an order of the records, (N,), that follows from labels and logits, not from their position."""
        return np.lexsort([*np.atleast_2d(self.labels.T), *self.logits[:, 0, :ORDER_LOGITS].T])

    @property
    def is_multi_label(self) -> bool:
        """Whether each record has C labels instead of one of C classes."""
        return self.labels.ndim == 2

    @property
    def class_indices(self) -> NDArray[np.int64]:
        """(N,) class indices, for attacks that distinguish classes; all 0 for multi-label targets."""
        return np.zeros(len(self.labels), np.int64) if self.is_multi_label else self.labels

    @property
    def num_classes(self) -> int:
        """Number of classes of the target."""
        return int(self.logits.shape[2])
