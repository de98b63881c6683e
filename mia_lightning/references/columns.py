"""Columns of reference scores, by name."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores import Columns, ReferenceScore


def reference_columns(
    scores: Mapping[str, ReferenceScore], reference_outputs: ReferenceOutputs
) -> dict[str, NDArray[np.float64]]:
    """Return the columns of all scores: NAME for the score itself, NAME_suffix for what comes with it.

    Raises:
        MIAError: a score that the references are too few for, or columns that are not finite.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    for name, score in scores.items():
        try:
            by_suffix = score_columns(score, reference_outputs)
        except MIAError as error:
            raise MIAError(f"score {name!r}: {error}") from error
        for suffix, values in by_suffix.items():
            if values.shape != (len(reference_outputs),) or not np.isfinite(values).all():
                raise MIAError(f"score {name!r} gave a column {suffix!r} that is not finite, or not one per record")
            columns[f"{name}_{suffix}" if suffix else name] = values
    return columns


def score_columns(score: ReferenceScore, reference_outputs: ReferenceOutputs) -> Columns:
    """Return the columns of a score for all records, (N,) each, by suffix.

    Records without any reference drawn IN or OUT are left out of the score and get the median of every column, which
    ranks them neither up nor down; their p-value is 1.

    Raises:
        MIAError: a score that the references are too few for.
    """
    covered = reference_outputs.covered
    if covered.all():
        return score.columns(reference_outputs)
    if not covered.any():
        raise MIAError("no record has a reference drawn IN or OUT; train or import references")
    columns: Columns = {}
    for suffix, values in score.columns(reference_outputs.records(np.flatnonzero(covered))).items():
        column = np.full(len(covered), 1.0 if suffix == "p_value" else np.median(values))
        column[covered] = values
        columns[suffix] = column
    return columns
