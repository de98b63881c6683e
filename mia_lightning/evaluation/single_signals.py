"""Single signals compared with the submitted attack, so that a fusion that gains nothing is reported."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.comparison import ENOUGH, paired_bootstrap
from mia_lightning.metrics.ranks import Array
from mia_lightning.metrics.roc import auc, evaluate
from mia_lightning.signals.table import SignalTable

RESAMPLES = 400
"""Bootstrap resamples of the difference."""

FPR = 0.05
"""False-positive rate of the comparison, where there are non-members enough; otherwise AUCs are compared."""


def single_signals(table: SignalTable, directions: Mapping[str, int]) -> dict[str, Array]:
    """Return the columns of one value per record that have a direction (1 or -1), turned so that higher = member."""
    return {
        name: table.columns[name].astype(np.float64) * direction
        for name, direction in directions.items()
        if direction and name in table.columns and table.columns[name].ndim == 1
    }


def single_signal_note(
    signals: Mapping[str, Array], attack: str, scores: Array, member: NDArray[np.int8], *, seed: int
) -> str | None:
    """Return a sentence if the best signal ranks as well as the attack, or if both are near chance; else None."""
    if not signals:
        return None
    best = max(signals, key=lambda name: auc(signals[name], member))
    figures = {name: evaluate(values, member, ()) for name, values in ((attack, scores), (best, signals[best]))}
    if all(figure.auc_low <= 0.5 for figure in figures.values()):
        shown = ", ".join(f"{name} {f.auc:.3f} [{f.auc_low:.3f}, {f.auc_high:.3f}]" for name, f in figures.items())
        return f"near chance: neither {attack} nor any single signal ranks members above non-members (AUC of {shown})"
    fprs = [FPR] if FPR * (member == 0).sum() >= ENOUGH else []
    candidates = {
        name: paired_bootstrap({name: values}, member, fprs, resamples=1, seed=seed).estimates[0, -1]
        for name, values in signals.items()
    }
    best = max(candidates, key=lambda name: candidates[name])
    pair = paired_bootstrap({attack: scores, best: signals[best]}, member, fprs, resamples=RESAMPLES, seed=seed)
    gain = pair.resampled[:, 0, -1] - pair.resampled[:, 1, -1]
    low, high = np.quantile(gain, [0.025, 0.975])
    if low > 0:
        return None
    figure = f"TPR@{100 * FPR:g}%" if fprs else "AUC"
    ours, single = pair.estimates[:, -1]
    relation = "is better than" if high < 0 else "does as well as"
    return (
        f"the single signal {best} {relation} {attack}: {figure} {single:.3f} and {ours:.3f} out-of-fold, "
        f"difference {ours - single:+.3f} [{low:+.3f}, {high:+.3f}]"
    )
