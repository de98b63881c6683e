"""Random assignment of training records to references, independent of membership in the target's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.records import UNKNOWN

Scheme = Literal["balanced", "bernoulli", "anchored"]


@dataclass(frozen=True, eq=False)
class Assignment:
    """Training records of K references; a row depends on the seed and its number alone, so that more can be added."""

    keep: NDArray[np.bool_]
    """(K, N) True where the reference is trained on the record."""

    drawn: NDArray[np.bool_]
    """(K, N) True where that was drawn at random; False where it followed from known membership, so that the reference
    must not be used for the record."""


def assign(
    scheme: Scheme, count: int, membership: NDArray[np.int8], *, private: int, seed: int, released: float = 0.25
) -> Assignment:
    """Draw the records of `count` references.

    balanced: random halves in complementary pairs, so that with an even count each record is IN exactly half of the
    references. bernoulli: independent Bernoulli(1/2) draws. anchored: every public member is IN and every public
    non-member OUT except for a share of public records, drawn again for each reference; these, the private records
    and those of unknown membership are Bernoulli(1/2) draws.

    Args:
        scheme: One of the three.
        count: K, at least 1.
        membership: (N,) of all records, public first: 1, 0 or -1. Read by anchored only, and there for public records.
        private: Number of private records, the last ones; their membership is never read.
        seed: Drives every draw.
        released: anchored: share of the public records that each reference draws with probability 1/2.

    Raises:
        MIAError: fewer references than the scheme can work with.
    """
    n = len(membership)
    if scheme == "anchored" and count * released < 4:
        raise MIAError(
            f"{count} anchored references with a released share of {released:g} score a public record by "
            f"{count * released:g} references on average; at least 4 are needed: raise --references.count to "
            f"{int(np.ceil(4 / released))} or --references.anchored_release, or use --references.scheme balanced"
        )
    keep, drawn = np.empty((count, n), bool), np.ones((count, n), bool)
    labeled = np.flatnonzero(membership[: n - private] != UNKNOWN)
    for k in range(count):
        if scheme == "balanced":
            half = np.random.default_rng((seed, 1, k // 2)).permutation(n) < n // 2
            keep[k] = half if k % 2 == 0 else ~half
            continue
        draw = np.random.default_rng((seed, 2, k))
        keep[k] = draw.random(n) < 0.5
        if scheme == "anchored":
            fixed = labeled[draw.random(len(labeled)) >= released]
            keep[k, fixed] = membership[fixed] == 1
            drawn[k, fixed] = False
    return Assignment(keep, drawn)
