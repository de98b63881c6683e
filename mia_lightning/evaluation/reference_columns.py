"""Columns of reference models for the column audit, with the target's own outputs taken out."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores import ReferenceScore

MOST_ROWS = 10_000
"""Most records that the audit reads."""


def reference_columns(
    scores: Mapping[str, ReferenceScore], outputs: ReferenceOutputs, rows: NDArray[np.integer], *, seed: int
) -> tuple[NDArray[np.integer], dict[str, NDArray[np.float64]]]:
    """Return the audited rows, and columns on them that should not depend on membership.

    IN flags of each reference and their count, over the records that the reference drew at random; and every column of
    every score with the target's phi exchanged between records at random, so that nothing but references, flags and
    counts is left in it.

    Args:
        scores: Name to reference score.
        outputs: phi of N records under the target and K references.
        rows: (M,) rows of known membership, in an order that follows from their content alone.
        seed: Random seed of sample and exchange.
    """
    rng = np.random.default_rng(seed)
    if len(rows) > MOST_ROWS:
        rows = rng.choice(rows, MOST_ROWS, replace=False)
    keep = outputs.keep[:, rows]
    drawn = np.ones_like(keep) if outputs.drawn is None else outputs.drawn[:, rows]
    columns = {
        f"reference {index}, IN": np.where(drawn[index], keep[index], np.nan).astype(np.float64)
        for index in range(len(keep))
    }
    columns["references IN"] = (keep & drawn).sum(axis=0).astype(np.float64)
    exchanged = replace(outputs.records(rows), target=outputs.target[rng.permutation(rows)])
    for name, score in scores.items():
        try:
            values = score.columns(exchanged)
        except MIAError:  # too few references or records for this score
            continue
        columns |= {
            f"{name}{suffix}, target exchanged": np.asarray(column, dtype=np.float64)
            for suffix, column in values.items()
        }
    return rows, columns
