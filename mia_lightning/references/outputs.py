"""phi of all records from target and references."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError


@dataclass(frozen=True, eq=False)
class ReferenceOutputs:
    """phi of N records under Q queries, from the target and K reference models; no membership of the target."""

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
    """(K, N) False where `keep` followed from known membership instead of chance, so that the reference must not be
    used for the record. None = all were drawn."""

    def __len__(self) -> int:
        return len(self.labels)

    def in_out_masks(self, records: slice) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which references are IN and which are OUT of each record of a block, (K, n) each."""
        keep = self.keep[:, records]
        if self.drawn is None:
            return keep, ~keep
        drawn = self.drawn[:, records]
        return keep & drawn, ~keep & drawn

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(N,) whether any reference was drawn IN or OUT of the record."""
        return np.ones(len(self), bool) if self.drawn is None else np.asarray(self.drawn.any(axis=0), bool)

    def require_covered(self) -> None:
        """Raise MIAError where a record has no reference drawn IN or OUT, for which no score is defined."""
        if missing := int((~self.covered).sum()):
            raise MIAError(
                f"{missing:,} of {len(self):,} records have no reference drawn IN or OUT; leave them out (`covered`)"
            )

    def content_order(self) -> NDArray[np.intp]:
        """Return an order of the records, (N,), that follows from labels and the target's phi, not from position."""
        return np.lexsort([self.labels, *self.target.T[:4]])

    def models(self, index: slice | NDArray[np.int64]) -> "ReferenceOutputs":
        """Return some of the references; a slice of them is no copy."""
        drawn = None if self.drawn is None else self.drawn[index]
        return replace(self, references=self.references[index], keep=self.keep[index], drawn=drawn)

    def records(self, index: NDArray[np.integer]) -> "ReferenceOutputs":
        """Return some of the records, copied into memory."""
        return ReferenceOutputs(
            target=self.target[index],
            references=self.references[:, index],
            keep=self.keep[:, index],
            labels=self.labels[index],
            num_classes=self.num_classes,
            drawn=None if self.drawn is None else self.drawn[:, index],
        )
