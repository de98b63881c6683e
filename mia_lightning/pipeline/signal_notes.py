"""Note on single signals that rank as well as the submitted attack."""

from collections.abc import Mapping

import numpy as np

from mia_lightning.config.schema import RunConfig
from mia_lightning.evaluation.single_signals import single_signal_note, single_signals
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, CrossFit
from mia_lightning.signals import expand_names, get_signal
from mia_lightning.signals.table import SignalTable


def signal_notes(
    config: RunConfig, table: SignalTable, fits: Mapping[str, CrossFit], member: np.ndarray, fold: np.ndarray
) -> list[str]:
    """Return at most one note, on the records in folds; none where nothing is fitted in the submitted attack."""
    submitted = fits[config.submitted]
    if submitted.stability is None:
        return []
    directions = {name: get_signal(name).direction for name in expand_names(config.signals.names)}
    directions |= dict.fromkeys(config.references.all_scores, 1)
    rows = fold != NOT_IN_ANY_FOLD
    signals = single_signals(table.rows(rows), directions)
    note = single_signal_note(signals, config.submitted, submitted.scores[rows], member[rows], seed=config.seed)
    return [] if note is None else [note]
