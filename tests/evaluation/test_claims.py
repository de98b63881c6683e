"""ReferenceOutputs per record against its definition, and the share of false claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, kstest

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.claims import claim, claim_new, class_p_values, conformal_p_values, q_values


def slow_p_value(scores, member, row, rows):
    non_members = [other for other in rows if member[other] == 0 and other != row]
    return (1 + sum(scores[other] >= scores[row] for other in non_members)) / (len(non_members) + 1)


@st.composite
def labeled(draw):
    count = draw(st.integers(2, 40))
    column = lambda high: draw(st.lists(st.integers(0, high), min_size=count, max_size=count))  # noqa: E731
    member = np.array(column(1))
    member[0], member[1] = 0, 1
    return np.array(column(8), dtype=float), member, np.array(column(3))


@given(labeled())
def test_p_values_are_their_definition(data):
    scores, member, labels = data
    rows = range(len(scores))
    assert conformal_p_values(scores, member).tolist() == [slow_p_value(scores, member, row, rows) for row in rows]
    in_class = [slow_p_value(scores, member, row, np.flatnonzero(labels == labels[row])) for row in rows]
    assert class_p_values(scores, member, labels).tolist() == in_class


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30))
def test_q_values_equal_scipy_and_step_up(p_values):
    p_values = np.array(p_values)
    assert q_values(p_values) == pytest.approx(false_discovery_control(p_values))
    for level in (0.05, 0.2):
        ranked = np.sort(p_values)
        passed = np.flatnonzero(ranked <= level * np.arange(1, len(ranked) + 1) / len(ranked))
        rejected = p_values <= ranked[passed[-1]] if len(passed) else np.zeros(len(p_values), bool)
        near = np.isclose(q_values(p_values), level)
        assert ((q_values(p_values) <= level) == rejected)[~near].all()


def test_p_values_of_fresh_non_members_are_uniform():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=4000)
    member = np.repeat([0, 1], 2000)  # "members" of the same law
    assert kstest(conformal_p_values(scores, member)[2000:], "uniform").pvalue > 0.01


@pytest.mark.parametrize("shift", [0, 3, 5])
def test_claimed_lists_hold_few_non_members(shift):
    rng = np.random.default_rng(1)
    shares, claimed = {0.05: [], 0.1: []}, 0
    for _ in range(60):
        member = np.repeat([0, 1], (1500, 500))
        claims = claim(rng.normal(size=2000) + shift * member, member)
        for level, rows in claims.claimed.items():
            shares[level].append((member[rows] == 0).mean() if len(rows) else 0)
            claimed += len(rows)
    assert all(np.mean(values) <= level for level, values in shares.items())
    assert claimed > 0 or shift == 0


def test_most_exposed_and_classes_without_non_members():
    scores = np.r_[np.arange(300.0), 900, 800, 700]
    member = np.r_[np.zeros(300, int), 1, 1, 1]
    labels = np.r_[np.zeros(300, int), 0, 1, 0]
    claims = claim(scores, member, labels, levels=(0.5,))
    assert claims.claimed[0.5][:3].tolist() == [300, 301, 302]
    assert claims.p_value_in_class[301] == 1
    assert claims.p_value_in_class[300] == 1 / 301
    assert claim(scores, member).p_value_in_class is None


def test_bad_input_is_refused():
    with pytest.raises(MIAError, match="need both"):
        claim(np.zeros(3), np.ones(3, int))


@pytest.mark.parametrize("base_rate", [0.5, 0.1, 0.01])
def test_lists_of_new_records_hold_few_non_members(base_rate):
    """Mean false-discovery proportion over 60 draws at q = 10%, against separate non-members."""
    rng = np.random.default_rng(7)
    shares = []
    for _ in range(60):
        member = rng.random(1500) < base_rate
        claims = claim_new(rng.normal(size=1500) + 3 * member, rng.normal(size=1000), (0.1,))
        rows = claims.claimed[0.1]
        shares.append((~member[rows]).mean() if len(rows) else 0.0)
    assert np.mean(shares) <= 0.1 + 2 * np.std(shares) / np.sqrt(60)


def test_p_values_of_new_records_are_their_definition():
    claims = claim_new(np.array([3.0, 0.0, 2.0]), np.array([1.0, 2.0]))
    assert claims.p_value.tolist() == [1 / 3, 1.0, 2 / 3]
    with pytest.raises(MIAError, match="need known non-members"):
        claim_new(np.zeros(3), np.zeros(0))


def grouped(seed, people=20, images=5):
    """Return scores and groups of people's images, which depend on each other within a person."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(people), images)
    return rng.normal(size=people)[groups] + 0.1 * rng.normal(size=len(groups)), groups


def test_p_values_by_group_are_their_definition():
    rng = np.random.default_rng(3)
    scores, groups = rng.integers(0, 6, 40).astype(float), rng.integers(0, 8, 40)
    member = (rng.random(40) < 0.5).astype(np.int8)
    p_values = conformal_p_values(scores, member, groups)
    for row in range(40):
        others = [g for g in range(8) if g != groups[row] and ((groups == g) & (member == 0)).any()]
        shares = [(scores[(groups == g) & (member == 0)] >= scores[row]).mean() for g in others]
        assert p_values[row] == pytest.approx((1 + sum(shares)) / (1 + len(others)))
    assert np.array_equal(conformal_p_values(scores, member, np.arange(40)), conformal_p_values(scores, member))


def test_p_values_by_group_hold_their_level_where_those_by_record_do_not():
    by_record, by_group = [], []
    for seed in range(600):
        scores, groups = grouped(seed)
        new = groups == 0  # the first person is new
        calibration, known = scores[~new], groups[~new]
        by_record.append(claim_new(scores[new], calibration).p_value[0])
        by_group.append(claim_new(scores[new], calibration, groups=known).p_value[0])
    error = np.sqrt(0.05 * 0.95 / 600)
    assert np.mean(np.array(by_group) <= 0.05) <= 0.05 + 3 * error
    assert np.mean(np.array(by_record) <= 0.011) > 0.011 + 3 * np.sqrt(0.01 * 0.99 / 600)
    assert min(by_group) == 0.05  # what 19 people resolve


def test_claims_are_by_group():
    scores, groups = grouped(1)
    member = (groups < 10).astype(np.int8)
    assert np.array_equal(claim(scores, member, groups=groups).p_value, conformal_p_values(scores, member, groups))
    assert claim(scores, member, groups=groups).p_value.min() > claim(scores, member).p_value.min()


@pytest.mark.parametrize("images", [3, 5, 7, 10])
def test_p_values_of_the_lowest_scores_are_at_most_1(images):
    """Sums of shares such as 1/5 are not exact."""
    for seed in range(5):
        scores, groups = grouped(seed, people=160, images=images)
        member = (groups % 2).astype(np.int8)
        result = claim(scores, member, groups=groups)
        assert result.p_value.max() <= 1
        new = claim_new(scores - 9, scores[member == 0], groups=groups[member == 0])
        assert 1 - 1e-12 < new.p_value.max() <= 1
