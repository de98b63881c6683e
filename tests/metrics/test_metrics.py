"""Figures against slow definitions, scikit-learn, and simulation; and the same figure inside training loops."""

import json
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.forked import Forked, python
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from sklearn import metrics as sk
from torch import distributed

from mia_lightning.errors import MIAError
from mia_lightning.metrics.intervals import ClassError
from mia_lightning.metrics.ranks import without_ties
from mia_lightning.metrics.roc import (
    auc,
    evaluate,
    fpr_interval,
    mean_interval,
    partial_auc,
    roc_curve,
    tpr_at_fpr,
    tpr_interval,
)
from mia_lightning.metrics.torchmetric import TPRAtFPR
from mia_lightning.metrics.variance import fit_inflation


def slow_tpr(scores, member, allowed: Fraction) -> Fraction:
    """Try every threshold, and none; keep the best that the rate allows."""
    members = [s for s, m in zip(scores, member, strict=True) if m]
    non_members = [s for s, m in zip(scores, member, strict=True) if not m]
    best = Fraction(0)
    for threshold in scores:
        if Fraction(sum(s >= threshold for s in non_members), len(non_members)) <= allowed:
            best = max(best, Fraction(sum(s >= threshold for s in members), len(members)))
    return best


@st.composite
def ranked(draw):
    """Scores with many ties, and membership with both sides."""
    scores = draw(st.lists(st.integers(0, 12), min_size=2, max_size=60))
    member = draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores)))
    member[0], member[1] = 0, 1
    return np.array(scores, dtype=float), np.array(member)


@given(ranked(), st.fractions(0, 1, max_denominator=60).filter(lambda f: f < 1))
@settings(max_examples=300)
def test_tpr_is_the_best_that_the_rate_allows(data, rate):
    scores, member = data
    assert tpr_at_fpr(scores, member, float(rate)) == float(slow_tpr(scores, member, rate))


@pytest.mark.parametrize("n", [3, 7, 20, 49, 100, 1000])
def test_false_positives_allowed_are_exact(n):
    """k/n as a float times n may fall short of k; the k-th false positive is allowed all the same."""
    non_members, members = np.arange(n), np.arange(n) - 0.5
    scores, member = np.append(non_members, members), np.repeat([0, 1], n)
    for k in range(n):
        expected = sum(m > n - 1 - k for m in members) / n
        assert tpr_at_fpr(scores, member, k / n) == expected, k
        assert tpr_at_fpr(scores, member, np.nextafter(k / n, 1)) == expected
        if k:
            assert tpr_at_fpr(scores, member, k / n * (1 - 1e-9)) == sum(m > n - k for m in members) / n


@given(ranked())
@settings(max_examples=200)
def test_roc_has_the_points_of_scikit_learn_and_loses_on_ties(data):
    scores, member = data
    fpr, tpr = roc_curve(scores, member)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    steps = np.stack([np.diff(fpr), np.diff(tpr)])
    assert (steps >= 0).all()
    assert ((steps > 0).sum(axis=0) == 1).all(), "every step is to the right or up, and is one"
    for x, y in zip(*sk.roc_curve(member, scores, drop_intermediate=False)[:2], strict=True):
        on_edge = ((fpr[:-1] <= x) & (x <= fpr[1:]) & (tpr[:-1] <= y) & (y <= tpr[1:])).any()
        assert on_edge, (x, y)
    for rate in (0, 0.1, 0.25, 0.5):
        assert tpr[fpr <= rate].max() == tpr_at_fpr(scores, member, rate)


@given(ranked())
@settings(max_examples=100)
def test_auc_is_that_of_scikit_learn(data):
    scores, member = data
    assert auc(scores, member) == pytest.approx(sk.roc_auc_score(member, scores), abs=1e-12)


def test_figures_depend_on_the_order_of_the_scores_only():
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, 3000)
    scores = rng.normal(size=3000) + member
    once = evaluate(scores, member)
    again = evaluate(np.exp(3 * scores)[::-1], member[::-1])
    for name in ("auc", "auc_low", "auc_high", "distinct", "largest_tie"):
        assert getattr(once, name) == pytest.approx(getattr(again, name))
    assert [(p.tpr, p.low, p.high) for p in once.points] == [(p.tpr, p.low, p.high) for p in again.points]


def test_evaluation_reports_n_resolution_and_ties():
    scores = np.r_[np.full(4, 9.0), np.arange(96) / 100, np.arange(300) / 400]
    member = np.r_[np.ones(100, int), np.zeros(300, int)]
    figures = evaluate(scores, member, fprs=(0.001, 0.01, 0.05))
    assert (figures.n_members, figures.n_non_members) == (100, 300)
    assert figures.distinct == len(set(scores.tolist()))
    assert figures.largest_tie == 4
    assert [point.resolvable for point in figures.points] == [False, True, True]
    assert [point.false_positives for point in figures.points] == [0, 3, 15]
    assert figures.points[0].tpr == tpr_at_fpr(scores, member, 0)
    values = json.loads(json.dumps(figures.to_dict(), allow_nan=False))
    assert values["points"][2]["tpr"] == figures.points[2].tpr
    assert values["n_members"] == 100


def test_tie_across_the_highest_5_percent_counts_completely():
    scores = np.r_[np.arange(10.0), np.full(90, -1.0)]
    member = np.arange(100) % 2
    assert evaluate(scores, member).largest_tie == 1
    assert evaluate(-scores, member).largest_tie == 90


@pytest.mark.parametrize(
    ("scores", "member", "message"),
    [
        ([1, 2, np.nan], [0, 1, 1], "1 of 3 scores are NaN"),
        ([1, 2, np.inf], [0, 1, 1], "infinite"),
        ([1, 2, 3], [1, 1, 1], "3 members and 0 non-members"),
        ([1, 2, 3], [0, 0, 0], "0 members and 3 non-members"),
        ([1, 2, 3], [0, 1], "shape"),
        ([1, 2, 3], [0, 1, -1], "unknown membership"),
        ([], [], "0 members"),
    ],
)
def test_bad_input_is_refused(scores, member, message):
    for function in (evaluate, roc_curve, auc, lambda s, m: tpr_at_fpr(s, m, 0.1)):
        with pytest.raises(MIAError, match=message):
            function(np.array(scores, dtype=float), np.array(member, dtype=int))


def test_bad_rate_is_refused():
    for rate in (-0.1, 1, 1.5, np.nan):
        with pytest.raises(MIAError, match="false-positive rate"):
            tpr_at_fpr(np.array([0.0, 1]), np.array([0, 1]), rate)


# ---- intervals


def draw(rng, n, shift, scale):
    return np.sort(rng.normal(shift, scale, n)), np.sort(rng.normal(size=n))


@pytest.mark.parametrize(("shift", "scale"), [(1, 1), (0.3, 1), (0, 1), (0, 2)])
@pytest.mark.parametrize(("n", "fpr", "most"), [(4000, 0.05, 0.985), (4000, 0.01, 0.985), (1000, 0.01, 0.995)])
def test_tpr_interval_covers(shift, scale, n, fpr, most):
    """The TPR at exactly this FPR in the population lies inside in 95% of samples; 400 samples tell +-3%."""
    rng = np.random.default_rng(1)
    truth = ndtr((shift - ndtri(1 - fpr)) / scale)
    intervals = np.array([tpr_interval(*draw(rng, n, shift, scale), fpr) for _ in range(400)])
    covered = ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean()
    assert 0.92 <= covered <= most


def test_tpr_interval_is_as_wide_as_the_bootstrap():
    rng = np.random.default_rng(2)
    members, non_members = draw(rng, 10_000, 0.7, 1)
    member = np.repeat([1, 0], 10_000)
    for fpr in (0.01, 0.05):
        resampled = [
            tpr_at_fpr(np.append(rng.choice(members, 10_000), rng.choice(non_members, 10_000)), member, fpr)
            for _ in range(400)
        ]
        low, high = np.quantile(resampled, (0.025, 0.975))
        got = tpr_interval(members, non_members, fpr)
        assert got[1] - got[0] == pytest.approx(high - low, rel=0.15)
        assert got == pytest.approx((low, high), abs=0.2 * (high - low))


def test_tpr_interval_never_collapses_nor_loses_the_estimate():
    rng = np.random.default_rng(3)
    for members, non_members in (
        (np.sort(rng.normal(-9, 1, 500)), np.sort(rng.normal(size=500))),  # no member above
        (np.sort(rng.normal(99, 1, 500)), np.sort(rng.normal(size=500))),  # all above
        (np.zeros(50), np.zeros(50)),  # all tied
        (np.array([1.0]), np.array([0.0])),
        (np.array([0.0]), np.array([1.0])),
    ):
        scores, member = np.append(members, non_members), np.repeat([1, 0], [len(members), len(non_members)])
        for fpr in (0, 0.001, 0.01, 0.05, 0.5):
            low, high = tpr_interval(members, non_members, fpr)
            assert 0 <= low <= tpr_at_fpr(scores, member, fpr) <= high <= 1
            assert high - low > 1 / (2 * len(members) + 2)


def test_fpr_of_a_threshold_follows_its_interval():
    rng = np.random.default_rng(4)
    n, k = 500, 5
    low, high = fpr_interval(k, n)
    realized = [1 - ndtr(np.sort(rng.normal(size=n))[n - 1 - k]) for _ in range(3000)]
    assert np.mean(np.array(realized) < low) == pytest.approx(0.025, abs=0.012)
    assert np.mean(np.array(realized) > high) == pytest.approx(0.025, abs=0.012)


def test_delong_is_the_bootstrap_of_the_auc():
    rng = np.random.default_rng(5)
    member = np.repeat([0, 1], (600, 300))
    scores = np.round(rng.normal(size=900) + 0.8 * member, 1)  # with ties
    figures = evaluate(scores, member)
    resampled = []
    for _ in range(1500):
        rows = np.append(rng.integers(0, 600, 600), rng.integers(600, 900, 300))
        resampled.append(auc(scores[rows], member[rows]))
    assert figures.auc_standard_error == pytest.approx(np.std(resampled), rel=0.08)
    assert (figures.auc_low, figures.auc_high) == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.004)


def test_auc_interval_covers_and_stays_inside():
    rng = np.random.default_rng(6)
    member = np.repeat([0, 1], 100)
    for shift in (0, 1, 2.5):
        truth = ndtr(shift / np.sqrt(2))
        figures = [evaluate(rng.normal(size=200) + shift * member, member, fprs=()) for _ in range(400)]
        assert all(0 <= f.auc_low < f.auc < f.auc_high <= 1 or f.auc == 1 for f in figures)
        assert 0.92 <= np.mean([f.auc_low <= truth <= f.auc_high for f in figures]) <= 0.99


def test_perfect_separation_is_not_certain():
    separated = evaluate(np.repeat([0.0, 1], 100), np.repeat([0, 1], 100))
    assert separated.auc == separated.auc_high == 1
    assert 0.95 < separated.auc_low < 0.99
    reversed_ = evaluate(np.repeat([1.0, 0], 100), np.repeat([0, 1], 100))
    assert (reversed_.auc_low, reversed_.auc_high) == pytest.approx((0, 1 - separated.auc_low))
    tied = evaluate(np.zeros(20), np.repeat([0, 1], 10))
    assert tied.auc == 0.5
    assert tied.auc_low <= 0.5 <= tied.auc_high
    single = evaluate(np.array([0.0, 2, 1]), np.array([0, 0, 1]))
    assert 0 <= single.auc_low < single.auc < single.auc_high <= 1


@pytest.mark.parametrize(("successes", "count"), [(0, 3), (2, 5), (7, 20), (20, 20)])
def test_mean_interval_of_zeros_and_ones_is_clopper_pearson(successes, count):
    rate = successes / count
    expected = binomtest(successes, count).proportion_ci(0.95)
    side = ClassError(count, rate * (1 - rate), (-rate, 1 - rate))
    assert mean_interval(rate, [side]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def covered(sample, truth, low, high, repetitions=300, **options):
    """Return the share of samples whose interval contains the truth."""
    hits = 0
    for seed in range(repetitions):
        figures = evaluate(*sample(np.random.default_rng(seed)), **options)
        hits += getattr(figures, low) <= truth <= getattr(figures, high)
    return hits / repetitions


@pytest.mark.parametrize("shift", [1, 4, 5.5])
@pytest.mark.parametrize(("members", "non_members"), [(3, 2000), (1000, 5), (40, 2000), (10, 10), (20_000, 400)])
def test_auc_interval_covers_near_1_and_in_lopsided_samples(shift, members, non_members):
    """The standard error of 300 samples is 1.3%; few records make the interval conservative."""
    member = np.repeat([1, 0], (members, non_members))
    share = covered(
        lambda rng: (rng.normal(size=len(member)) + shift * member, member),
        ndtr(shift / np.sqrt(2)), "auc_low", "auc_high", 150 if len(member) > 1000 else 300, fprs=(),
    )  # fmt: skip
    assert share >= 0.91


@pytest.mark.parametrize("members", [3, 20])
def test_partial_auc_interval_covers_near_1_with_few_members(members):
    """Normal scores 4.4 apart (AUC 0.999), 5,000 non-members; 72-85% before unseen members were allowed for."""
    member = np.repeat([1, 0], (members, 5000))
    mean_tpr = ndtr(4.37 + ndtri((np.arange(1000) + 0.5) / 20_000)).mean()
    truth = 0.5 * (1 + (mean_tpr - 0.025) / (1 - 0.025))
    share = covered(
        lambda rng: (rng.normal(size=len(member)) + 4.37 * member, member),
        truth, "partial_auc_low", "partial_auc_high", 150, fprs=(),
    )  # fmt: skip
    assert share >= 0.91


@pytest.mark.parametrize(("members", "non_members"), [(40, 2000), (1000, 1000), (20_000, 400)])
def test_partial_auc_interval_covers_with_ties(members, non_members):
    """Four score values: 60% of the members and 30% of the non-members share the highest."""
    member = np.repeat([1, 0], (members, non_members))
    truth = 0.5 * (1 + (0.05 - 0.025) / (1 - 0.025))  # the ROC starts with slope 2: mean TPR 0.05 up to an FPR of 5%

    def sample(rng):
        probabilities = ([0.1, 0.1, 0.2, 0.6], [0.3, 0.2, 0.2, 0.3])
        sides = [rng.choice(4, n, p=p) for n, p in zip((members, non_members), probabilities, strict=True)]
        return np.concatenate(sides).astype(float), member

    assert 0.91 <= covered(sample, truth, "partial_auc_low", "partial_auc_high", 200, fprs=()) <= 0.995


@pytest.mark.parametrize(("shift", "non_members", "fpr"), [(0, 100, 0), (1, 500, 0), (4, 100, 0.001), (1, 50, 0.01)])
def test_unresolvable_point_covers_the_tpr_of_its_threshold(shift, non_members, fpr):
    hits, above = 0, 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        scores = np.append(rng.normal(shift, 1, 300), rng.normal(size=non_members))
        (point,) = evaluate(scores, np.repeat([1, 0], (300, non_members)), fprs=(fpr,)).points
        assert not point.resolvable
        hits += point.low <= ndtr(shift - point.threshold) <= point.high
        above += ndtr(-point.threshold) > 3.7 / non_members
    assert 0.93 <= hits / 400 <= 1
    assert above / 400 < 0.05, "the FPR of the highest of n non-members is below 3.7 / n"


def test_fpr_interval_covers_at_tied_thresholds():
    """Scores rounded to 0.5: the printed FPR is that of the threshold that decides."""
    hits = []
    for seed in range(400):
        scores = np.round(2 * np.random.default_rng(seed).normal(size=600)) / 2
        (point,) = evaluate(scores, np.arange(600) % 2, fprs=(0.05,)).points
        assert point.false_positives == (scores[np.arange(600) % 2 == 0] > point.threshold).sum()
        hits.append(point.fpr_low <= ndtr(-(point.threshold + 0.25)) <= point.fpr_high)
    assert np.mean(hits) >= 0.93


@pytest.mark.parametrize("n", [4, 40, 4000])
def test_constant_scores_are_chance_with_certainty(n):
    figures = evaluate(np.full(n, 0.5), np.arange(n) % 2, (0.0, 0.01, 0.5))
    assert (figures.auc, figures.auc_low, figures.auc_high) == (0.5, 0.5, 0.5)
    assert (figures.partial_auc, figures.partial_auc_low, figures.partial_auc_high) == (0.5, 0.5, 0.5)
    assert all(point.tpr == 0 == point.false_positives for point in figures.points)


@pytest.mark.parametrize(("members", "non_members"), [(1, 1), (1, 50), (50, 1)])
def test_one_record_of_a_class_has_wide_finite_intervals(members, non_members):
    rng = np.random.default_rng(0)
    figures = evaluate(rng.normal(size=members + non_members), np.repeat([1, 0], (members, non_members)))
    json.dumps(figures.to_dict(), allow_nan=False)
    assert figures.auc_high - figures.auc_low > 0.5
    assert figures.partial_auc_high - figures.partial_auc_low > 0.1


def test_direction_is_reported():
    rng = np.random.default_rng(0)
    member = np.arange(400) % 2
    loss = rng.normal(size=400) - 1.2 * member
    assert evaluate(loss, member).points_the_other_way
    assert evaluate(loss, member).to_dict()["points_the_other_way"]
    assert not evaluate(-loss, member).points_the_other_way
    assert not evaluate(np.zeros(400), member).points_the_other_way


@pytest.mark.parametrize("paired", [False, True], ids=["membership by person", "both classes per person"])
def test_intervals_cover_records_that_come_in_groups(paired):
    """Ten records per person with a common score: record-wise intervals contain 0.5 in about 50%, group-wise in 95%."""
    person = np.repeat(np.arange(100), 10)
    member = np.arange(1000) % 2 if paired else person % 2

    def sample(rng):
        return rng.normal(size=100)[person] + 0.5 * rng.normal(size=1000), member

    by_group = [evaluate(*sample(np.random.default_rng(s)), (0.1,), groups=person) for s in range(200)]
    assert 0.91 <= np.mean([f.auc_low <= 0.5 <= f.auc_high for f in by_group]) <= 1
    assert np.mean([f.partial_auc_low <= 0.5 <= f.partial_auc_high for f in by_group]) >= 0.9
    assert np.mean([f.points[0].low <= 0.1 <= f.points[0].high for f in by_group]) >= 0.9
    if not paired:
        assert covered(sample, 0.5, "auc_low", "auc_high", 200, fprs=()) < 0.75
        assert 5 < np.mean([f.variance_inflation for f in by_group]) < 12


def test_groups_of_one_record_change_nothing():
    rng = np.random.default_rng(0)
    member, scores = np.arange(500) % 2, rng.normal(size=500)
    alone, grouped = (evaluate(scores, member, groups=groups) for groups in (None, np.arange(500)))
    assert grouped.auc_high == pytest.approx(alone.auc_high, abs=2e-3)
    assert grouped.points[2].high == pytest.approx(alone.points[2].high, abs=2e-3)


def test_refitted_attack_has_wider_intervals():
    rng = np.random.default_rng(0)
    member, scores = np.arange(2000) % 2, rng.normal(size=2000) + 0.2 * (np.arange(2000) % 2)
    fixed, weak, strong = (evaluate(scores, member, stability=stability) for stability in (None, 0.2, 1.0))
    assert fixed.population == "records"
    assert weak.population == strong.population == "records and the fit of the attack"
    assert weak.auc_high - weak.auc_low > 1.2 * (fixed.auc_high - fixed.auc_low)
    assert fixed.variance_inflation == 1
    assert 1 <= strong.variance_inflation < 1.4 < weak.variance_inflation
    assert (fixed.auc, fixed.points[1].tpr) == (weak.auc, weak.points[1].tpr)


# ---- the metric of training loops


def lira_scale(n):
    """Log-likelihood ratios: the top reaches hundreds, where a float32 sigmoid is 1 for all."""
    rng = np.random.default_rng(8)
    member = rng.integers(0, 2, n)
    scores = rng.normal(size=n) * 40 + 60 * member * (rng.random(n) < 0.3)
    return torch.from_numpy(scores), torch.from_numpy(member)


@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("batch", [64, 4000])
def test_torchmetric_is_the_metric(fpr, batch):
    scores, member = lira_scale(4000)
    metric = TPRAtFPR(fpr)
    for part in zip(scores.split(batch), member.split(batch), strict=True):
        metric.update(*part)
    expected = tpr_at_fpr(scores.numpy(), member.numpy(), fpr)
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-7)
    assert expected > 0.01
    squashed = torch.sigmoid(scores.float()).numpy()
    assert tpr_at_fpr(squashed, member.numpy(), fpr) == 0, "these scores would not have shown a squashing metric"


def test_torchmetric_reset():
    metric = TPRAtFPR(0.05)
    metric.update(torch.tensor([0.0, 1]), torch.tensor([1, 0]))
    assert metric.compute() == 0
    metric.reset()
    metric.update(torch.tensor([0.0, 1]), torch.tensor([0, 1]))
    assert metric.compute() == 1
    metric.reset()
    metric.update(torch.tensor([0.0, 1]), torch.tensor([1, 1]))
    with pytest.raises(MIAError, match="non-members"):
        metric.compute()


OTHER_PROCESS = """
import sys, numpy, torch
from torch import distributed
from mia_lightning.metrics.torchmetric import TPRAtFPR
from mia_lightning.metrics.variance import fit_inflation
store, share = sys.argv[1:]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=1, world_size=2)
arrays = numpy.load(share)
metric = TPRAtFPR(0.01)
metric.update(torch.from_numpy(arrays["scores"]), torch.from_numpy(arrays["member"]))
print(float(metric.compute()))
distributed.destroy_process_group()
"""


def test_torchmetric_gathers_over_processes(tmp_path):
    scores, member = lira_scale(3000)
    store, share = str(tmp_path / "store"), str(tmp_path / "share.npz")
    np.savez(share, scores=scores[1000:].numpy(), member=member[1000:].numpy())
    other = Forked(python(["-c", OTHER_PROCESS, store, share]))
    limit = timedelta(seconds=120)
    try:
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=2, timeout=limit)
        metric = TPRAtFPR(0.01)
        metric.update(scores[:1000], member[:1000])
        here, there = float(metric.compute()), float(other.communicate()[0])
    finally:
        other.kill()
        if distributed.is_initialized():
            distributed.destroy_process_group()
    expected = tpr_at_fpr(scores.numpy(), member.numpy(), 0.01)
    assert (here, there) == pytest.approx((expected, expected), abs=1e-7)


def test_factor_of_a_refitted_auc_follows_theory():
    """One learned direction: each pair of records counts twice, in the signal's share and in that of noise."""
    for signal in np.linspace(0, 1, 21):
        noise = 1 - signal
        expected = signal * (1 + noise) ** 2 + 2 * noise
        assert expected - 0.02 <= fit_inflation(signal)[0] <= 1.15 * expected


def test_ties_are_broken_at_random():
    scores = np.array([1.0, 0.0, 1.0, 0.0, 2.0] * 200)
    ranks = without_ties(scores, 0)
    assert sorted(ranks) == list(range(1000))
    assert ranks[scores == 0].max() < ranks[scores == 1].min() < ranks[scores == 1].max() < ranks[scores == 2].min()
    assert abs(np.corrcoef(ranks[scores == 0], np.arange(400))[0, 1]) < 0.2


@pytest.mark.parametrize(("members", "non_members"), [(3, 1000), (1000, 4)])
def test_interval_of_an_auc_covers_with_very_few_records_of_a_class(members, non_members):
    """200 samples; with normal instead of Student's quantiles 83% and 89% are covered."""
    covered = []
    for seed in range(200):
        scores = np.random.default_rng((3, members, seed)).normal(size=members + non_members)
        figures = evaluate(scores, np.repeat([1, 0], (members, non_members)), ())
        covered.append(figures.auc_low <= 0.5 <= figures.auc_high)
    assert np.mean(covered) >= 0.91


def test_interval_of_a_partial_auc_near_1_reaches_the_truth():
    """Normal scores 5.5 apart, 500 records a side: the simulated upper end alone is too low in a sixth of samples."""
    rates = (np.arange(4000) + 0.5) / 4000 * 0.05
    mean_tpr = ndtr(5.5 + ndtri(rates)).mean()
    truth = 0.5 * (1 + (mean_tpr - 0.025) / 0.975)
    covered = []
    for seed in range(100):
        scores = np.random.default_rng((7, seed)).normal(size=1000) + np.repeat([5.5, 0], 500)
        _, low, high = partial_auc(scores, np.repeat([1, 0], 500))
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.92


def test_interval_of_a_stable_refitted_attack_allows_for_its_highest_records():
    """LightGBM on 20,000 records at AUC 0.75: the variance of TPR@1% is 1.4 times that of fixed scores or more."""
    scores = np.random.default_rng(0).normal(size=20_000) + np.repeat([0.95, 0], 10_000)
    member = np.repeat([1, 0], 10_000)
    fixed, refitted = (evaluate(scores, member, (0.01, 0.05), stability=value) for value in (None, 0.995))
    ratios = [
        (wide.high - wide.low) / (narrow.high - narrow.low)
        for wide, narrow in zip(refitted.points, fixed.points, strict=True)
    ]
    assert 1.15 <= ratios[0] <= 1.25
    assert 1.0 <= ratios[1] <= 1.1
