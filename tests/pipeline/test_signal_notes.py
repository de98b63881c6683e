"""Wiring of the note on single signals into a run."""

import numpy as np

from mia_lightning import load_config
from mia_lightning.pipeline.signal_notes import signal_notes
from mia_lightning.scores.crossfit import CrossFit
from mia_lightning.signals.table import SignalTable


def test_note_reads_records_in_folds_alone():
    draw, n = np.random.default_rng(0), 900
    truth = (np.arange(n) % 2).astype(np.int8)
    signal = draw.normal(size=n) + truth
    signal[600:] = -signal[600:]  # private records, which say the opposite
    table = SignalTable({"phi": signal, "entropy": draw.normal(size=n)}, np.zeros(n, int), 2)
    member, fold = np.where(np.arange(n) < 600, truth, -1), np.where(np.arange(n) < 600, np.arange(n) % 5, -1)
    config = load_config("demo")
    (note,) = signal_notes(config, table, {"fusion": CrossFit(signal, 0.0, 0.9)}, member, fold)
    assert note.startswith("the single signal phi does as well as fusion")
    assert signal_notes(config, table, {"fusion": CrossFit(signal, 0.0, None)}, member, fold) == []
