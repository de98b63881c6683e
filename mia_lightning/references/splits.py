"""Random assignment of training records to references, independent of membership in the target's training."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.duplicates import pixel_hashes
from mia_lightning.records.records import UNKNOWN, Records

Scheme = Literal["balanced", "bernoulli", "anchored"]


@dataclass(frozen=True, eq=False)
class Assignment:
    """Training records of K references; a row depends on the seed and its number alone, so that more can be added."""

    keep: NDArray[np.bool_]
    """(K, N) True where the reference is trained on the record."""

    drawn: NDArray[np.bool_]
    """(K, N) True where that was drawn at random; False where it followed from known membership, so that the reference
    must not be used for the record."""


def content_order(public: Records, private: Records | None) -> NDArray[np.intp]:
    """Return an order of the records, (N,) positions, public first, by pixels, label and id instead of position.

    With it, draws and trainings of a sorted and of a shuffled copy of the records are the same.
    """
    halves = [half for half in (public, private) if half is not None]
    starts = np.cumsum([0, *(len(half) for half in halves)])
    orders = [np.lexsort([half.ids, half.labels, pixel_hashes(half.images)]) for half in halves]
    return np.concatenate([start + order for start, order in zip(starts, orders, strict=False)])


def assign(
    scheme: Scheme,
    count: int,
    membership: NDArray[np.int8],
    *,
    private: int,
    seed: int,
    released: float = 0.25,
    order: NDArray[np.intp] | None = None,
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
        order: (N,) from `content_order`; with it the draws of a record do not depend on its position.

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
    order = np.arange(n) if order is None else order
    keep, drawn = np.empty((count, n), bool), np.ones((count, n), bool)
    labeled = order[(membership[order] != UNKNOWN) & (order < n - private)]
    for k in range(count):
        if scheme == "balanced":
            half = np.random.default_rng((seed, 1, k // 2)).permutation(n) < n // 2
            keep[k, order] = half if k % 2 == 0 else ~half
            continue
        draw = np.random.default_rng((seed, 2, k))
        keep[k, order] = draw.random(n) < 0.5
        if scheme == "anchored":
            fixed = labeled[draw.random(len(labeled)) >= released]
            keep[k, fixed] = membership[fixed] == 1
            drawn[k, fixed] = False
    return Assignment(keep, drawn)
