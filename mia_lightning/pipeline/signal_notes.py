"""Notes on single signals: before anything is fitted, and where one ranks as well as the submitted attack."""

from collections.abc import Mapping

import numpy as np

from mia_lightning.config.schema import RunConfig
from mia_lightning.evaluation.single_signals import first_look, single_signal_note, single_signals
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, CrossFit
from mia_lightning.signals import build_table, expand_names, get_signal
from mia_lightning.signals.table import SignalTable

FIRST = ("phi", "phi_contrast")
"""Signals of the first look."""


def first_note(outputs: Outputs, public: SplitInfo) -> str | None:
    """Return a sentence if the signals of the first look find nothing among the public records in folds; else None."""
    rows = np.flatnonzero(public.fold != NOT_IN_ANY_FOLD)
    table = build_table(outputs, names=FIRST).rows(rows)
    signals = single_signals(table, dict.fromkeys(FIRST, 1))
    varying = {name: values for name, values in signals.items() if np.ptp(values)}  # one view has no contrast
    return first_look(varying, public.membership[rows], _groups(public, rows)) if varying else None


def signal_notes(config: RunConfig, table: SignalTable, fits: Mapping[str, CrossFit], public: SplitInfo) -> list[str]:
    """Return at most one note, on the records in folds; none where nothing is fitted in the submitted attack.

    Args:
        config: The run.
        table: (N + M,) all records.
        fits: Scores of each attack.
        public: Membership and fold of each record, as the attacks see them.
    """
    submitted = fits[config.submitted]
    if submitted.stability is None:
        return []
    directions = {name: get_signal(name).direction for name in expand_names(config.signals.names)}
    directions |= dict.fromkeys(config.references.all_scores, 1)
    rows = np.flatnonzero(public.fold != NOT_IN_ANY_FOLD)
    note = single_signal_note(
        single_signals(table.rows(rows), directions),
        config.submitted,
        submitted.scores[rows],
        public.membership[rows],
        seed=config.seed,
        stability=submitted.stability,
        groups=_groups(public, rows),
    )
    return [] if note is None else [note]


def _groups(public: SplitInfo, rows: np.ndarray) -> np.ndarray | None:
    return None if public.groups is None else public.groups[rows]
