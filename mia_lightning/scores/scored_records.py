"""Scores of records of known membership, the input of a statistical assessment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ScoredRecords:
    """Scores of one or many attacks on the same records."""

    ids: NDArray[np.int64] | NDArray[np.str_]
    """(N,) unique."""

    membership: NDArray[np.int8]
    """(N,) 1 or 0."""

    scores: Mapping[str, NDArray[np.float64]]
    """Attack to (N,) finite scores, higher = more likely a member."""

    labels: NDArray[np.int64] | None
    """(N,) classes, if available."""

    source: str
    """Origin of the scores, for messages; a file's name without its folder."""

    groups: NDArray[np.generic] | None = None
    """(N,) group of each record (a person, near duplicates); None = independent records."""

    stability: Mapping[str, float | None] = field(default_factory=dict)
    """Attack to `CrossFit.stability`, for out-of-fold scores of attacks that were fitted; others are fixed scores."""
