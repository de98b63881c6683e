"""Single signals compared with the submitted attack, so that a fusion that gains nothing is reported."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mia_lightning.evaluation.comparison import ENOUGH, paired_bootstrap
from mia_lightning.metrics.ranks import Array
from mia_lightning.metrics.roc import Evaluation, auc, evaluate
from mia_lightning.signals.table import SignalTable

RESAMPLES = 400
"""Bootstrap resamples of the difference."""

FPR = 0.05
"""False-positive rate of the comparison, where there are non-members enough; otherwise AUCs are compared."""


def single_signals(table: SignalTable, directions: Mapping[str, int]) -> dict[str, Array]:
    """Return the columns of one value per record that rank by themselves, turned so that higher = member.

    Args:
        table: N records.
        directions: Column to 1 (higher = member), -1 or 0 (neither, left out).
    """
    return {
        name: table.columns[name].astype(np.float64) * direction
        for name, direction in directions.items()
        if direction and name in table.columns and table.columns[name].ndim == 1
    }


def first_look(
    signals: Mapping[str, Array], member: NDArray[np.int8], groups: NDArray[np.generic] | None = None
) -> str | None:
    """Return a sentence if no signal ranks members above non-members, before anything is fitted; else None."""
    figures = {name: evaluate(values, member, (), groups=groups) for name, values in signals.items()}
    if any(figure.auc_low > 0.5 for figure in figures.values()):
        return None
    members, non_members = (int((member == value).sum()) for value in (1, 0))
    return (
        f"near chance at first look: members do not rank above non-members by {' or '.join(signals)} (AUC with 95% "
        f"interval, of {members:,} known members and {non_members:,} known non-members: {_shown(figures)}); "
        "reference models and fitted attacks may still find more"
    )


def _shown(figures: Mapping[str, Evaluation]) -> str:
    return ", ".join(f"{name} {f.auc:.3f} [{f.auc_low:.3f}, {f.auc_high:.3f}]" for name, f in figures.items())


def single_signal_note(
    signals: Mapping[str, Array],
    attack: str,
    scores: Array,
    member: NDArray[np.int8],
    *,
    seed: int,
    stability: float,
    groups: NDArray[np.generic] | None = None,
) -> str | None:
    """Return a sentence if the best signal ranks as well as the attack, or if both are near chance; else None.

    The interval of the difference is normal, from a paired bootstrap. As the signal is the best of several on these
    records, the upper end, below which the signal is called better, has Bonferroni's correction for all of them.

    Args:
        signals: From `single_signals`, of the rows of known membership.
        attack: Name of the attack.
        scores: (N,) its out-of-fold scores.
        member: (N,) 1 or 0.
        seed: Seed of the bootstrap.
        stability: As in `metrics.evaluate`.
        groups: (N,) group of each record; None = independent records.
    """
    if not signals:
        return None
    best = max(signals, key=lambda name: auc(signals[name], member))
    figures = {
        attack: evaluate(scores, member, (), groups=groups, stability=stability),
        best: evaluate(signals[best], member, (), groups=groups),
    }
    if all(figure.auc_low <= 0.5 for figure in figures.values()):
        return (
            f"near chance: neither {attack} nor any single signal ranks members above non-members "
            f"(out-of-fold AUC of {_shown(figures)})"
        )
    fprs = [FPR] if FPR * (member == 0).sum() >= ENOUGH else []
    candidates = {
        name: paired_bootstrap({name: values}, member, fprs, resamples=1, seed=seed).estimates[0, -1]
        for name, values in signals.items()
    }
    best = max(candidates, key=lambda name: candidates[name])
    pair = paired_bootstrap(
        {attack: scores, best: signals[best]}, member, fprs, resamples=RESAMPLES, seed=seed, groups=groups
    )
    ours, single = pair.estimates[:, -1]
    error = (pair.resampled[:, 0, -1] - pair.resampled[:, 1, -1]).std()
    low, high = ours - single + error * ndtri([0.025, 1 - 0.025 / len(signals)])
    if low > 0:
        return None
    figure = f"TPR@{100 * FPR:g}%" if fprs else "AUC"
    choice = f" for the best of {len(signals)} signals" if len(signals) > 1 else ""
    relation = "is better than" if high < 0 else "does as well as"
    return (
        f"the single signal {best} {relation} {attack}: {figure} {single:.3f} and {ours:.3f} out-of-fold, "
        f"difference {ours - single:+.3f} [{low:+.3f}, {high:+.3f}]{choice}"
    )
