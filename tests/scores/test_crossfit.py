"""Folds and out-of-fold scores."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mia_lightning.attacks.base import Attack
from mia_lightning.attacks.fusion import Fusion
from mia_lightning.attacks.gaussian_ratio import GaussianLikelihoodRatio
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.threshold import Threshold
from mia_lightning.errors import MIAError
from mia_lightning.metrics.roc import evaluate
from mia_lightning.scores.crossfit import assign_folds, cross_fit, draw_holdout
from mia_lightning.signals.table import SignalTable


def table_of(n: int, seed: int = 0) -> SignalTable:
    rng = np.random.default_rng(seed)
    return SignalTable({"phi": rng.normal(size=n), "row": np.arange(n, dtype=np.float64)}, rng.integers(0, 3, n), 3)


@given(st.lists(st.integers(-1, 1), min_size=20, max_size=200), st.integers(2, 7))
@settings(max_examples=60)
def test_folds_are_balanced_and_complete(rows, folds):
    member = np.array(rows, dtype=np.int8)
    if min((member == 0).sum(), (member == 1).sum()) < folds:
        with pytest.raises(MIAError, match="fewer than the"):
            assign_folds(member, folds=folds, seed=1)
        return
    fold = assign_folds(member, folds=folds, seed=1)
    assert ((fold == -1) == (member == -1)).all()
    for side in (fold[fold >= 0], fold[member == 0], fold[member == 1]):
        sizes = np.bincount(side, minlength=folds)
        assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 1)), min_size=40, max_size=300), st.integers(2, 5))
@settings(max_examples=60)
def test_groups_stay_in_one_fold(rows, folds):
    groups, member = (np.array(column) for column in zip(*rows, strict=True))
    member = member.astype(np.int8)
    if min(len(np.unique(groups[member == side])) for side in (0, 1)) < folds:
        with pytest.raises(MIAError, match="known groups of"):
            assign_folds(member, folds=folds, seed=1, groups=groups)
        return
    fold = assign_folds(member, folds=folds, seed=1, groups=groups)
    held = draw_holdout(member, share=0.3, seed=1, groups=groups)
    assert ((fold == -1) == (member == -1)).all()
    assert not held[member == -1].any()
    for group in np.unique(groups):
        rows_of_group = (groups == group) & (member >= 0)
        assert len(np.unique(fold[rows_of_group])) <= 1
        assert len(np.unique(held[rows_of_group])) <= 1


def test_groups_of_one_size_fill_folds_and_holdout_evenly():
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(200).astype(str), 5))
    member = (np.array([int(group) for group in groups]) % 2).astype(np.int8)
    fold = assign_folds(member, folds=5, seed=0, groups=groups)
    held = draw_holdout(member, share=0.2, seed=0, groups=groups)
    for side in (0, 1):
        assert np.bincount(fold[member == side]).tolist() == [100] * 5
        assert held[member == side].sum() == 100
    assert (fold != assign_folds(member, folds=5, seed=1, groups=groups)).any()


@dataclass
class ClassRate(Attack):
    """Scores a row by the share of members of its class: what a class-reading attack can learn from noise."""

    def required_columns(self):
        return ()

    def fit(self, table, member, *, seed=0, validation=None):
        count = np.bincount(table.labels, minlength=table.num_classes)
        self.rate_ = (np.bincount(table.labels, weights=member, minlength=table.num_classes) + 0.5) / (count + 1)
        return self

    def score(self, table):
        return self.rate_[table.labels]


@pytest.mark.parametrize("classes", [100, 44, 20])
def test_class_membership_rate_does_not_leak(classes):
    """Coin-flip membership, noise and the class: AUC 0.5 out-of-fold and on the held-out rows.

    Folds with strata of class and membership give a class-reading attack 0.55 to 0.65 here.
    """
    in_folds, held_out = [], []
    for seed in range(6):
        rng = np.random.default_rng((seed, classes))
        member = rng.integers(0, 2, 2000).astype(np.int8)
        table = SignalTable({"phi": rng.normal(size=2000)}, rng.integers(0, classes, 2000), classes)
        held = draw_holdout(member, share=0.3, seed=seed)
        fold = assign_folds(np.where(held, np.int8(-1), member), folds=5, seed=seed)
        scores = cross_fit({"a": ClassRate()}, table, np.where(held, -1, member), fold, seed=seed)["a"].scores
        in_folds.append(roc_auc_score(member[~held], scores[~held]))
        held_out.append(roc_auc_score(member[held], scores[held]))
    # six AUCs of 1,400 and of 600 records; the variance of out-of-fold figures is up to twice DeLong's
    assert abs(np.mean(in_folds) - 0.5) < 3 * np.sqrt(2 / (12 * 6) * (1 / 700 + 1 / 700))
    assert abs(np.mean(held_out) - 0.5) < 3 * np.sqrt(1 / (12 * 6) * (1 / 300 + 1 / 300))


def test_groups_prevent_leak_between_folds():
    """Five images per person, membership by person, a target without information (AUC 0.88 in record-wise folds)."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(300), 5)
    member = rng.integers(0, 2, 300)[person].astype(np.int8)
    appearance = rng.normal(size=(300, 16))[person] + 0.3 * rng.normal(size=(1500, 16))
    table = SignalTable({"features": appearance.astype(np.float32)}, np.zeros(1500, np.int64), 1)
    attack = {"a": LightGBM(["features"], n_estimators=60, min_child_samples=20, n_jobs=1)}
    figures = []
    for groups in (person, None):
        fold = assign_folds(member, folds=5, seed=0, groups=groups)
        figures.append(roc_auc_score(member, cross_fit(attack, table, member, fold, seed=0)["a"].scores))
    assert abs(figures[0] - 0.5) < 3 * np.sqrt(2 / 12 * (1 / 150 + 1 / 150))  # 300 persons, doubled variance
    assert figures[1] > 0.7


def test_folds_depend_on_the_seed_only():
    member = np.arange(100, dtype=np.int8) % 2
    first, again = (assign_folds(member, folds=5, seed=3) for _ in range(2))
    assert (first == again).all()
    assert (first != assign_folds(member, folds=5, seed=4)).any()


@dataclass
class Memorizer(Attack):
    """Scores a row by its own membership if it was fitted on it, else by 0: leaks whatever can leak."""

    def required_columns(self):
        return ("row",)

    def fit(self, table, member, *, seed=0, validation=None):
        self.known_ = dict(zip(table.columns["row"].tolist(), member.tolist(), strict=True))
        return self

    def score(self, table):
        return np.array([2.0 * self.known_[row] - 1 if row in self.known_ else 0.0 for row in table.columns["row"]])


@dataclass
class Echo(Attack):
    """Repeats the column of an earlier attack, and remembers what it was shown while fitting."""

    column: str = "memorizer"

    def required_columns(self):
        return (self.column,)

    def fit(self, table, member, *, seed=0, validation=None):
        assert (table.columns[self.column] == 0).all(), "a fitting row was scored by a model that knew its membership"
        return self

    def score(self, table):
        return table.columns[self.column]


def test_no_row_is_scored_by_a_model_that_saw_its_membership():
    table, member = table_of(60), np.arange(60, dtype=np.int8) % 2
    fold = assign_folds(member, folds=5, seed=0)
    results = cross_fit({"memorizer": Memorizer(), "echo": Echo()}, table, member, fold, seed=0)
    assert (results["memorizer"].scores == 0).all()
    assert (results["echo"].scores == 0).all()


def test_membership_of_rows_outside_the_folds_is_never_read():
    table = table_of(90)
    member = (np.arange(90) % 2).astype(np.int8)
    fold = np.concatenate([assign_folds(member[:60], folds=5, seed=0), np.full(30, -1, np.int8)])
    scores = []
    for unknown in (-1, 0, 1):
        joint = np.concatenate([member[:60], np.full(30, unknown, np.int8)])
        scores.append(cross_fit({"ratio": GaussianLikelihoodRatio()}, table, joint, fold, seed=0)["ratio"].scores)
    assert (scores[0] == scores[1]).all()
    assert (scores[0] == scores[2]).all()


def test_scores_equal_a_plain_loop():
    table, rng = table_of(200), np.random.default_rng(1)
    member = rng.integers(0, 2, 200).astype(np.int8)
    fold = np.concatenate([assign_folds(member[:150], folds=3, seed=0), np.full(50, -1, np.int8)])
    got = cross_fit({"ratio": GaussianLikelihoodRatio(per_class=True)}, table, member, fold, seed=0)["ratio"].scores
    expected = np.zeros(200)
    for k in range(3):
        fitted = GaussianLikelihoodRatio(per_class=True).fit(
            table.rows((fold >= 0) & (fold != k)), member[(fold >= 0) & (fold != k)]
        )
        expected[fold == k] = fitted.score(table.rows(fold == k))
        expected[fold == -1] += fitted.score(table.rows(fold == -1)) / 3
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_fusion_reads_earlier_attacks():
    table, member = table_of(60), np.arange(60, dtype=np.int8) % 2
    fold = assign_folds(member, folds=3, seed=0)
    attacks = {"a": Threshold("phi"), "b": Threshold("phi", higher_is_member=False), "both": Fusion(["a", "b"])}
    results = cross_fit(attacks, table, member, fold, seed=0)
    np.testing.assert_allclose(results["both"].scores, 0, atol=1e-12)  # opposite rankings cancel


def test_scores_that_are_not_finite_are_refused():
    table = table_of(40).with_columns({"phi": np.full(40, np.inf)})
    member = np.arange(40, dtype=np.int8) % 2
    fold = assign_folds(member, folds=2, seed=0)
    with pytest.raises(MIAError, match="'bad' gave 20 scores"):
        cross_fit({"bad": Threshold("phi")}, table, member, fold, seed=0)


def test_stability_is_high_for_a_signal_and_low_for_noise():
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, 3000).astype(np.int8)
    columns = {f"x{i}": rng.normal(size=3000) for i in range(8)}
    attacks = {
        "noise": LightGBM(["x[1-7]"], n_estimators=30, num_leaves=7, n_jobs=1),
        "signal": GaussianLikelihoodRatio("x0"),
        "raw": Threshold("x0"),
        "fusion": Fusion(["noise", "signal"]),
        "fixed": Fusion(["x0", "raw"]),
    }
    table = SignalTable(columns | {"x0": rng.normal(size=3000) + member}, np.zeros(3000, np.int64), 1)
    fold = assign_folds(member, folds=5, seed=0)
    fits = cross_fit(attacks, table, member, fold, seed=0, stability=True)
    assert fits["raw"].stability is None
    assert fits["fixed"].stability is None
    assert fits["noise"].stability < 0.3
    assert fits["signal"].stability > 0.95
    assert 0.2 < fits["fusion"].stability < 0.95
    plain = cross_fit(attacks, table, member, fold, seed=0)
    assert plain["signal"].stability == 0, "the safe value where it was not estimated"
    assert (plain["fusion"].scores == fits["fusion"].scores).all()


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_stability_with_few_folds(folds):
    table, member = table_of(60), np.arange(60, dtype=np.int8) % 2
    fold = assign_folds(member, folds=folds, seed=0)
    attacks = {"a": GaussianLikelihoodRatio(), "b": LightGBM(["a", "phi"], n_estimators=3, n_jobs=1)}
    for fit in cross_fit(attacks, table, member, fold, seed=0, stability=True).values():
        assert 0 <= fit.stability <= 1


def test_interval_of_a_refitted_attack_covers_chance():
    """One direction learned from noise: the interval of fixed scores contains 0.5 in about 85% of samples."""
    hits = {True: 0, False: 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        member = rng.permutation(np.arange(600) % 2).astype(np.int8)
        table = SignalTable({"phi": rng.normal(size=600)}, np.zeros(600, np.int64), 1)
        fold = assign_folds(member, folds=5, seed=seed)
        fit = cross_fit({"a": GaussianLikelihoodRatio()}, table, member, fold, seed=0, stability=True)["a"]
        for refitted in hits:
            figures = evaluate(fit.scores, member, (), stability=fit.stability if refitted else None)
            hits[refitted] += figures.auc_low <= 0.5 <= figures.auc_high
    assert hits[True] / 200 >= 0.92
    assert hits[False] < hits[True]


def test_row_order_does_not_matter():
    rng = np.random.default_rng(0)
    member, signal = rng.integers(0, 2, 300).astype(np.int8), rng.normal(size=300)
    table = SignalTable({"phi": signal + member}, rng.integers(0, 3, 300), 3)
    shuffle = rng.permutation(300)
    attacks = {"ratio": GaussianLikelihoodRatio(per_class=True)}
    results = []
    for rows in (np.arange(300), shuffle):
        part, known = table.rows(rows), member[rows]
        fold = assign_folds(known, folds=5, seed=2, order=part.content_order())
        scores = np.empty(300)
        scores[rows] = cross_fit(attacks, part, known, fold, seed=2)["ratio"].scores
        results.append((fold[np.argsort(rows)], scores))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_a_public_threshold_has_its_false_positive_rate_on_records_scored_by_one_model():
    """The mean of five models exceeds the threshold too rarely; one model per record exceeds it at its own rate."""
    rates = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        member = (np.arange(2600) % 2).astype(np.int8)
        columns = {f"x{k}": rng.normal(size=2600) for k in range(8)}
        columns["x0"] = columns["x0"] + 0.7 * member
        table = SignalTable(columns, np.zeros(2600, np.int64), 1)
        fold = assign_folds(np.where(np.arange(2600) < 600, member, -1).astype(np.int8), folds=5, seed=0)
        fit = cross_fit({"a": LightGBM(["x*"], n_estimators=20, n_jobs=1)}, table, member, fold, seed=0)["a"]
        np.testing.assert_array_equal(fit.single[:600], fit.scores[:600])
        threshold = evaluate(fit.scores[:600], member[:600], (0.05,)).points[0].threshold
        new = member[600:] == 0
        rates.append([(scores[600:][new] > threshold).mean() for scores in (fit.single, fit.scores)])
    single, mean = np.mean(rates, axis=0)
    assert single == pytest.approx(0.053, abs=0.012)  # (k + 1) / (n + 1) of 300 non-members
    assert mean < 0.75 * single
