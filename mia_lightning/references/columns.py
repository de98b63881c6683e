"""From the target's outputs and the store of references to evidence, columns and a check of fidelity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores import ReferenceScore


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
            found = score.columns(reference_outputs)
        except MIAError as error:
            raise MIAError(f"score {name!r}: {error}") from error
        for suffix, values in found.items():
            if values.shape != (len(reference_outputs),) or not np.isfinite(values).all():
                raise MIAError(f"score {name!r} gave a column {suffix!r} that is not finite, or not one per record")
            columns[f"{name}_{suffix}" if suffix else name] = values
    return columns
