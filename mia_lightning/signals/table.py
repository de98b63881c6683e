"""Table of signals, the input of attacks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, suggest

ORDER_COLUMNS = 8
"""Columns that `SignalTable.content_order` compares at most."""


@dataclass(frozen=True, eq=False)
class SignalTable:
    """Named per-record signals, an attack's only input: neither ids nor membership."""

    columns: Mapping[str, NDArray[np.floating]]
    """Name to (N,) or (N, width) array, float32 or float64, finite."""

    labels: NDArray[np.int64]
    """(N,) class indices."""

    num_classes: int
    """Number of classes of the target."""

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "SignalTable":
        """Return the table of the rows selected by an index or a mask."""
        selected = {name: column[index] for name, column in self.columns.items()}
        return replace(self, columns=selected, labels=self.labels[index])

    def content_order(self) -> NDArray[np.intp]:
        """Return an order of the rows, (N,), that follows from their content alone, not from their position.

        Rows are sorted by the first values of some columns, so that a shuffled copy of the records leads to the same
        folds and the same fits. Rows that agree in all of these stay in their order.
        """
        columns = [column.reshape(len(self), -1) for column in self.columns.values()]
        keys = [column[:, 0] for column in columns if column.shape[1]][:ORDER_COLUMNS]
        return np.lexsort([self.labels, *keys])

    def with_columns(self, columns: Mapping[str, NDArray[np.floating]]) -> "SignalTable":
        """Return a table with these columns added or replaced."""
        return replace(self, columns={**self.columns, **columns})

    def match(self, patterns: Iterable[str]) -> list[str]:
        """Return the names of the columns that names or shell patterns match, in the table's order.

        P-values and standard errors of reference scores depend on numbers of references, which a learned attack must
        not read by accident: only a pattern that ends as their names do picks them (`lira_p_value`,
        `*_standard_error`).

        Raises:
            MIAError: a pattern matches nothing.
        """
        patterns = list(patterns)
        for pattern in patterns:
            if not any(_picks(pattern, name) for name in self.columns):
                raise MIAError(f"no signal or earlier attack is named {pattern!r}; {suggest(pattern, self.columns)}")
        return [name for name in self.columns if any(_picks(pattern, name) for pattern in patterns)]

    def matrix(self, patterns: Iterable[str]) -> NDArray[np.float32]:
        """Return the matched columns side by side, (N, F) float32."""
        columns = [self.columns[name].reshape(len(self), -1) for name in self.match(patterns)]
        return np.concatenate(columns, axis=1, dtype=np.float32) if columns else np.empty((len(self), 0), np.float32)


DIAGNOSTICS = ("_p_value", "_standard_error")
"""Endings of columns that accompany a score."""


def _picks(pattern: str, name: str) -> bool:
    """Whether a name or shell pattern picks a column."""
    return fnmatchcase(name, pattern) and (pattern.endswith(DIAGNOSTICS) or not name.endswith(DIAGNOSTICS))
