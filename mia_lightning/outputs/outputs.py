"""What travels between the stages to the right of the target: its outputs, and columns of signals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the target says of N records under Q queries. Row order is the order of the records."""

    logits: NDArray[np.float32]
    """(N, Q, C) raw logits, cast up to float32 whatever precision the network ran in; query 0 is the stored image."""

    features: NDArray[np.float32]
    """(N, D) penultimate features of the stored image (query 0); D = 0 where the target shows none."""

    gradient_norms: NDArray[np.float32]
    """(N, G) per-record gradient norms of query 0 (see extraction); G = 0 where they were not asked for."""

    labels: NDArray[np.int64]
    """(N,) class indices; where the source had none, the class the target predicts for query 0."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the target."""
        return int(self.logits.shape[2])
