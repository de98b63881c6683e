"""Paired differences against the plain bootstrap, agreement against sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.comparison import agreement, comparable_rates, differences, holm, paired_bootstrap
from mia_lightning.metrics.roc import auc, evaluate, tpr_at_fpr

RATES = (0.0, 0.01, 0.1)


def figures(scores, member):
    return [auc(scores, member), *(tpr_at_fpr(scores, member, rate) for rate in RATES)]


@st.composite
def two_attacks(draw):
    count = draw(st.integers(2, 40))
    member = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    member[0], member[1] = 0, 1
    column = st.lists(st.integers(0, 9), min_size=count, max_size=count)
    return {name: np.array(draw(column), dtype=float) for name in "ab"}, np.array(member)


@given(two_attacks())
@settings(max_examples=100)
def test_estimates_are_the_figures(data):
    scores, member = data
    bootstrap = paired_bootstrap(scores, member, RATES, resamples=1, seed=0)
    for row, values in zip(bootstrap.estimates, scores.values(), strict=True):
        assert row == pytest.approx(figures(values, member), abs=1e-12)


def example(n=900, digits=1):
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, n)
    common = rng.normal(size=n)
    scores = {"a": common + rng.normal(size=n) + 0.8 * member, "b": common + rng.normal(size=n) + 0.3 * member}
    return {name: np.round(values, digits) for name, values in scores.items()}, member


@pytest.mark.parametrize(("digits", "large"), [(1, 20_000), (9, 20_000), (1, 0)])
def test_resamples_have_the_law_of_the_plain_bootstrap(digits, large, monkeypatch):
    """Means, spreads and quantiles of both attacks and of their difference, with ties and without.

    Also with the AUC to first order, which is otherwise left to far more records.
    """
    monkeypatch.setattr("mia_lightning.evaluation.comparison.LARGE", large)
    scores, member = example(digits=digits)
    bootstrap = paired_bootstrap(scores, member, RATES, resamples=1500, seed=0).resampled
    rng = np.random.default_rng(1)
    sides = [np.flatnonzero(member == value) for value in (0, 1)]
    plain = []
    for _ in range(1500):
        rows = np.concatenate([rng.choice(side, len(side)) for side in sides])
        plain.append([figures(values[rows], member[rows]) for values in scores.values()])
    plain = np.array(plain)
    for ours, theirs in ((bootstrap, plain), (bootstrap[:, 0] - bootstrap[:, 1], plain[:, 0] - plain[:, 1])):
        spread = theirs.std(axis=0)
        assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 5 * spread / np.sqrt(750)).all()
        assert ours.std(axis=0) == pytest.approx(spread, rel=0.12)
        for tail in (0.025, 0.975):
            moved = np.abs(np.quantile(ours, tail, axis=0) - np.quantile(theirs, tail, axis=0))
            assert (moved < 0.25 * spread + 0.003).all()


def test_resamples_do_not_depend_on_threads(monkeypatch):
    scores, member = example()
    whole = paired_bootstrap(scores, member, RATES, resamples=30, seed=3)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert (paired_bootstrap(scores, member, RATES, resamples=30, seed=3).resampled == whole.resampled).all()
    assert (paired_bootstrap(scores, member, RATES, resamples=30, seed=4).resampled != whole.resampled).any()


def test_spread_of_the_auc_is_delong_s():
    scores, member = example(2000, 9)
    bootstrap = paired_bootstrap(scores, member, (), resamples=1500, seed=0)
    for index, values in enumerate(scores.values()):
        error = evaluate(values, member, ()).auc_standard_error
        assert bootstrap.resampled[:, index, 0].std() == pytest.approx(error, rel=0.08)


def test_first_order_leaves_out_little_where_it_is_used(monkeypatch):
    scores, member = example(42_000, 2)
    results = {}
    for large in (20_000, 10**9):
        monkeypatch.setattr("mia_lightning.evaluation.comparison.LARGE", large)
        results[large] = paired_bootstrap(scores, member, (), resamples=60, seed=0)
    exact = results[10**9].resampled
    assert results[20_000].estimates == pytest.approx(results[10**9].estimates, abs=1e-12)
    assert np.abs(results[20_000].resampled - exact).max() < 0.03 * exact.std(axis=0).min()
    assert (results[20_000].resampled != exact).any()


def test_a_better_attack_is_found_and_the_same_attack_is_not():
    scores, member = example()
    same = {**scores, "copy": scores["a"]}
    rows = {
        (d.first, d.second, d.figure): d
        for d in differences(paired_bootstrap(same, member, (0.1,), resamples=400, seed=0))
    }
    better = rows["a", "b", "auc"]
    assert better.low > 0
    assert better.p_holm < 0.01
    assert better.value == pytest.approx(auc(scores["a"], member) - auc(scores["b"], member))
    equal = rows["a", "copy", "tpr@0.1"]
    assert (equal.value, equal.low, equal.high, equal.p_value, equal.p_holm) == (0, 0, 0, 1, 1)
    assert all(d.p_value <= d.p_holm <= 1 for d in rows.values())


def test_two_equally_good_attacks_seldom_differ():
    """Simulated null: at most the nominal 5% of comparisons, up to Monte-Carlo error (200 draws tell +-3%)."""
    rng = np.random.default_rng(2)
    member = np.repeat([0, 1], 300)
    rejected, covered = np.zeros(2), np.zeros(2)
    for again in range(200):
        common = rng.normal(size=600)
        scores = {name: common + rng.normal(size=600) + member for name in "ab"}
        bootstrap = differences(paired_bootstrap(scores, member, (0.1,), resamples=200, seed=again))
        rejected += [d.p_value < 0.05 for d in bootstrap]
        covered += [d.low <= 0 <= d.high for d in bootstrap]
    assert (rejected / 200 <= 0.085).all()
    assert (covered / 200 >= 0.915).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_step_down_definition(p_values):
    p_values = np.array(p_values)
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected = np.zeros(len(p_values), dtype=bool)
        for step, row in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[row] * (len(p_values) - step) > level:
                break
            rejected[row] = True
        assert ((adjusted <= level) == rejected).all()


@given(two_attacks(), st.sampled_from([0, 0.1, 0.5]))
def test_agreement_is_that_of_the_sets(data, alpha):
    scores, member = data
    overlap = agreement(scores, member, alpha)
    sets = {}
    for name, values in scores.items():
        rest = sorted(values[member == 0], reverse=True)
        sets[name] = {row for row, value in enumerate(values) if value > rest[int(alpha * len(rest) + 1e-9)]}
    either = sets["a"] | sets["b"]
    assert overlap.jaccard[0, 1] == overlap.jaccard[1, 0] == (len(sets["a"] & sets["b"]) / len(either) if either else 1)
    assert (np.diag(overlap.jaccard) == 1).all()
    assert set(overlap.only["a"]) == {row for row in sets["a"] - sets["b"] if member[row]}


def test_rates_with_few_false_positives_are_not_compared():
    assert comparable_rates((0, 0.001, 0.01, 0.05), 1000) == [0.01, 0.05]


def test_bad_scores_are_refused():
    with pytest.raises(MIAError, match="NaN"):
        paired_bootstrap({"a": np.array([0, np.nan])}, np.array([0, 1]), (), resamples=2, seed=0)
    with pytest.raises(MIAError, match="no scores"):
        agreement({}, np.array([0, 1]), 0.1)


def test_bootstrap_draws_groups():
    """Copies of every record leave the bootstrap's spread as it is; drawing records would shrink it by their number."""
    rng = np.random.default_rng(0)
    member = np.arange(200) % 2
    scores = {"a": rng.normal(size=200) + member, "b": rng.normal(size=200) + member}
    once = paired_bootstrap(scores, member, (0.1,), resamples=400, seed=0)
    repeated = {name: np.repeat(values, 9) for name, values in scores.items()}
    groups = np.repeat(np.arange(200), 9)
    nine = paired_bootstrap(repeated, np.repeat(member, 9), (0.1,), resamples=400, seed=0, groups=groups)
    np.testing.assert_allclose(nine.estimates, once.estimates)
    np.testing.assert_allclose(nine.resampled.std(axis=0), once.resampled.std(axis=0), rtol=0.2)
