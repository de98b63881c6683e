"""Counts over sorted scores, the basis of AUC and TPR at FPR.

A class's scores are ascending: members (P,), non-members (n,).
"""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError

Scores = NDArray[np.floating]
Membership = NDArray[np.integer] | NDArray[np.bool_]
Array = NDArray[np.float64]


def split(scores: Scores, member: Membership) -> tuple[Array, Array]:
    """Return members' and non-members' scores, each ascending, float64.

    Raises:
        MIAError: lengths differ, a score is NaN or infinite, membership is not 0 and 1, or a class is empty.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != member.shape:
        raise MIAError(
            f"scores have shape {scores.shape} and membership {member.shape}; expected one of each per record"
        )
    if not_finite := int((~np.isfinite(scores)).sum()):
        raise MIAError(f"{not_finite} of {len(scores)} scores are NaN or infinite; they cannot be ranked")
    members, non_members = scores[member == 1], scores[member == 0]
    if len(members) + len(non_members) < len(scores):
        raise MIAError("membership holds values other than 0 and 1; leave out records of unknown membership")
    if not len(members) or not len(non_members):
        raise MIAError(f"found {len(members)} members and {len(non_members)} non-members; figures need both")
    return np.sort(members), np.sort(non_members)


def split_groups(
    scores: Scores, member: Membership, groups: NDArray[np.generic]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the groups, from 0, of members and of non-members in the order of `split`.

    Raises:
        MIAError: there is not one group per record.
    """
    if groups.shape != member.shape:
        raise MIAError(
            f"groups have shape {groups.shape} and membership {member.shape}; expected one of each per record"
        )
    index = np.unique(groups, return_inverse=True)[1]
    rows = [np.flatnonzero(member == value) for value in (1, 0)]
    members, non_members = (index[side[np.argsort(scores[side], kind="stable")]] for side in rows)
    return members, non_members


def allowed(n_non_members: int, fpr: float) -> int:
    """Return how many false positives the rate allows: floor(fpr * n), so that 0.29 of 100 is 29 and not 28.

    Raises:
        MIAError: the rate is not in [0, 1).
    """
    if not 0 <= fpr < 1:
        raise MIAError(f"a false-positive rate must lie in [0, 1), got {fpr}")
    return min(int(fpr * n_non_members * (1 + 1e-12)), n_non_members - 1)


def threshold(non_members: Array, fpr: float) -> float:
    """Return the (k+1)-th largest non-member score, k = floor(fpr * n): at most k of them are above."""
    return float(non_members[len(non_members) - 1 - allowed(len(non_members), fpr)])


def count_above(ascending: Array, level: float | Array) -> NDArray[np.intp]:
    """Return how many scores are strictly above each level."""
    return np.asarray(len(ascending) - np.searchsorted(ascending, level, side="right"))


def count_at_least(ascending: Array, level: float | Array) -> NDArray[np.intp]:
    """Return how many scores are at or above each level."""
    return np.asarray(len(ascending) - np.searchsorted(ascending, level, side="left"))


def share_below(scores: Array, ascending: Array) -> Array:
    """Return the share of the other class below each score, ties counting half."""
    below, not_above = (np.searchsorted(ascending, scores, side=side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(ascending))


def without_ties(scores: Scores, seed: int) -> Array:
    """Return ranks (N,) of finite scores, ties in random order."""
    scores = np.asarray(scores, dtype=np.float64)
    ranks = np.empty(len(scores))
    ranks[np.lexsort((np.random.default_rng(seed).random(len(scores)), scores))] = np.arange(len(scores))
    return ranks
