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
from mia_lightning.scores.folds import NOT_IN_ANY_FOLD, assign_folds, draw_holdout
from mia_lightning.signals.table import SignalTable

__all__ = ["NOT_IN_ANY_FOLD", "CrossFit", "FitCallback", "Reporter", "assign_folds", "cross_fit", "draw_holdout"]

FitCallback = Callable[[str, int], None]
"""Called with (attack, fold) before each fit."""

Reporter = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (attack, fold, epoch, values) by attacks that have epochs."""

STABILITY_ROWS = 5000
"""Most rows that the stability is estimated on."""


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

    single: NDArray[np.float64] | None = None
    """(N,) scores of one model each: out-of-fold as in `scores`; of a row in no fold, the score of one fold's model,
    whose number follows from the row's content. A threshold chosen on out-of-fold scores has the same false-positive
    rate for them, which it has not for a mean over models."""


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
    folds, order = range(int(fold.max()) + 1), table.content_order()
    scores = {name: np.zeros(len(table)) for name in attacks}
    single = {name: np.zeros(len(table)) for name in attacks}
    model, unlabeled = fold.astype(np.intp), order[fold[order] == NOT_IN_ANY_FOLD]
    model[unlabeled] = np.arange(len(unlabeled)) % len(folds)
    seconds = dict.fromkeys(attacks, 0.0)
    for held_out in folds:
        fit_rows = order[((fold != held_out) & (fold != NOT_IN_ANY_FOLD))[order]]
        new_rows = np.flatnonzero((fold == held_out) | (fold == NOT_IN_ANY_FOLD))
        held = fold[new_rows] == held_out
        watched = None if report is None else partial(_validation_rows, member[new_rows], held, held_out, report)
        fits = _fit_and_score(attacks, table, member, fold, fit_rows, new_rows, held_out, seed, progress, watched)
        for name, new_scores, elapsed in fits:
            scores[name][new_rows] += np.where(held, new_scores, new_scores / len(folds))
            by_model = model[new_rows] == held_out
            single[name][new_rows[by_model]] = new_scores[by_model]
            seconds[name] += elapsed
    stabilities = _stabilities(attacks, table, member, fold, seed) if stability else {}
    fitted = _depends_on_a_fit(attacks)
    return {
        name: CrossFit(
            scores[name], seconds[name], stabilities.get(name, 0.0) if name in fitted else None, single[name]
        )
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

    other_folds = np.arange(1, int(fold.max()) + 1)
    size = len(other_folds) // 2
    if size == 0:
        return {}
    order = table.content_order()
    new_rows = order[fold[order] == 0][:STABILITY_ROWS]
    ranks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in attacks}
    try:
        for half in (other_folds[0::2][:size], other_folds[1::2][:size]):
            fit_rows = order[np.isin(fold, half)[order]]
            for name, scores, _ in _fit_and_score(
                attacks, table, member, fold, fit_rows, new_rows, 0, seed + int(half[0]), None, None
            ):
                ranks[name].append(rankdata(scores))
    except MIAError:
        return {}
    side, enlarged = member[new_rows], len(other_folds) / size
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
