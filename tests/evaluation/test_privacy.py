"""Lower bounds on epsilon against printed values, scipy, simulation and their own assumptions."""

import numpy as np
import pytest
from scipy.special import ndtr

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.config import OneRun
from mia_lightning.evaluation.epsilon import _largest_refuted_at_rank, exact_epsilon, fixed_ranks
from mia_lightning.evaluation.one_run import (
    gaussian_epsilon,
    one_run_epsilon,
    one_run_f_dp_epsilon,
    one_run_gaussian_epsilon,
)
from mia_lightning.evaluation.privacy import privacy_bounds


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
def test_one_run_gaussian_vectors(canaries, guesses, correct, epsilon):
    assert one_run_gaussian_epsilon(canaries, guesses, correct, delta=1e-5) == pytest.approx(epsilon, abs=6e-5)


def test_gaussian_epsilon_inverts_its_formula():
    for mu in (0.1, 1, 6):
        epsilon = gaussian_epsilon(mu, 1e-5)
        delta = ndtr(-epsilon / mu + mu / 2) - np.exp(epsilon) * ndtr(-epsilon / mu - mu / 2)
        assert delta == pytest.approx(1e-5, rel=1e-6)
    assert gaussian_epsilon(0, 1e-5) == gaussian_epsilon(1, 0.999) == 0
    assert np.isfinite(gaussian_epsilon(60, 1e-5))


def bounds_of(draw, times):
    results = []
    for _ in range(times):
        members, non_members = draw()
        members, non_members = np.sort(members), np.sort(non_members)
        results.append(exact_epsilon(members, non_members, delta=0, error=0.05))
    return np.array(results)


def test_null_attacks_rarely_refute_epsilon_0():
    """600 draws tell +-2% at 5%; the maximum over thresholds without correction rejects in 7-11%."""
    rng = np.random.default_rng(0)
    bounds = bounds_of(lambda: (rng.normal(size=300), rng.normal(size=300)), 600)
    assert (bounds > 0).mean() <= 0.06


def test_bounds_below_epsilon_of_randomized_response():
    """A bit that is right with probability e^eps / (1 + e^eps) is exactly eps-private; noise breaks the ties."""
    rng = np.random.default_rng(1)
    right = np.exp(1) / (1 + np.exp(1))

    def draw():
        bits = [rng.random(2000) < rate for rate in (right, 1 - right)]
        return [bit + 0.1 * rng.random(2000) for bit in bits]

    bounds = bounds_of(draw, 200)
    assert (bounds > 1).mean() <= 0.08
    assert np.median(bounds) > 0.8


def test_one_run_bound_is_valid_on_randomized_response():
    rng = np.random.default_rng(2)
    right = np.exp(1) / (1 + np.exp(1))
    above = [one_run_epsilon(1000, 1000, int(rng.binomial(1000, right)), delta=0) > 1 for _ in range(300)]
    assert np.mean(above) <= 0.08


def test_one_run_f_dp_never_refutes_randomized_response():
    """Where the Gaussian figure is above the true epsilon, the bound for any mechanism is not."""
    rng = np.random.default_rng(4)
    right = np.exp(1) / (1 + np.exp(1))
    counts = rng.binomial(1000, right, 200)
    assert np.mean([one_run_f_dp_epsilon(1000, 1000, int(v), delta=1e-5) > 1 for v in counts]) <= 0.08
    assert np.mean([one_run_gaussian_epsilon(1000, 1000, int(v), delta=1e-5) > 1 for v in counts[:20]]) == 1


def test_exact_bound_has_the_error_of_the_simulated_law():
    """One rank: with the least favorable members, epsilon is refuted in at most the stated share of draws."""
    rng = np.random.default_rng(5)
    level, n, k, epsilon = 0.1, 200, 20, 0.7
    fpr = rng.beta(k + 1, n - k, 4000)
    above = rng.binomial(300, np.minimum(np.exp(epsilon) * fpr, 1 - np.exp(-epsilon) * (1 - fpr)))
    bounds = {int(t): _largest_refuted_at_rank(k, int(t), 300, n, 0.0, level) for t in np.unique(above)}
    refuted = np.mean([bounds[int(t)] >= epsilon for t in above])
    assert 0.06 < refuted <= level + 3 * np.sqrt(level * (1 - level) / 4000)


@pytest.mark.parametrize(
    ("per_side", "mu", "theirs"), [(500, 1, 1.01), (500, 2, 2.68), (2000, 1, 1.59), (2000, 2, 3.50)]
)
def test_exact_bound_at_least_jax_privacy(per_side, mu, theirs):
    """Medians of jax_privacy 2.0.0's best threshold strategy on the same draws (delta 1e-5)."""
    bounds = []
    for repetition in range(12 if per_side == 500 else 6):
        rng = np.random.default_rng((21, per_side, 10 * mu, repetition))
        member = rng.integers(0, 2, 2 * per_side)
        scores = rng.normal(size=2 * per_side) + mu * member
        members, non_members = np.sort(scores[member == 1]), np.sort(scores[member == 0])
        bounds.append(exact_epsilon(members, non_members, delta=1e-5, error=0.05))
    assert theirs <= np.median(bounds) < gaussian_epsilon(mu, 1e-5)


@pytest.mark.parametrize(("epsilon", "theirs"), [(0.5, 0.338), (1.0, 0.851)])
def test_exact_bound_at_least_jax_privacy_with_ties(epsilon, theirs):
    """Randomized response, 1,000 a side, delta 0: medians of jax_privacy 2.0.0's best strategy on the same draws."""
    bounds, right = [], 1 / (1 + np.exp(-epsilon))
    for repetition in range(40):
        rng = np.random.default_rng((9, repetition))
        bits = np.append(rng.random(1000) < right, rng.random(1000) < 1 - right).astype(float)
        bounds.append(privacy_bounds("a", bits, np.repeat([1, 0], 1000), delta=0.0, seed=repetition)[0].epsilon)
    assert theirs <= np.median(bounds) < epsilon
    assert np.mean(np.array(bounds) > epsilon) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 40)


def test_ties_cost_nothing():
    """Randomized response with two scores: random order within ties keeps the bound near that of untied scores."""
    rng = np.random.default_rng(6)
    right = np.exp(1) / (1 + np.exp(1))
    member = np.repeat([1, 0], 1000)
    bits = np.where(rng.random(2000) < right, member, 1 - member).astype(float)
    tied = privacy_bounds("a", bits, member, delta=0)[0].epsilon
    untied = privacy_bounds("a", bits + 1e-3 * rng.random(2000), member, delta=0)[0].epsilon
    assert tied == pytest.approx(untied, abs=0.1)


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


def test_bounds_state_assumptions_one_run_is_declared():
    scores, member = scored()
    bounds = privacy_bounds("lira", scores, member, delta=1e-5)
    assert len(bounds) == 4
    assert all(bound.assumptions for bound in bounds)
    assert all(bound.epsilon > 0 for bound in bounds[:1])
    assert all("empirical epsilon" in bound.assumptions for bound in bounds[:1])
    assert all(bound.epsilon is None and "random inclusion" in bound.refusal for bound in bounds[1:])
    declared = privacy_bounds("lira", scores, member, delta=1e-5, one_run=OneRun(random_inclusion=True))
    assert all(bound.epsilon > 0.5 and bound.refusal is None for bound in declared[1:])


@pytest.mark.parametrize(
    ("member", "one_run", "said"),
    [
        (np.arange(2000) % 10 == 0, OneRun(True), "are unlikely under random inclusion"),
        (np.arange(2000) % 2, OneRun(True, 2000, 1), "do not fit 2000 records"),
        (np.arange(2000) % 2, OneRun(True, 0, 0), "do not fit"),
    ],
)
def test_one_run_is_refused_where_its_assumptions_are_violated(member, one_run, said):
    bounds = privacy_bounds("a", np.arange(2000.0), member.astype(int), delta=1e-5, one_run=one_run)
    assert all(said in bound.refusal for bound in bounds[1:])


def test_gaussian_bound_refused_at_delta_0_or_few_records():
    scores, member = scored()
    *_, steinke, f_dp, gaussian = privacy_bounds("a", scores, member, delta=0, one_run=OneRun(random_inclusion=True))
    assert min(steinke.epsilon, f_dp.epsilon) > 0
    assert "delta" in gaussian.refusal
    assert "if the mechanism is Gaussian" in gaussian.method
    with pytest.raises(MIAError, match="delta above 0"):
        one_run_gaussian_epsilon(10, 5, 5, delta=0)
    few = privacy_bounds("a", np.arange(6.0), np.array([0, 1] * 3), delta=0)
    assert all("too few records" in bound.refusal for bound in few[:1])


def test_arguments_out_of_range_are_refused():
    scores, member = scored(100)
    for delta in (-1e-9, 1, np.nan):
        with pytest.raises(MIAError, match="delta must lie"):
            privacy_bounds("a", scores, member, delta=delta)
    with pytest.raises(MIAError, match="confidence"):
        privacy_bounds("a", scores, member, delta=0, confidence=1)
    with pytest.raises(MIAError, match="impossible"):
        one_run_epsilon(10, 20, 5, delta=0)


def test_tied_guesses_are_drawn_at_random_not_by_membership():
    member = np.repeat([0, 1], 1000)
    bounds = privacy_bounds("a", np.zeros(2000), member, delta=0, one_run=OneRun(random_inclusion=True))
    assert bounds[1].epsilon < 0.3


@pytest.mark.parametrize(("truth", "low", "high"), [(1, 0.8, 1), (4, 3.4, 4), (8, 5, 8)])
def test_one_run_presets_use_the_power_of_many_guesses(truth, low, high):
    """Randomized response: the best of three preset numbers of guesses, each at a third of the error."""
    rng, bounds = np.random.default_rng(0), []
    for seed in range(5):
        member = rng.integers(0, 2, 2000)
        answers = np.where(rng.random(2000) < 1 / (1 + np.exp(-truth)), member, 1 - member).astype(float)
        declared = OneRun(random_inclusion=True)
        bounds.append(privacy_bounds("rr", answers, member, delta=1e-5, one_run=declared, seed=seed)[1].epsilon)
    assert low < np.median(bounds) < high


def test_one_bound_is_reported():
    member = np.arange(200) % 2
    bounds = privacy_bounds("a", member + 0.0, member, delta=1e-5, reported="one_run_f_dp")
    assert [bound.reported for bound in bounds] == [False, False, True, False]
