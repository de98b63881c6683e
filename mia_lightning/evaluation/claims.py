"""Claims about single records: conformal p-values, q-values and lists of claimed members."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Claims
from mia_lightning.metrics.ranks import Array, Membership, Scores, count_at_least, split

LEVELS = (0.05, 0.1)
"""False-discovery rates of the claimed lists."""


Groups = NDArray[np.generic] | None
"""(N,) group of each record (person, camera); None = independent records."""


def claim(
    scores: Scores,
    member: Membership,
    labels: NDArray[np.int64] | None = None,
    levels: Sequence[float] = LEVELS,
    *,
    groups: Groups = None,
) -> Claims:
    """Return conformal p-values and q-values of each record, and the lists of claimed records.

    Under exchangeability with the non-members, a list at level q holds at most a share q of non-members in expectation
    (Benjamini & Hochberg 1995 on conformal p-values: Bates et al. 2023). The non-members are also the calibration
    set: the procedure controls the share of known non-members among the claimed.

    Args:
        scores: (N,) finite, higher = more likely a member.
        member: (N,) 1 or 0, both present.
        labels: (N,) classes, or None.
        levels: False-discovery rates in (0, 1).
        groups: As for `conformal_p_values`.

    Raises:
        MIAError: as `metrics.evaluate`.
    """
    p_value = conformal_p_values(scores, member, groups)
    q_value = q_values(p_value)
    ranked = np.lexsort((-np.asarray(scores, dtype=np.float64), p_value))
    return Claims(
        p_value=p_value,
        p_value_in_class=None if labels is None else class_p_values(scores, member, labels, groups),
        q_value=q_value,
        claimed={float(level): ranked[q_value[ranked] <= level] for level in levels},
    )


def claim_new(scores: Array, calibration: Array, levels: Sequence[float] = LEVELS, *, groups: Groups = None) -> Claims:
    """Return p-values, q-values and claimed lists of records of unknown membership.

    Conformal p-values against known non-members that were scored by the same rule; Benjamini-Hochberg on them controls
    the false-discovery rate at each level times the share of non-members (Bates et al. 2023), whatever that share is.
    The mean over the folds' models is not the same rule as the single models of out-of-fold scores, and exceeds a
    threshold more rarely for non-members; `CrossFit.single` is the same.

    Args:
        scores: (M,) finite scores of the records.
        calibration: (n,) finite scores of known non-members, at least one.
        levels: False-discovery rates in (0, 1).
        groups: (n,) groups of the known non-members, none of which holds one of the new records; each counts once.

    Raises:
        MIAError: there is no calibration score.
    """
    if not len(calibration):
        raise MIAError("claims about new records need known non-members; give public records of known membership")
    scores = np.asarray(scores, dtype=np.float64)
    calibration = np.asarray(calibration, dtype=np.float64)
    if groups is None:
        groups = np.arange(len(calibration))
    count = len(np.unique(groups))
    p_value: Array = (1 + np.minimum(_groups_at_least(calibration, groups, scores), count)) / (1 + count)
    q_value = q_values(p_value) if len(scores) else p_value
    ranked = np.lexsort((-scores, p_value))
    return Claims(
        p_value=p_value,
        p_value_in_class=None,
        q_value=q_value,
        claimed={float(level): ranked[q_value[ranked] <= level] for level in levels},
    )


def conformal_p_values(scores: Scores, member: Membership, groups: Groups = None) -> Array:
    """Return (N,) p-values in (0, 1]: share of non-members that score at least as high as the record.

    (1 + non-members at or above) / (1 + non-members); a non-member leaves itself out of both counts (Vovk et al. 2005).
    With groups each group of non-members counts once, as the share of its records at or above, and a record leaves its
    group out of both counts (Lee et al. 2023, arXiv:2306.06342): records of a group are not
    exchangeable with those of others, groups are.

    Raises:
        MIAError: as `metrics.evaluate`.
    """
    split(scores, member)  # checks
    return _p_values(np.asarray(scores, dtype=np.float64), np.asarray(member) == 0, groups)


def class_p_values(scores: Scores, member: Membership, labels: NDArray[np.int64], groups: Groups = None) -> Array:
    """Return p-values against the non-members of the record's class, (N,); 1 where the class has none.

    Raises:
        MIAError: as `metrics.evaluate`.
    """
    split(scores, member)  # checks
    values, is_non_member = np.asarray(scores, dtype=np.float64), np.asarray(member) == 0
    p_value = np.ones(len(values))
    order = np.argsort(labels, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        p_value[rows] = _p_values(values[rows], is_non_member[rows], None if groups is None else groups[rows])
    return p_value


def q_values(p_values: Array) -> Array:
    """Return (N,) the smallest false-discovery rate at which each hypothesis is rejected (Benjamini & Hochberg)."""
    from scipy.stats import false_discovery_control  # slow to import

    return np.asarray(false_discovery_control(p_values, method="bh"), dtype=np.float64)


def _p_values(scores: Array, is_non_member: NDArray[np.bool_], groups: Groups) -> Array:
    """Return p-values; a non-member counts itself among those at or above, which is the 1 of the formula."""
    non_members = scores[is_non_member]
    if groups is None:
        above = count_at_least(np.sort(non_members), scores)
        result: Array = (above + ~is_non_member) / (len(non_members) + ~is_non_member)
        return result
    group = np.unique(groups, return_inverse=True)[1]
    size = np.bincount(group[is_non_member], minlength=int(group.max()) + 1)
    rank = np.unique(scores, return_inverse=True)[1]
    key, step = group * len(scores) + rank, len(scores)
    sorted_keys = np.sort(key[is_non_member])
    in_group = np.searchsorted(sorted_keys, (group + 1) * step) - np.searchsorted(sorted_keys, key)
    elsewhere = _groups_at_least(non_members, groups[is_non_member], scores) - in_group / np.maximum(size[group], 1)
    count = (size > 0).sum() - (size[group] > 0)
    return np.asarray((1 + np.clip(elsewhere, 0, count)) / (1 + count), np.float64)  # sums of 1/5 exceed their count


def _groups_at_least(calibration: Array, groups: NDArray[np.generic], scores: Array) -> Array:
    """Return (M,) sums over the groups of the share of their calibration scores at or above each score."""
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(calibration, kind="stable")
    weights = np.append(np.cumsum((1 / size[group])[order][::-1])[::-1], 0.0)
    return np.asarray(weights[np.searchsorted(calibration[order], scores)], np.float64)
