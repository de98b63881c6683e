"""Features of a table: their names, the texts that columns of text stand for, and DataFrames of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable

if TYPE_CHECKING:
    import pandas as pd

Categories = Mapping[str, tuple[str, ...]]
"""Column of text to its distinct texts; the inputs hold their positions, NaN where a text is missing."""


@dataclass(frozen=True)
class Features:
    """Columns of a table (N, features), float64."""

    names: tuple[str, ...]
    categories: Categories = field(default_factory=dict)

    dtypes: Mapping[str, Any] = field(default_factory=dict)
    """pandas' dtype of each column, of a DataFrame in memory."""

    in_memory: bool = False
    """Whether the table is an object of the user's program, to which `--data.columns` does not apply."""

    def frame(self, rows: NDArray[Any], *, categorical: bool = False) -> pd.DataFrame:
        """Return rows (N, features) as a DataFrame, with text where columns hold text.

        Args:
            rows: Positions of texts may be off their grid, as views are; the nearest is taken.
            categorical: Whether text has pandas' dtype `category`.
        """
        import pandas as pd

        columns: dict[str, Any] = {}
        for index, name in enumerate(self.names):
            values, texts = rows[:, index], self.categories.get(name)
            if texts is not None:
                codes = np.rint(np.where(np.isnan(values), -1, np.clip(values, 0, len(texts) - 1))).astype(np.intp)
                values = np.array([*texts, np.nan], dtype=object)[codes]
            columns[name] = pd.Series(values)
            if categorical and texts is not None:
                columns[name] = columns[name].astype(pd.CategoricalDtype(list(texts)))
            elif name in self.dtypes and (texts is not None or not np.isnan(rows[:, index]).any()):
                columns[name] = columns[name].astype(self.dtypes[name])
        return pd.DataFrame(columns)

    def encode(self, columns: Sequence[str]) -> str:
        """Return what to do about columns that a target does not take, for the end of a sentence."""
        if self.in_memory:
            return "encode or fill it in as the model's training did, or drop it"
        ignored = ", ".join(f"{printable(name, 60)}: ignore" for name in columns)
        return f"encode or fill it in as the model's training did, or leave it out: --data.columns '{{{ignored}}}'"


def coded(texts: Sequence[str | None]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return positions (N,) in the sorted distinct texts, NaN where a text is None, and these texts."""
    names = sorted({text for text in texts if text is not None})
    position = {text: float(index) for index, text in enumerate(names)}
    return np.array([np.nan if text is None else position[text] for text in texts]), tuple(names)


def recoded(
    parts: Sequence[NDArray[Any]], names: Sequence[str], given: Sequence[Categories], sources: Sequence[str]
) -> tuple[list[NDArray[Any]], Categories]:
    """Return several tables of the same columns with one coding of their texts, which is that of all.

    Args:
        parts: (N, features) each.
        names: Of the columns.
        given: Categories of each part.
        sources: Name of each part, for messages.

    Raises:
        MIAError: a column holds numbers in one table and text in another.
    """
    union: dict[str, tuple[str, ...]] = {}
    results = [part.astype(np.float64) if any(given) else part for part in parts]
    for index, name in enumerate(names):
        holders = [source for source, categories in zip(sources, given, strict=True) if name in categories]
        if holders and len(holders) < len(given):
            rest = next(source for source in sources if source not in holders)
            raise MIAError(
                f"column {printable(name, 40)!r} holds text in {holders[0]} but numbers in {rest}; give both one type"
            )
        if not holders:
            continue
        union[name] = tuple(sorted({text for categories in given for text in categories[name]}))
        for values, categories in zip(results, given, strict=True):
            codes = np.array([*map(union[name].index, categories[name]), np.nan])
            values[:, index] = codes[np.where(np.isnan(values[:, index]), -1, values[:, index]).astype(np.intp)]
    return results, union
