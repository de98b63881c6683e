"""Paired comparison of attacks: bootstrap differences, Holm correction, agreement.

The bootstrap is stratified (members and non-members are drawn separately) and paired (one draw serves all attacks). A
draw is a count per record, so that it never has to be sorted: cumulative counts over each attack's own order give its
AUC and its thresholds.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Agreement, Difference
from mia_lightning.metrics.intervals import TAILS
from mia_lightning.metrics.ranks import Array, Membership, allowed, count_above, share_below, split, threshold

CELLS = 2**20
"""Counts drawn at once by one thread; with five attacks that is about 50 MiB."""

ENOUGH = 10
"""False positives that a rate has to allow before attacks are compared at it: with fewer, the bootstrap's interval of a
TPR covers too seldom (see `intervals.tpr_interval`)."""


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Figures of several attacks on the records and on resamples of them."""

    names: tuple[str, ...]
    figures: tuple[str, ...]
    """auc, then tpr@0.01 and the like."""

    estimates: Array
    """(A, F) on the records themselves."""

    resampled: Array
    """(B, A, F) on each resample, the same resample for all attacks."""


LARGE = 20_000
"""Members and non-members from which on a resample's AUC is computed to first order in the counts, as DeLong's variance
is; the remainder is 0.4% of its spread, and 4% of that of a difference of two nearly equal attacks."""


@dataclass(frozen=True, eq=False)
class _Order:
    """Ranking of members and non-members by one attack, reduced to what resamples need."""

    top_others: NDArray[np.intp]
    """(T,) rows among the non-members, highest first: those that can be a resample's threshold, and all above."""

    members_above: NDArray[np.intp]
    """(T,) members strictly above each of these."""

    top_members: NDArray[np.intp]
    """(M,) rows among the members, highest first: all above the lowest of these."""

    non_members: NDArray[np.intp]
    """(n,) rows among the non-members, lowest first."""

    below: NDArray[np.intp]
    """(P,) non-members strictly below each member."""

    not_above: NDArray[np.intp]
    """(P,) non-members at or below each member."""

    share_below: Array
    """(P,) share of the non-members below each member, ties counting half."""

    share_above: Array
    """(n,) share of the members above each non-member, ties counting half."""

    auc: float


def paired_bootstrap(
    scores: Mapping[str, Array],
    member: Membership,
    fprs: Sequence[float],
    *,
    resamples: int,
    seed: int,
    groups: NDArray[np.generic] | None = None,
) -> Bootstrap:
    """Return AUC and TPR at each FPR of every attack, on the records and on resamples.

    Args:
        scores: Attack to (N,) finite scores.
        member: (N,) 1 or 0, both present.
        fprs: False-positive rates in [0, 1); thresholds as in `metrics.tpr_at_fpr`.
        resamples: Number of resamples, at least 1.
        seed: Random seed of the draws; the result does not depend on the number of threads.
        groups: (N,) group of each record; groups are then drawn instead of records, stratified by the sides they have.

    Raises:
        MIAError: as `metrics.evaluate`.
    """
    for values in scores.values():
        split(values, member)  # checks
    sides = [np.flatnonzero(member == value) for value in (1, 0)]
    most = len(sides[1]) if groups is not None else max((allowed(len(sides[1]), fpr) for fpr in fprs), default=0)
    orders = [_order(values[sides[0]], values[sides[1]], most) for values in scores.values()]
    once = [np.ones((1, len(side)), dtype=np.uint8) for side in sides]
    estimates = np.stack([_figures(order, once[0], once[1], fprs)[0] for order in orders])
    units = None if groups is None else np.unique(groups, return_inverse=True)[1]
    size = max(1, min(resamples, CELLS // max(map(len, sides))))
    blocks = [min(size, resamples - start) for start in range(0, resamples, size)]

    def run(block: int, sequence: np.random.SeedSequence) -> Array:
        rng = np.random.default_rng(sequence)
        if units is None:
            drawn = [_draw(rng, block, len(side)) for side in sides]
        else:
            drawn = _draw_groups(rng, block, units, sides)
        return np.stack([_figures(order, drawn[0], drawn[1], fprs) for order in orders], axis=1)

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # numpy releases the lock
        resampled = list(pool.map(run, blocks, np.random.SeedSequence(seed).spawn(len(blocks))))
    figures = ("auc", *(f"tpr@{fpr:g}" for fpr in fprs))
    return Bootstrap(tuple(scores), figures, estimates, np.concatenate(resampled))


def comparable_rates(fprs: Iterable[float], n_non_members: int) -> list[float]:
    """Return the rates that allow at least ten false positives, at which attacks can be compared."""
    return [fpr for fpr in fprs if allowed(n_non_members, fpr) >= ENOUGH]


def differences(
    bootstrap: Bootstrap, pairs: Iterable[tuple[str, str]] | None = None, *, auc_inflation: float = 1.0
) -> tuple[Difference, ...]:
    """Return first minus second for every pair (by default all) and figure, with the p-values adjusted over all of it.

    The interval is the bootstrap's percentiles; the p-value is two-sided and normal, from the bootstrap's standard
    deviation, because the share of resamples on the other side of 0 cannot fall below 1 / (resamples + 1), too coarse
    for Holm's method. Where no resample moves the difference at all, that share is the p-value.

    Args:
        bootstrap: Figures and their resamples.
        pairs: First and second attack of each difference.
        auc_inflation: Factor of the variance of differences of AUCs, for scores that depend on each other.
    """
    row_of = {name: index for index, name in enumerate(bootstrap.names)}
    rows = []
    for first, second in combinations(bootstrap.names, 2) if pairs is None else pairs:
        a, b = row_of[first], row_of[second]
        for f, figure in enumerate(bootstrap.figures):
            moved = bootstrap.resampled[:, a, f] - bootstrap.resampled[:, b, f]
            value = float(bootstrap.estimates[a, f] - bootstrap.estimates[b, f])
            if figure == "auc":
                moved = value + np.sqrt(auc_inflation) * (moved - value)
            low, high = np.quantile(moved, TAILS)
            rows.append((first, second, figure, value, float(low), float(high), _p_value(value, moved)))
    adjusted = holm(np.array([row[-1] for row in rows]))
    return tuple(Difference(*row, p_holm=float(p)) for row, p in zip(rows, adjusted, strict=True))


def holm(p_values: Array) -> Array:
    """Return p-values adjusted by Holm's step-down method (1979), (M,) in [0, 1]."""
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def agreement(scores: Mapping[str, Array], member: Membership, alpha: float) -> Agreement:
    """Compare the records that attacks identify at one false-positive rate.

    Args:
        scores: Attack to (N,) finite scores.
        member: (N,) 1 or 0, both present.
        alpha: In [0, 1).

    Raises:
        MIAError: as `metrics.evaluate`.
    """
    if not scores:
        raise MIAError("there are no scores to compare; give at least one score column")
    above = np.stack([values > threshold(split(values, member)[1], alpha) for values in scores.values()])
    counts = above.astype(np.float64)
    both = counts @ counts.T
    either = np.diag(both)[:, None] + np.diag(both)[None, :] - both
    jaccard = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    alone = above & (above.sum(axis=0) == 1) & (np.asarray(member) == 1)
    only = {name: np.flatnonzero(row) for name, row in zip(scores, alone, strict=True)}
    return Agreement(alpha=float(alpha), names=tuple(scores), jaccard=jaccard, only=only)


def _order(members: Array, non_members: Array, most: int) -> _Order:
    """Rank members and non-members; `most` is the largest number of false positives that any rate allows."""
    by_member, by_other = np.argsort(members, kind="stable"), np.argsort(non_members, kind="stable")
    ranked_members, ranked_others = members[by_member], non_members[by_other]
    below, not_above = (np.searchsorted(ranked_others, members, side=side) for side in ("left", "right"))
    # of so many records, fewer than `most` + 1 are drawn with a probability below 1e-20
    tail = min(len(non_members), int(most + 10 * np.sqrt(most + 1)) + 100)
    top = by_other[::-1][:tail]
    members_above = count_above(ranked_members, non_members[top])
    return _Order(
        top_others=top,
        members_above=members_above,
        top_members=by_member[::-1][: members_above[-1]],
        non_members=by_other,
        below=below,
        not_above=not_above,
        share_below=((below + not_above) / (2 * len(non_members))),
        share_above=(1 - share_below(non_members, ranked_members)),
        auc=float((below + not_above).mean()) / (2 * len(non_members)),
    )


def _draw(rng: np.random.Generator, resamples: int, size: int) -> NDArray[np.uint8]:
    """Return the count of each of `size` records in `size` draws, (R, size); more than 255 does not occur."""
    drawn = rng.integers(0, size, (resamples, size), dtype=np.uint32)
    return np.stack([np.bincount(row, minlength=size).astype(np.uint8) for row in drawn])


def _draw_groups(
    rng: np.random.Generator, resamples: int, units: NDArray[np.intp], sides: Sequence[NDArray[np.intp]]
) -> list[NDArray[np.uint8]]:
    """Return the counts (R, P) and (R, n) of members and non-members, of R draws of groups.

    Groups of members, of non-members and of both are drawn separately, so that no draw lacks a side.
    """
    has = np.stack([np.bincount(units[side], minlength=units.max() + 1) > 0 for side in sides])
    strata = [np.flatnonzero(chosen) for chosen in (has[0] & ~has[1], has[1] & ~has[0], has[0] & has[1])]
    counts = np.zeros((resamples, has.shape[1]), dtype=np.uint8)
    for stratum in strata:
        if len(stratum):
            counts[:, stratum] = _draw(rng, resamples, len(stratum))
    return [counts[:, units[side]] for side in sides]


def _figures(order: _Order, members: NDArray[np.uint8], non_members: NDArray[np.uint8], fprs: Sequence[float]) -> Array:
    """Return AUC and TPRs, (R, 1 + len(fprs)), of R resamples given as counts (R, P) and (R, n)."""
    result = np.empty((len(members), 1 + len(fprs)))
    auc = _auc_to_first_order if min(members.shape[1], non_members.shape[1]) >= LARGE else _auc
    for row in range(len(members)):
        result[row, 0] = auc(order, members[row], non_members[row])
        passed = np.array([allowed(int(non_members[row].sum()), fpr) for fpr in fprs], dtype=np.int64)
        result[row, 1:] = _tprs(order, members[row], non_members[row], passed)
    return result


def _auc(order: _Order, members: NDArray[np.uint8], non_members: NDArray[np.uint8]) -> float:
    up_to = _cumulated(non_members[order.non_members])
    twice = (up_to[order.below] + up_to[order.not_above]).astype(np.float64)
    return _weighted(twice, members) / (2 * int(members.sum()) * int(non_members.sum()))


def _auc_to_first_order(order: _Order, members: NDArray[np.uint8], non_members: NDArray[np.uint8]) -> float:
    """Return AUC plus each side's own deviation from it; without their product."""
    from_members = _weighted(order.share_below, members) / int(members.sum())
    from_others = _weighted(order.share_above, non_members) / int(non_members.sum())
    return from_members + from_others - order.auc


def _tprs(
    order: _Order, members: NDArray[np.uint8], non_members: NDArray[np.uint8], passed: NDArray[np.int64]
) -> Array:
    """Return the TPRs; a threshold is the first rank from above at which more non-members are drawn than may pass."""
    drawn = np.cumsum(non_members[order.top_others], dtype=np.int32)
    rank = np.searchsorted(drawn, passed, side="right")
    if rank.max(initial=0) >= len(drawn):
        raise RuntimeError("a resample's threshold lies below the ranked tail; the tail is too short")
    return _cumulated(members[order.top_members])[order.members_above[rank]] / int(members.sum())


def _weighted(values: Array, counts: NDArray[np.uint8]) -> float:
    """Return the weighted sum without BLAS, whose threads would compete with the pool's."""
    return float((values * counts).sum())


def _cumulated(counts: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the sums of the first 0, 1, ... counts."""
    sums = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=sums[1:])
    return sums


def _p_value(value: float, moved: Array) -> float:
    spread = float(moved.std(ddof=1)) if len(moved) > 1 else 0.0
    if value == 0 and spread == 0:
        return 1.0
    if spread == 0:
        return 2 / (len(moved) + 1)
    return float(2 * ndtr(-abs(value) / spread))
