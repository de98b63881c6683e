"""The note on single signals: silent where the attack is better, otherwise a sentence with figures."""

import numpy as np

from mia_lightning.evaluation.single_signals import single_signal_note, single_signals
from mia_lightning.signals.table import SignalTable


def make(shift, n=1200):
    draw = np.random.default_rng(0)
    member = (np.arange(n) % 2).astype(np.int8)
    return {f"s{i}": draw.normal(size=n) + shift * member for i in range(3)}, member


def note(signals, scores, member):
    return single_signal_note(signals, "fusion", scores, member, seed=0)


def test_better_attack_needs_no_note():
    signals, member = make(1.0)
    assert note(signals, sum(signals.values()), member) is None


def test_attack_that_adds_nothing_is_reported():
    signals, member = make(1.0)
    strong = {"strong": signals["s0"] + signals["s1"] + signals["s2"], "weak": signals["s0"]}
    sentence = note(strong, strong["strong"] + 0.3 * np.random.default_rng(1).normal(size=len(member)), member)
    assert sentence.startswith("the single signal strong does as well as fusion: TPR@5% ")
    assert note(strong, strong["weak"], member).startswith("the single signal strong is better than fusion: TPR@5% ")


def test_chance_is_reported_as_such():
    signals, member = make(0.0)
    assert note(signals, np.random.default_rng(1).normal(size=len(member)), member).startswith("near chance: neither")


def test_few_records_are_compared_by_auc():
    signals, member = make(1.0, n=80)
    assert "AUC" in note({"s0": signals["s0"]}, signals["s0"], member)


def test_signals_are_turned_and_wide_or_undirected_columns_left_out():
    columns = {"loss": np.array([1.0, 2.0]), "wide": np.zeros((2, 3)), "spread": np.array([1.0, 2.0])}
    table = SignalTable(columns, np.zeros(2, int), 2)
    turned = single_signals(table, {"loss": -1, "wide": 1, "spread": 0, "absent": 1})
    assert {name: values.tolist() for name, values in turned.items()} == {"loss": [-1.0, -2.0]}
