"""Folds and out-of-fold scores."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_lightning.attacks.base import Attack
from mia_lightning.attacks.fusion import Fusion
from mia_lightning.attacks.gaussian_ratio import GaussianLikelihoodRatio
from mia_lightning.attacks.threshold import Threshold
from mia_lightning.errors import MIAError
from mia_lightning.scores.crossfit import assign_folds, cross_fit
from mia_lightning.signals.table import SignalTable


def table_of(n: int, seed: int = 0) -> SignalTable:
    rng = np.random.default_rng(seed)
    return SignalTable({"phi": rng.normal(size=n), "row": np.arange(n, dtype=np.float64)}, rng.integers(0, 3, n), 3)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 1)), min_size=20, max_size=200), st.integers(2, 7))
@settings(deadline=None, max_examples=60)
def test_folds_are_balanced_and_complete(rows, folds):
    labels, member = (np.array(column) for column in zip(*rows, strict=True))
    if min((member == 0).sum(), (member == 1).sum()) < folds:
        with pytest.raises(MIAError, match="fewer than the"):
            assign_folds(labels, member.astype(np.int8), folds=folds, seed=1)
        return
    fold = assign_folds(labels, member.astype(np.int8), folds=folds, seed=1)
    assert ((fold == -1) == (member == -1)).all()
    sizes = np.bincount(fold[fold >= 0], minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for value in (0, 1):
        for label in range(5):
            counts = np.bincount(fold[(member == value) & (labels == label)], minlength=folds)
            assert counts.max() - counts.min() <= 1


def test_folds_depend_on_the_seed_only():
    labels, member = np.zeros(100, dtype=np.int64), np.arange(100, dtype=np.int8) % 2
    first, again = (assign_folds(labels, member, folds=5, seed=3) for _ in range(2))
    assert (first == again).all()
    assert (first != assign_folds(labels, member, folds=5, seed=4)).any()


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
    fold = assign_folds(table.labels, member, folds=5, seed=0)
    results = cross_fit({"memorizer": Memorizer(), "echo": Echo()}, table, member, fold, seed=0)
    assert (results["memorizer"].scores == 0).all()
    assert (results["echo"].scores == 0).all()


def test_membership_of_rows_outside_the_folds_is_never_read():
    table = table_of(90)
    member = (np.arange(90) % 2).astype(np.int8)
    fold = np.concatenate([assign_folds(table.labels[:60], member[:60], folds=5, seed=0), np.full(30, -1, np.int8)])
    scores = []
    for unknown in (-1, 0, 1):
        joint = np.concatenate([member[:60], np.full(30, unknown, np.int8)])
        scores.append(cross_fit({"ratio": GaussianLikelihoodRatio()}, table, joint, fold, seed=0)["ratio"].scores)
    assert (scores[0] == scores[1]).all()
    assert (scores[0] == scores[2]).all()


def test_scores_equal_a_plain_loop():
    table, rng = table_of(200), np.random.default_rng(1)
    member = rng.integers(0, 2, 200).astype(np.int8)
    fold = np.concatenate([assign_folds(table.labels[:150], member[:150], folds=3, seed=0), np.full(50, -1, np.int8)])
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
    fold = assign_folds(table.labels, member, folds=3, seed=0)
    attacks = {"a": Threshold("phi"), "b": Threshold("phi", higher_is_member=False), "both": Fusion(["a", "b"])}
    results = cross_fit(attacks, table, member, fold, seed=0)
    np.testing.assert_allclose(results["both"].scores, 0, atol=1e-12)  # opposite rankings cancel


def test_scores_that_are_not_finite_are_refused():
    table = table_of(40).with_columns({"phi": np.full(40, np.inf)})
    member = np.arange(40, dtype=np.int8) % 2
    fold = assign_folds(table.labels, member, folds=2, seed=0)
    with pytest.raises(MIAError, match="'bad' gave 20 scores"):
        cross_fit({"bad": Threshold("phi")}, table, member, fold, seed=0)
