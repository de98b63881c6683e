"""Lower bounds on epsilon against printed values, scipy, simulation and their own assumptions."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.config import OneRun
from mia_lightning.evaluation.epsilon import (
    bonferroni_epsilon,
    clopper_pearson,
    epsilon_from_counts,
    fixed_ranks,
    multi_split_epsilon,
    split_epsilon,
)
from mia_lightning.evaluation.one_run import gaussian_epsilon, one_run_epsilon, one_run_f_dp_epsilon
from mia_lightning.evaluation.privacy import privacy_bounds


@pytest.mark.parametrize(
    ("counts", "epsilon"),
    [
        ((435, 3000, 150, 3000), 0.8196),
        ((500, 1000, 5, 1000), 3.6961),
        ((100, 1000, 0, 1000), 3.1045),
        ((1000, 1000, 0, 1000), 5.6006),
    ],
)
def test_clopper_pearson_vectors(counts, epsilon):
    assert float(epsilon_from_counts(*counts)) == pytest.approx(epsilon, abs=6e-5)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "epsilon"),
    [
        (1000, 100, 95, 0, 2.1724),
        (1000, 100, 95, 1e-5, 2.1652),
        (1000, 500, 400, 1e-5, 1.1980),
        (5000, 1500, 1500, 1e-5, 6.0790),
        (1000, 1000, 600, 0, 0.2975),
        (1000, 20, 20, 0, 1.8227),
    ],
)
def test_one_run_vectors(canaries, guesses, correct, delta, epsilon):
    assert one_run_epsilon(canaries, guesses, correct, delta=delta) == pytest.approx(epsilon, abs=6e-5)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "epsilon"),
    [(1000, 100, 95, 3.3233), (1000, 500, 400, 2.0768), (5000, 1500, 1500, 10.9062)],
)
def test_one_run_f_dp_vectors(canaries, guesses, correct, epsilon):
    assert one_run_f_dp_epsilon(canaries, guesses, correct, delta=1e-5) == pytest.approx(epsilon, abs=6e-5)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(435, 3000, 0.1326, 0.1581), (275, 3000, 0.0816, 0.1026), (2, 20000, 1.2e-5, 3.6e-4), (0, 10000, 0, 3.7e-4)],
)
def test_clopper_pearson_is_that_of_scipy(count, total, low, high):
    found = [float(end) for end in clopper_pearson(count, total, 0.025)]
    assert found == pytest.approx([low, high], rel=0.02, abs=5e-5)
    exact = binomtest(count, total).proportion_ci(0.95, "exact")
    assert found == pytest.approx([exact.low, exact.high], rel=1e-9)


def test_full_and_empty_counts_have_bounds():
    assert [float(end) for end in clopper_pearson(7, 7, 0.05)] == pytest.approx([0.05 ** (1 / 7), 1])
    assert float(epsilon_from_counts(0, 10, 10, 10)) == 0


def test_gaussian_epsilon_inverts_its_formula():
    for mu in (0.1, 1, 6):
        epsilon = gaussian_epsilon(mu, 1e-5)
        delta = ndtr(-epsilon / mu + mu / 2) - np.exp(epsilon) * ndtr(-epsilon / mu - mu / 2)
        assert delta == pytest.approx(1e-5, rel=1e-6)
    assert gaussian_epsilon(0, 1e-5) == gaussian_epsilon(1, 0.999) == 0
    assert np.isfinite(gaussian_epsilon(60, 1e-5))


def bounds_of(rng, draw, times):
    found = []
    for _ in range(times):
        members, others = draw()
        members, others = np.sort(members), np.sort(others)
        found.append(
            (
                bonferroni_epsilon(members, others, delta=0, error=0.05),
                split_epsilon(members, others, delta=0, error=0.05, rng=rng),
                multi_split_epsilon(members, others, delta=0, error=0.05, rng=rng, splits=11),
            )
        )
    return np.array(found)


def test_null_attacks_refute_epsilon_0_at_most_as_often_as_stated():
    """600 draws tell +-2% at 5%; the maximum over thresholds without correction rejects in 7-11%."""
    rng = np.random.default_rng(0)
    found = bounds_of(rng, lambda: (rng.normal(size=300), rng.normal(size=300)), 600)
    assert ((found > 0).mean(axis=0) <= 0.06).all()


def test_bounds_stay_below_the_true_epsilon_of_randomised_response():
    """A bit that is right with probability e^eps / (1 + e^eps) is exactly eps-private; noise breaks the ties."""
    rng = np.random.default_rng(1)
    right = np.exp(1) / (1 + np.exp(1))

    def draw():
        bits = [rng.random(2000) < rate for rate in (right, 1 - right)]
        return [bit + 0.1 * rng.random(2000) for bit in bits]

    found = bounds_of(rng, draw, 200)
    assert ((found > 1).mean(axis=0) <= 0.08).all()
    assert (np.median(found, axis=0) > 0.7).all()


def test_one_run_bound_is_valid_on_randomised_response():
    rng = np.random.default_rng(2)
    right = np.exp(1) / (1 + np.exp(1))
    above = [one_run_epsilon(1000, 1000, int(rng.binomial(1000, right)), delta=0) > 1 for _ in range(300)]
    assert np.mean(above) <= 0.08


def test_fixed_ranks_are_distinct_and_in_range():
    for count in (1, 2, 3, 10, 1000):
        ranks = fixed_ranks(count)
        assert len(set(ranks.tolist())) == len(ranks)
        assert ranks.min() == 0
        assert ranks.max() == count - 1


def scored(n=2000, shift=1.5):
    rng = np.random.default_rng(3)
    member = rng.integers(0, 2, n)
    return rng.normal(size=n) + shift * member, member


def test_every_bound_states_its_assumptions_and_one_run_needs_a_declaration():
    scores, member = scored()
    bounds = privacy_bounds("lira", scores, member, delta=1e-5)
    assert len(bounds) == 5
    assert all(bound.assumptions for bound in bounds)
    assert all(bound.epsilon > 0 for bound in bounds[:3])
    assert all("empirical epsilon" in bound.assumptions for bound in bounds[:3])
    assert all(bound.epsilon is None and "fair coins" in bound.refusal for bound in bounds[3:])
    declared = privacy_bounds("lira", scores, member, delta=1e-5, one_run=OneRun(random_inclusion=True))
    assert all(bound.epsilon > 0.5 and bound.refusal is None for bound in declared[3:])


@pytest.mark.parametrize(
    ("member", "one_run", "said"),
    [
        (np.arange(2000) % 10 == 0, OneRun(True), "do not look like fair coins"),
        (np.arange(2000) % 2, OneRun(True, 2000, 1), "do not fit 2000 records"),
        (np.arange(2000) % 2, OneRun(True, 0, 0), "do not fit"),
    ],
)
def test_one_run_is_refused_where_its_assumptions_are_violated(member, one_run, said):
    bounds = privacy_bounds("a", np.arange(2000.0), member.astype(int), delta=1e-5, one_run=one_run)
    assert all(said in bound.refusal for bound in bounds[3:])


def test_f_dp_is_refused_at_delta_0_and_rates_with_too_few_records():
    scores, member = scored()
    *_, steinke, f_dp = privacy_bounds("a", scores, member, delta=0, one_run=OneRun(random_inclusion=True))
    assert steinke.epsilon > 0
    assert "delta" in f_dp.refusal
    with pytest.raises(MIAError, match="delta above 0"):
        one_run_f_dp_epsilon(10, 5, 5, delta=0)
    few = privacy_bounds("a", np.arange(6.0), np.array([0, 1] * 3), delta=0)
    assert all("too few records" in bound.refusal for bound in few[:3])


def test_arguments_out_of_range_are_refused():
    scores, member = scored(100)
    for delta in (-1e-9, 1, np.nan):
        with pytest.raises(MIAError, match="delta must lie"):
            privacy_bounds("a", scores, member, delta=delta)
    with pytest.raises(MIAError, match="confidence"):
        privacy_bounds("a", scores, member, delta=0, confidence=1)
    with pytest.raises(MIAError, match="impossible"):
        one_run_epsilon(10, 20, 5, delta=0)


def test_tied_guesses_are_drawn_by_lot_not_by_membership():
    member = np.repeat([0, 1], 1000)
    bounds = privacy_bounds("a", np.zeros(2000), member, delta=0, one_run=OneRun(random_inclusion=True))
    assert bounds[3].epsilon < 0.3
