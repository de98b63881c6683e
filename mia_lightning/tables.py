"""What travels between the stages to the right of the target: its outputs, and columns of signals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, suggest


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


@dataclass(frozen=True, eq=False)
class Evidence:
    """phi of N records under Q queries, from the target and from K reference models. Knows no membership."""

    target: NDArray[np.float32]
    """(N, Q) phi of the target; query 0 is the stored image."""

    references: NDArray[np.float32]
    """(K, N, Q) phi of the references under the same queries; often a memory map, so read it in blocks of records."""

    keep: NDArray[np.bool_]
    """(K, N) True where the reference was trained on the record (IN), False where it was not (OUT)."""

    labels: NDArray[np.int64]
    """(N,) class indices."""

    num_classes: int
    """Number of classes of the target."""

    drawn: NDArray[np.bool_] | None = None
    """(K, N) False where `keep` followed from known membership instead of chance: that reference says nothing usable
    about that record. None = all were drawn."""

    def __len__(self) -> int:
        return len(self.labels)

    def sides(self, records: slice) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which references are IN and which are OUT of each record of a block, (K, n) each."""
        keep = self.keep[:, records]
        if self.drawn is None:
            return keep, ~keep
        drawn = self.drawn[:, records]
        return keep & drawn, ~keep & drawn


@dataclass(frozen=True, eq=False)
class SignalTable:
    """Named per-record signals, the only thing an attack sees. Holds neither ids nor membership."""

    columns: Mapping[str, NDArray[np.floating]]
    """Name to (N,) or (N, width) array, float32 or float64, finite."""

    labels: NDArray[np.int64]
    """(N,) class indices."""

    num_classes: int
    """Number of classes of the target."""

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "SignalTable":
        """Return the table of the rows that an index or a mask picks."""
        picked = {name: column[index] for name, column in self.columns.items()}
        return replace(self, columns=picked, labels=self.labels[index])

    def with_columns(self, columns: Mapping[str, NDArray[np.floating]]) -> "SignalTable":
        """Return a table with these columns added or replaced."""
        return replace(self, columns={**self.columns, **columns})

    def match(self, patterns: Iterable[str]) -> list[str]:
        """Return the columns that the names or shell patterns pick, in the table's order.

        Raises:
            MIAError: a pattern picks nothing.
        """
        patterns = list(patterns)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.columns):
                raise MIAError(f"no signal or earlier attack is named {pattern!r}; {suggest(pattern, self.columns)}")
        return [name for name in self.columns if any(fnmatchcase(name, pattern) for pattern in patterns)]

    def matrix(self, patterns: Iterable[str]) -> NDArray[np.float32]:
        """Return the picked columns side by side, (N, F) float32."""
        columns = [self.columns[name].reshape(len(self), -1) for name in self.match(patterns)]
        return np.concatenate(columns, axis=1, dtype=np.float32) if columns else np.empty((len(self), 0), np.float32)
