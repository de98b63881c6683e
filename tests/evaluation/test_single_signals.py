"""The note on single signals: silent where the attack is better, otherwise a sentence with figures."""

import numpy as np

from mia_lightning.evaluation.single_signals import first_look, single_signal_note, single_signals
from mia_lightning.signals.table import SignalTable


def make(shift, n=1200):
    draw = np.random.default_rng(0)
    member = (np.arange(n) % 2).astype(np.int8)
    return {f"s{i}": draw.normal(size=n) + shift * member for i in range(3)}, member


def note(signals, scores, member, **options):
    return single_signal_note(signals, "fusion", scores, member, seed=0, stability=1.0, **options)


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


def test_best_of_many_signals_needs_a_larger_lead():
    """The best of 12 equal signals would be called better in 14 of 100 draws without the correction."""
    signals, member = make(1.0, n=4000)
    noise = np.random.default_rng(1).normal(size=(41, 4000))
    scores = signals["s0"] + 0.7 * noise[-1]
    assert "is better than" in note({"s0": signals["s0"]}, scores, member)
    others = {f"noise{i}": values for i, values in enumerate(noise[:40])}
    assert "the single signal s0 does as well as" in note({"s0": signals["s0"]} | others, scores, member)


def test_groups_widen_the_interval():
    signals, member = make(1.0, n=400)
    signals, member = {name: np.repeat(values, 5) for name, values in signals.items()}, np.repeat(member, 5)
    single, scores = {"s0": signals["s0"]}, signals["s0"] + signals["s1"]
    assert note(single, scores, member) is None
    assert "does as well as" in note(single, scores, member, groups=np.arange(2000) // 5)


def test_first_look_speaks_at_chance_alone():
    signals, member = make(0.0)
    assert first_look(signals, member).startswith(
        "near chance at first look: members do not rank above non-members by s0 or"
    )
    assert "of 600 known members and 600 known non-members: s0 0." in first_look(signals, member)
    assert first_look(make(1.0)[0], member) is None
    grouped = np.repeat(make(0.2, n=100)[0]["s0"], 12)
    assert first_look({"s0": grouped}, np.repeat(member[:100], 12)) is None
    assert first_look({"s0": grouped}, np.repeat(member[:100], 12), np.arange(1200) // 12) is not None


def test_few_records_are_compared_by_auc():
    signals, member = make(1.0, n=80)
    assert "AUC" in note({"s0": signals["s0"]}, signals["s0"], member)


def test_signals_are_turned_and_wide_or_undirected_columns_left_out():
    columns = {"loss": np.array([1.0, 2.0]), "wide": np.zeros((2, 3)), "spread": np.array([1.0, 2.0])}
    table = SignalTable(columns, np.zeros(2, int), 2)
    turned = single_signals(table, {"loss": -1, "wide": 1, "spread": 0, "absent": 1})
    assert {name: values.tolist() for name, values in turned.items()} == {"loss": [-1.0, -2.0]}
