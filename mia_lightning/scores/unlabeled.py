"""Files of scores of records of unknown membership."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.metrics.ranks import Array
from mia_lightning.records.column_mapping import find_columns
from mia_lightning.records.table_columns import group_column, id_column, number_column
from mia_lightning.scores.keys import MEANINGS, read_scores_table


def read_unlabeled(path: str | Path, attack: str) -> tuple[Array, NDArray[np.generic] | None]:
    """Return the scores (M,) of an attack, or of the column score, and the groups (M,) where there are any.

    Raises:
        MIAError: the file cannot be read, or has neither column; a score is NaN, infinite or text.
    """
    table = read_scores_table(path)
    name = table.find(attack) or table.find("score")
    if name is None:
        raise MIAError(
            f"{table.source}: has no column {printable(attack, 40)!r} or score; give the scores of the primary attack"
        )
    meanings = find_columns(table.names, table.source, None, MEANINGS)
    ids = id_column(table, meanings.get("id"))
    return number_column(table, name), group_column(table, meanings.get("group"), ids)
