"""Out-of-fold scores: each attack is fitted on all folds but one and scores that one."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack, ValidationRows
from mia_lightning.errors import MIAError
from mia_lightning.signals.table import SignalTable

NOT_IN_ANY_FOLD = -1

FitCallback = Callable[[str, int], None]
"""Called with (attack, fold) before each fit."""

Reporter = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (attack, fold, epoch, values) by attacks that have epochs."""

STABILITY_ROWS = 5000
"""Most rows that the stability is estimated on."""


def assign_folds(
    member: NDArray[np.int8], *, folds: int, seed: int, groups: NDArray[np.generic] | None = None
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
            raise MIAError(
                f"the public records hold {count} known {unit}, fewer than the {folds} folds; "
                "lower --evaluation.folds or give more records of known membership"
            )
    fold = np.full(len(member), NOT_IN_ANY_FOLD, dtype=np.int8)
    shuffle = np.random.default_rng(seed).random(len(member))
    if groups is None:
        order = rows[np.lexsort((shuffle[rows], member[rows]))]
        fold[order] = np.arange(len(order)) % folds
    else:
        fold[rows] = _assign_groups(units, member[rows], np.full(folds, 1 / folds), shuffle[rows])
    return fold


def draw_holdout(
    member: NDArray[np.int8], *, share: float, seed: int, groups: NDArray[np.generic] | None = None
) -> NDArray[np.bool_]:
    """Draw the held-out rows, which no fold contains, stratified by membership alone.

    Args:
        member: (N,) 1, 0 or -1 = unknown; rows of unknown membership are never drawn.
        share: In [0, 1), of the rows of known membership; met to within one row among members and non-members.
        seed: Seed of the draw.
        groups: (N,) group of each row; a group is held out completely or not at all, so the share is approximate.

    Returns:
        (N,) True where a row is held out.
    """
    held = np.zeros(len(member), dtype=np.bool_)
    shuffle = np.random.default_rng((seed, 1)).random(len(member))  # a different stream from that of the folds
    rows = np.flatnonzero(member >= 0)
    if groups is not None and share > 0:
        units = np.unique(groups[rows], return_inverse=True)[1]
        held[rows] = _assign_groups(units, member[rows], np.array([share, 1 - share]), shuffle[rows]) == 0
        return held
    order = rows[np.lexsort((shuffle[rows], member[rows]))]
    steps = np.floor(np.arange(len(order) + 1) * share)
    held[order[np.diff(steps) > 0]] = True
    return held


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


def permute_membership(
    member: NDArray[np.int8], rng: np.random.Generator, groups: NDArray[np.generic] | None = None
) -> NDArray[np.int8]:
    """Return (N,) memberships permuted between rows, or between groups of the same size where groups are given."""
    if groups is None:
        return rng.permutation(member)
    units = np.unique(groups, return_inverse=True)[1]
    order = np.argsort(units, kind="stable")
    sizes = np.bincount(units)
    starts = np.cumsum(sizes) - sizes
    permuted = member.copy()
    for size in np.unique(sizes):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        permuted[rows] = member[rng.permutation(rows)]
    return permuted


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Scores of one attack over all rows of a table."""

    scores: NDArray[np.float64]
    """(N,) out-of-fold scores of the rows in a fold; the mean score of the models of all folds for the others."""

    seconds: float
    """Time spent in fitting and scoring."""

    stability: float | None = None
    """Correlation, within members and within non-members, of the scores of two fits on different records of the same
    number, in [0, 1]; 0 if it was not estimated; None if no fit enters the scores. `metrics.evaluate` takes it."""


def cross_fit(
    attacks: Mapping[str, Attack],
    table: SignalTable,
    member: NDArray[np.int8],
    fold: NDArray[np.int8],
    *,
    seed: int,
    progress: FitCallback | None = None,
    report: Reporter | None = None,
    stability: bool = False,
) -> dict[str, CrossFit]:
    """Fit every attack in every fold and return out-of-fold scores.

    An attack may read the scores of earlier attacks, by their full names (a pattern selects signals only). In the rows
    to be scored these are the scores of the same fold; in the rows that a trainable attack is fitted on, they come from
    an inner cross-fit over the remaining folds, so that no column depends on the membership of its own row.

    Args:
        attacks: Name to attack, in the order in which later ones may read earlier ones.
        table: (N,) rows.
        member: (N,) 1, 0, or anything where fold is -1 (never read there).
        fold: (N,) from `assign_folds`; -1 = membership unknown.
        seed: Seed of the attacks.
        progress: Called before each fit.
        report: Called after each epoch of an attack that has epochs; figures on held-out rows are for display only.
        stability: Whether to estimate each attack's stability by two further fits, each on about half of the fitting
            rows of the first fold (about one fit more in all).
    """
    folds = range(int(fold.max()) + 1)
    scores = {name: np.zeros(len(table)) for name in attacks}
    seconds = dict.fromkeys(attacks, 0.0)
    for held_out in folds:
        fit_rows = np.flatnonzero((fold != held_out) & (fold != NOT_IN_ANY_FOLD))
        new_rows = np.flatnonzero((fold == held_out) | (fold == NOT_IN_ANY_FOLD))
        held = fold[new_rows] == held_out
        watched = None if report is None else partial(_validation_rows, member[new_rows], held, held_out, report)
        fits = _fit_and_score(attacks, table, member, fold, fit_rows, new_rows, held_out, seed, progress, watched)
        for name, new_scores, elapsed in fits:
            scores[name][new_rows] += np.where(held, new_scores, new_scores / len(folds))
            seconds[name] += elapsed
    stabilities = _stabilities(attacks, table, member, fold, seed) if stability else {}
    fitted = _depends_on_a_fit(attacks)
    return {
        name: CrossFit(scores[name], seconds[name], stabilities.get(name, 0.0) if name in fitted else None)
        for name in attacks
    }


Watched = Callable[[SignalTable, str], ValidationRows]


def _fit_and_score(
    attacks: Mapping[str, Attack],
    table: SignalTable,
    member: NDArray[np.int8],
    fold: NDArray[np.int8],
    fit_rows: NDArray[np.intp],
    new_rows: NDArray[np.intp],
    held_out: int,
    seed: int,
    progress: FitCallback | None,
    watched: Watched | None,
) -> Iterator[tuple[str, NDArray[np.float64], float]]:
    """Fit all attacks on some rows; yield name, scores of the new rows and seconds of each."""
    fit_table, new_table = table.rows(fit_rows), table.rows(new_rows)
    fit_columns: dict[str, NDArray[np.float64]] = {}
    new_columns: dict[str, NDArray[np.float64]] = {}
    for name, attack in attacks.items():
        if progress:
            progress(name, held_out)
        started = perf_counter()
        fit_view, new_view = (_view(t, c, attack) for t, c in ((fit_table, fit_columns), (new_table, new_columns)))
        validation = None if watched is None else watched(new_view, name)
        fitted = deepcopy(attack).fit(fit_view, member[fit_rows], seed=seed + held_out, validation=validation)
        new_columns[name] = _finite(fitted.score(new_view), name)
        if any(later.is_trainable and name in later.required_columns() for later in attacks.values()):
            fit_columns[name] = _inner_scores(attack, fit_view, member[fit_rows], fold[fit_rows], seed)
        yield name, new_columns[name], perf_counter() - started


def _depends_on_a_fit(attacks: Mapping[str, Attack]) -> set[str]:
    """Return the attacks that are trainable or read one that is."""
    fitted: set[str] = set()
    for name, attack in attacks.items():
        if attack.is_trainable or fitted.intersection(attack.required_columns()):
            fitted.add(name)
    return fitted


def _stabilities(
    attacks: Mapping[str, Attack], table: SignalTable, member: NDArray[np.int8], fold: NDArray[np.int8], seed: int
) -> dict[str, float]:
    """Return each attack's stability: the correlation of two half fits, corrected to the size of one (Spearman-Brown).

    Both halves are made of complete folds and score the rows of the first fold. With two folds, or where half of the
    rows is too little to fit on, there is no estimate.
    """
    from scipy.stats import rankdata

    others = np.arange(1, int(fold.max()) + 1)
    size = len(others) // 2
    if size == 0:
        return {}
    new_rows = np.flatnonzero(fold == 0)[:STABILITY_ROWS]
    ranks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in attacks}
    try:
        for half in (others[0::2][:size], others[1::2][:size]):
            fit_rows = np.flatnonzero(np.isin(fold, half))
            for name, scores, _ in _fit_and_score(
                attacks, table, member, fold, fit_rows, new_rows, 0, seed + int(half[0]), None, None
            ):
                ranks[name].append(rankdata(scores))
    except MIAError:
        return {}
    side, enlarged = member[new_rows], len(others) / size
    result = {}
    for name, pair in ranks.items():
        first, second = (np.where(side == 1, r - r[side == 1].mean(), r - r[side == 0].mean()) for r in pair)
        norm = float(np.sqrt((first @ first) * (second @ second)))
        half_fits = max(float(first @ second) / norm, 0.0) if norm > 0 else 0.0
        result[name] = enlarged * half_fits / (1 + (enlarged - 1) * half_fits)
    return result


def _validation_rows(
    member: NDArray[np.int8], held: NDArray[np.bool_], held_out: int, report: Reporter, table: SignalTable, name: str
) -> ValidationRows:
    return ValidationRows(table.rows(held), member[held], lambda epoch, values: report(name, held_out, epoch, values))


def _finite(scores: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if not np.isfinite(scores).all():
        raise MIAError(
            f"attack {name!r} gave {int((~np.isfinite(scores)).sum())} scores that are NaN or infinite; "
            "lower its learning rate or look at its signals"
        )
    return scores


def _view(table: SignalTable, scores: Mapping[str, NDArray[np.float64]], attack: Attack) -> SignalTable:
    """Return the table that an attack reads: all signals, and the earlier attacks that it names in full."""
    return table.with_columns({name: column for name, column in scores.items() if name in attack.required_columns()})


def _inner_scores(
    attack: Attack, table: SignalTable, member: NDArray[np.int8], fold: NDArray[np.int8], seed: int
) -> NDArray[np.float64]:
    """Return out-of-fold scores over the remaining folds, (N,)."""
    if len(np.unique(fold)) < 2:
        fold = assign_folds(member, folds=2, seed=seed)
    scores = np.empty(len(table))
    for inner in np.unique(fold):
        rows = fold != inner
        fitted = deepcopy(attack).fit(table.rows(rows), member[rows], seed=seed)
        scores[~rows] = fitted.score(table.rows(~rows))
    return scores
