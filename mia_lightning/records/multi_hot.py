"""Labels of multi-label records: a 0 or 1 for each of C labels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.values import Values

ONE_HOT = "read as class numbers"


def multi_hot_column(
    values: Values | None, name: str, notes: list[str], *, several: bool = False
) -> NDArray[np.int64] | None:
    """Return labels (N, C) of 0 and 1, None where each record has one class.

    Args:
        values: Labels of any form.
        name: Of the source, for messages.
        notes: Extended.
        several: Whether one-hot labels are independent too, as those of several columns of a table.

    Raises:
        MIAError: a matrix of other values.
    """
    if (matrix := numeric_matrix(values)) is None or (is_one_hot(matrix) and not several):
        return None
    if not (valid := np.isin(matrix, (0, 1))).all():
        row, column = np.argwhere(~valid)[0]
        raise MIAError(
            f"{name}: label {column} of record {row} is {matrix[row, column]:g}, not one-hot; give one class per "
            f"record, or 0 or 1 for each of the {matrix.shape[1]} labels"
        )
    notes.append(
        f"{name}: labels are multi-label, {matrix.shape[1]} per record of which {matrix.mean() * matrix.shape[1]:.2g} "
        "are 1 on average; phi is the sum over the labels of their signed log-odds"
    )
    return matrix.astype(np.int64)


def numeric_matrix(values: Values | None) -> NDArray[Any] | None:
    """Return labels (N, C), C at least 2, as an array; None for other forms."""
    if isinstance(values, list | tuple) and values and all(isinstance(item, list) for item in values):
        alike = len({len(item) for item in values}) == 1
        if alike and all(isinstance(cell, int | float) for item in values for cell in item):
            values = np.array(values, dtype=np.float64)
    is_matrix = isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] > 1
    return values if isinstance(values, np.ndarray) and is_matrix and values.dtype.kind in "biuf" else None


def is_one_hot(matrix: NDArray[Any]) -> bool:
    """Whether each row (N, C) has a single 1 among zeros."""
    return bool(np.isin(matrix, (0, 1)).all() and (matrix.astype(np.float64).sum(axis=1) == 1).all())


def label_array(records: Records) -> NDArray[np.int64]:
    """Return classes (N,), or multi-hot labels (N, C); -1 where missing."""
    if records.multi_hot is None:
        return records.labels
    return np.where(records.labels[:, None] == UNKNOWN, UNKNOWN, records.multi_hot)
