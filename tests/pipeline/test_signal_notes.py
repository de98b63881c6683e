"""Wiring of the notes on single signals into a run."""

import numpy as np

from mia_lightning import load_config
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.pipeline.signal_notes import first_note, signal_notes
from mia_lightning.scores.crossfit import CrossFit
from mia_lightning.signals.table import SignalTable


def split(n, in_folds):
    truth, fold = (np.arange(n) % 2).astype(np.int8), np.where(np.arange(n) < in_folds, np.arange(n) % 5, -1)
    return SplitInfo(np.arange(n), truth, fold.astype(np.int8), fold < 0)


def test_note_reads_records_in_folds_alone():
    draw, n = np.random.default_rng(0), 900
    public = split(n, 600)
    signal = draw.normal(size=n) + public.membership
    signal[600:] = -signal[600:]  # held-out records, which say the opposite
    table = SignalTable({"phi": signal, "entropy": draw.normal(size=n)}, np.zeros(n, int), 2)
    config = load_config("demo")
    (note,) = signal_notes(config, table, {"fusion": CrossFit(signal, 0.0, 0.9)}, public)
    assert note.startswith("the single signal phi does as well as fusion")
    assert signal_notes(config, table, {"fusion": CrossFit(signal, 0.0, None)}, public) == []


def test_first_note_reads_records_in_folds_alone():
    draw, public = np.random.default_rng(0), split(600, 400)
    logits = draw.normal(size=(600, 2, 3)).astype(np.float32)
    logits[400:, :, 0] += 9 * public.membership[400:, None]  # held-out members are recognized at once
    outputs = Outputs(logits, np.empty((600, 0), np.float32), np.empty((600, 0), np.float32), np.zeros(600, np.int64))
    assert "of 200 known members and 200 known non-members: phi 0." in first_note(outputs, public)
    single = Outputs(logits[:, :1], outputs.features, outputs.gradient_norms, outputs.labels)
    assert "by phi (AUC with 95% interval, of 200 " in first_note(single, public)
    logits[:, :, 0] += public.membership[:, None]
    assert first_note(outputs, public) is None
