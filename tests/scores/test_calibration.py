"""Calibration: correct probabilities, in the order of the scores, never fitted on their own fold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mia_lightning.errors import MIAError
from mia_lightning.metrics.roc import tpr_at_fpr
from mia_lightning.scores.calibration import Calibrator, Isotonic, Platt, cross_fit_probability

CALIBRATORS = [Platt(), Isotonic(), Isotonic(keep_rank_order=False)]
each_calibrator = pytest.mark.parametrize("calibrator", CALIBRATORS, ids=repr)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def simulated(n, log_odds, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n) * scale
    truth = sigmoid(log_odds(scores))
    return scores, (rng.random(n) < truth).astype(np.int8), truth


@each_calibrator
def test_recovers_known_probabilities(calibrator):
    scores, member, truth = simulated(20_000, lambda s: 0.4 * s - 0.5, scale=3)
    got = type(calibrator)(**options(calibrator)).fit(scores, member).predict_proba(scores)
    assert np.abs(got - truth).mean() < 0.02
    assert got.mean() == pytest.approx(member.mean(), abs=0.002)


def options(calibrator):
    return {"keep_rank_order": calibrator.keep_rank_order} if isinstance(calibrator, Isotonic) else {}


def test_platt_is_maximum_likelihood_on_any_scale():
    scores, member, _ = simulated(5000, lambda s: 2 * s - 1)
    fitted = Platt().fit(scores, member)
    assert (fitted.slope_, fitted.intercept_) == pytest.approx((2, -1), abs=0.15)
    np.testing.assert_allclose(
        Platt().fit(1e4 * scores + 1e6, member).predict_proba(1e4 * scores + 1e6),
        fitted.predict_proba(scores),
        rtol=1e-6,
    )
    residual = member - fitted.predict_proba(scores)
    assert residual.mean() == pytest.approx(0, abs=1e-3)
    assert (residual * scores).mean() == pytest.approx(0, abs=1e-3)


@each_calibrator
def test_never_falls_and_stays_a_probability(calibrator):
    scores, member, _ = simulated(500, lambda s: s)
    asked = np.r_[np.linspace(-1e3, 1e3, 2001), np.linspace(-5, 5, 2001)]
    for labels in (member, 1 - member):  # scores that rank the wrong way round are no license to turn the order
        got = type(calibrator)(**options(calibrator)).fit(scores, labels).predict_proba(asked)
        assert ((got >= 0) & (got <= 1)).all()
        assert (np.diff(got[np.argsort(asked, kind="stable")]) >= 0).all()


@each_calibrator
def test_perfect_separation_and_equal_scores_are_finite(calibrator):
    member = np.repeat([0, 1], 50).astype(np.int8)
    for scores in (np.arange(100.0), np.zeros(100), np.r_[np.zeros(99), 1e12]):
        got = type(calibrator)(**options(calibrator)).fit(scores, member).predict_proba(scores)
        assert np.isfinite(got).all()
    constant = type(calibrator)(**options(calibrator)).fit(np.zeros(100), member).predict_proba(np.zeros(3))
    assert constant == pytest.approx(0.5)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=80),
    st.lists(st.floats(-2e6, 2e6), min_size=1, max_size=80),
    st.integers(0, 2**30),
)
@settings(max_examples=150)
def test_isotonic_keeps_the_order_of_the_scores_exactly(fitted, asked, seed):
    member = np.random.default_rng(seed).integers(0, 2, len(fitted)).astype(np.int8)
    member[:2] = 0, 1
    scores = np.array([*asked, *fitted])
    broken = Isotonic().fit(np.array(fitted), member).predict_proba(scores)
    plain = Isotonic(keep_rank_order=False).fit(np.array(fitted), member).predict_proba(scores)
    _, ranks = np.unique(scores, return_inverse=True)
    _, got = np.unique(broken, return_inverse=True)
    np.testing.assert_array_equal(got, ranks)
    assert ((broken >= 0) & (broken <= 1)).all()
    np.testing.assert_allclose(broken, plain, rtol=0, atol=2e-12)


def test_isotonic_ties_cost_true_positives():
    scores, member, _ = simulated(8000, lambda s: s)
    raw = tpr_at_fpr(scores[4000:], member[4000:], 0.05)
    tied, broken = (
        tpr_at_fpr(Isotonic(t).fit(scores[:4000], member[:4000]).predict_proba(scores[4000:]), member[4000:], 0.05)
        for t in (False, True)
    )
    assert tied < raw
    assert broken == raw


# ---- cross-fitting


@pytest.fixture
def folded():
    scores, member, _ = simulated(600, lambda s: s, seed=1)
    fold = np.random.default_rng(2).integers(0, 4, 600)
    return scores, member, fold


@each_calibrator
def test_probabilities_of_a_fold_never_come_from_it(folded, calibrator):
    scores, member, fold = folded
    before = cross_fit_probability(scores, member, fold, calibrator)
    changed = np.where(fold == 2, 1 - member, member)
    after = cross_fit_probability(scores, changed, fold, calibrator)
    np.testing.assert_array_equal(after[fold == 2], before[fold == 2])
    assert (after[fold != 2] != before[fold != 2]).any()


def test_rows_without_fold_or_membership_are_not_fitted_on(folded):
    scores, member, fold = folded
    unknown = np.arange(600) % 5 == 0
    hidden, no_fold = np.where(unknown, -1, member).astype(np.int8), np.where(unknown, -1, fold)
    got = cross_fit_probability(scores, hidden, no_fold, Platt())
    alone = cross_fit_probability(scores[~unknown], member[~unknown], fold[~unknown], Platt())
    np.testing.assert_array_equal(got[~unknown], alone)
    everyone = Platt().fit(scores[~unknown], member[~unknown])
    np.testing.assert_array_equal(got[unknown], everyone.predict_proba(scores[unknown]))
    np.testing.assert_array_equal(
        cross_fit_probability(scores, np.where(unknown, 1, hidden).astype(np.int8), no_fold, Platt()), got
    )
    np.testing.assert_array_equal(cross_fit_probability(scores, hidden, fold, Platt())[~unknown], alone)


def test_the_given_calibrator_is_left_as_it_is(folded):
    calibrator = Platt()
    cross_fit_probability(*folded, calibrator)
    assert calibrator.slope_ == 0


def test_probabilities_hold_out_of_fold(folded):
    scores, member, fold = folded
    for calibrator in CALIBRATORS:
        got = cross_fit_probability(scores, member, fold, calibrator)
        assert roc_auc_score(member, got) == pytest.approx(roc_auc_score(member, scores), abs=0.03)
        assert got.mean() == pytest.approx(member.mean(), abs=0.01)


@each_calibrator
@pytest.mark.parametrize(
    ("scores", "member", "message"),
    [
        ([1, 2, np.nan], [0, 1, 1], "NaN"),
        ([1, 2, 3], [1, 1, 1], r"found only membership \[1\]"),
        ([1, 2, 3], [0, 1, -1], r"\[-1, 0, 1\]"),
        ([1, 2, 3], [0, 1], "shape"),
    ],
)
def test_bad_input_is_refused(calibrator, scores, member, message):
    with pytest.raises(MIAError, match=message):
        type(calibrator)().fit(np.array(scores, dtype=float), np.array(member, dtype=np.int8))


def test_base_class_is_a_contract():
    with pytest.raises(NotImplementedError):
        Calibrator().fit(np.zeros(2), np.array([0, 1], dtype=np.int8))
