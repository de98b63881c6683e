"""Folds and hold-out, by record or by group."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError

NOT_IN_ANY_FOLD = -1


def assign_folds(
    member: NDArray[np.int8],
    *,
    folds: int,
    seed: int,
    groups: NDArray[np.generic] | None = None,
    order: NDArray[np.intp] | None = None,
) -> NDArray[np.int8]:
    """Assign the rows of known membership to folds, stratified by membership alone.

    Strata of class and membership would give every held-out fold the member share that each class has in the fitting
    folds: an attack that reads the class could predict membership from it. Fold sizes differ by at most one, and so do
    the members per fold; with groups they differ by what whole groups allow.

    Args:
        member: (N,) 1, 0 or -1 = unknown.
        folds: Number of folds, at least 2.
        seed: Seed of the shuffle.
        groups: (N,) group of each row (a person, a near-duplicate cluster): a group stays in one fold.
        order: (N,) order of the rows by content; with it the fold of a record does not depend on its position.

    Returns:
        (N,) fold from 0, or -1 where membership is unknown.

    Raises:
        MIAError: fewer members or non-members, or fewer groups of either, than folds.
    """
    rows = np.flatnonzero(member >= 0)
    units = np.arange(len(rows)) if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    for value, name in ((1, "members"), (0, "non-members")):
        if (count := len(np.unique(units[member[rows] == value]))) < folds:
            unit = name if groups is None else f"groups of {name}"
            fewer = f"lower --evaluation.folds to {count}, or " if count > 1 else ""
            raise MIAError(
                f"the public records hold {count} known {unit}, fewer than the {folds} folds; "
                f"{fewer}give more records of known membership"
            )
    fold = np.full(len(member), NOT_IN_ANY_FOLD, dtype=np.int8)
    shuffle = _random_numbers(np.random.default_rng(seed), len(member), order)
    if groups is None:
        order = rows[np.lexsort((shuffle[rows], member[rows]))]
        fold[order] = np.arange(len(order)) % folds
    else:
        fold[rows] = _assign_groups(units, member[rows], np.full(folds, 1 / folds), shuffle[rows])
    return fold


def draw_holdout(
    member: NDArray[np.int8],
    *,
    share: float,
    seed: int,
    groups: NDArray[np.generic] | None = None,
    order: NDArray[np.intp] | None = None,
) -> NDArray[np.bool_]:
    """Draw the held-out rows, which no fold contains, stratified by membership alone.

    Args:
        member: (N,) 1, 0 or -1 = unknown; rows of unknown membership are never drawn.
        share: In [0, 1), of the rows of known membership; met to within one row among members and non-members.
        seed: Seed of the draw.
        groups: (N,) group of each row; a group is held out completely or not at all, so the share is approximate.
        order: (N,) order of the rows by content; with it the draw of a record does not depend on its position.

    Returns:
        (N,) True where a row is held out.
    """
    held = np.zeros(len(member), dtype=np.bool_)
    rng = np.random.default_rng((seed, 1))  # a different stream from that of the folds
    shuffle = _random_numbers(rng, len(member), order)
    rows = np.flatnonzero(member >= 0)
    if groups is not None and share > 0:
        units = np.unique(groups[rows], return_inverse=True)[1]
        held[rows] = _assign_groups(units, member[rows], np.array([share, 1 - share]), shuffle[rows]) == 0
        return held
    order = rows[np.lexsort((shuffle[rows], member[rows]))]
    steps = np.floor(np.arange(len(order) + 1) * share)
    held[order[np.diff(steps) > 0]] = True
    return held


def _random_numbers(rng: np.random.Generator, count: int, order: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """Return uniform random numbers, (N,), drawn in the given order of the rows."""
    numbers = np.empty(count)
    numbers[slice(None) if order is None else order] = rng.random(count)
    return numbers


def _assign_groups(
    units: NDArray[np.intp], member: NDArray[np.int8], shares: NDArray[np.float64], shuffle: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Return a part, (N,), for each row: whole groups, largest first, to the part that has least of what they hold.

    Args:
        units: (N,) group from 0.
        member: (N,) 1 or 0.
        shares: (parts,) share of the members and of the non-members that each part should get; sums to 1.
        shuffle: (N,) random numbers that order groups of equal size.
    """
    counts = np.stack([np.bincount(units[member == side], minlength=units.max() + 1) for side in (0, 1)], axis=1)
    shares_of_group = counts / counts.sum(axis=0)
    tie_break = np.zeros(len(counts))
    tie_break[units] = shuffle
    filled = np.zeros((len(shares), 2))
    part = np.empty(len(counts), dtype=np.int8)
    for group in np.lexsort((tie_break, -counts.sum(axis=1))):
        after = (filled + shares_of_group[group] / 2) / shares[:, None]
        part[group] = np.argmin(after @ shares_of_group[group])
        filled[part[group]] += shares_of_group[group]
    return part[units]
