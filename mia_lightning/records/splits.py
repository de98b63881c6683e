"""A value of the public split and one of the private split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, eq=False)
class Splits(Generic[T]):
    """Records of both splits, or one value per split; iteration is over the splits that exist, public first."""

    public: T
    """Of the records whose membership is known, to fit and evaluate on."""

    private: T | None = None
    """Of the records to be scored, if any."""

    def __iter__(self) -> Iterator[T]:
        yield self.public
        if self.private is not None:
            yield self.private

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield (name, value) of each split that exists."""
        return zip(("public", "private"), self, strict=False)

    def map(self, function: Callable[[T], U]) -> Splits[U]:
        """Return the function's value of each split."""
        return Splits(*(function(value) for value in self))

    def concatenate(self, array: Callable[[T], NDArray[Any]]) -> NDArray[Any]:
        """Return one array per split, along their first axis: (N + M, ...), public first."""
        return np.concatenate([array(value) for value in self])
