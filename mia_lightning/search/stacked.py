"""Cross-fitting of many MLP attacks at once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks import Attack
from mia_lightning.attacks.mlp import MLP
from mia_lightning.errors import MIAError
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD
from mia_lightning.signals.table import SignalTable


def without_tunable_rates(attack: Attack) -> MLP | None:
    """Return an MLP attack with its rates at fixed values, to see what else differs; None where stacking is no use."""
    if not isinstance(attack, MLP) or attack.accelerator != "cpu":
        return None
    return replace(attack, learning_rate=1.0, weight_decay=0.0, dropout=0.0)


def cross_fit_together(
    attacks: Sequence[Attack], table: SignalTable, member: NDArray[np.int8], fold: NDArray[np.int8], *, seed: int
) -> list[NDArray[np.float64]]:
    """Return what `cross_fit` returns for each of several attacks alone: (N,) scores, equal within rounding.

    Args:
        attacks: MLP attacks that differ in rates only and read no other attack.
        table: (N,) rows.
        member: (N,) 1 or 0; not read where fold is -1.
        fold: (N,) from 0, or -1 = scored by the mean of all folds' models.
        seed: As there.

    Raises:
        MIAError: a score that is NaN or infinite.
    """
    folds = range(int(fold.max()) + 1)
    found = [np.zeros(len(table)) for _ in attacks]
    for held_out in folds:
        fit_rows = np.flatnonzero((fold != held_out) & (fold != NOT_IN_ANY_FOLD))
        new_rows = np.flatnonzero((fold == held_out) | (fold == NOT_IN_ANY_FOLD))
        new_table, held = table.rows(new_rows), fold[new_rows] == held_out
        heads = fit_together(
            cast("Sequence[MLP]", attacks), table.rows(fit_rows), member[fit_rows], seed=seed + held_out
        )
        for scores, head in zip(found, heads, strict=True):
            new = head.score(new_table)
            if not np.isfinite(new).all():
                raise MIAError("a network's scores are NaN or infinite; lower its learning rate")
            scores[new_rows] += np.where(held, new, new / len(folds))
    return found


def fit_together(attacks: Sequence[MLP], table: SignalTable, member: NDArray[np.int8], *, seed: int) -> list[MLP]:
    """Fit attacks that differ in learning rate, weight decay and dropout only, and return fitted copies.

    They train side by side on the CPU, in a fraction of the time, and come out as `MLP.fit` leaves them, within
    rounding.
    """
    from mia_lightning.search._stacked_mlp import train_stack

    inputs = attacks[0].inputs(table)
    networks = train_stack([attack.training() for attack in attacks], inputs(table), member, seed=seed)
    fitted = [deepcopy(attack) for attack in attacks]
    for attack, trained in zip(fitted, networks, strict=True):
        attack.inputs_, attack.networks_ = inputs, trained
    return fitted
