"""What a statistical assessment of scores holds: plain data that travels from the statistics to the report.

Everything is about records of known membership; nothing here computes, plots or writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

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
    """(N,) classes, where they are known."""

    source: str
    """Where they came from, for messages; a file's name without its folder."""
