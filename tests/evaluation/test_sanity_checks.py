"""Sanity checks: planted differences and leaks are found, sound data pass."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from mia_lightning.attacks import Attack, Threshold
from mia_lightning.attacks.fusion import Fusion
from mia_lightning.attacks.gaussian_ratio import GaussianLikelihoodRatio
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.mlp import MLP
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assess import assess, increments
from mia_lightning.evaluation.blind_baseline import blind_baseline, blind_features, blind_scores
from mia_lightning.evaluation.permutation import (
    intervals_at_chance,
    permuted_by_group,
    plan_refits,
    refitted_permutation_test,
)
from mia_lightning.evaluation.sanity_checks import generalization_gap, pixel_distribution
from mia_lightning.metrics.intervals import rate_interval
from mia_lightning.metrics.roc import evaluate
from mia_lightning.records.pixel_statistics import pixel_statistics
from mia_lightning.scores.scored_records import ScoredRecords
from mia_lightning.signals.table import SignalTable


def records(n=1500, seed=0, **changes):
    rng = np.random.default_rng(seed)
    member = rng.integers(0, 2, n).astype(np.int8)
    values = {
        "ids": rng.permutation(10 * n)[:n],
        "membership": member,
        "scores": {"a": rng.normal(size=n) + member},
        "labels": rng.integers(0, 10, n),
        "source": "scores.csv",
    }
    return ScoredRecords(**values | changes)


def blind(given, **features):
    groups = blind_features(given, **features)
    scores = blind_scores(np.concatenate(list(groups.values()), axis=1), given.membership, folds=3, seed=0)
    return blind_baseline(given, groups, scores, folds=3, seed=0, increments=())


def pictures(n, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 8, 8)).astype(np.uint8)


def leak(given, source):
    member = given.membership.astype(np.int64)
    if source == "label":
        return records(labels=given.labels // 2 + 2 * member), {}
    if source == "pixels":
        return given, {"pixels": np.maximum(pictures(1500), 3 * member[:, None, None, None]).astype(np.uint8)}
    if source == "number":  # even for members
        return given, {"columns": {"number": 2 * np.random.default_rng(3).permutation(15_000)[:1500] + 1 - member}}
    return given, {"columns": {"size": member + 0.1 * np.random.default_rng(2).random(1500)}}


@pytest.mark.parametrize("source", ["label", "pixels", "size", "number"])
def test_blind_baseline_names_leaking_source(source):
    given, features = leak(records(), source)
    check = blind(given, **features)
    assert check.status == "warn"
    assert f"most of it from {source}" in check.sentence
    assert check.details["auc_low"] > 0.5


def test_blind_baseline_seldom_warns_without_a_difference():
    """At the stated 1%, three or more of 50 would happen in 1.4% of such tests."""
    warned = [blind(records(300, seed)).status == "warn" for seed in range(50)]
    assert sum(warned) <= 2


def test_cross_fitted_scores_have_up_to_twice_the_variance():
    """A linear rule on many random features: every pair of records counts in both directions."""
    from mia_lightning.evaluation.blind_baseline import of_doubled_variance
    from mia_lightning.metrics.roc import evaluate

    rng = np.random.default_rng(5)
    deviations = []
    for _ in range(400):
        features, member = rng.normal(size=(120, 40)), rng.permutation(np.repeat([0, 1], 60)).astype(np.int8)
        half = rng.permutation(np.arange(120) % 2 == 0)
        scores = np.empty(120)
        for side in (half, ~half):
            gap = features[~side][member[~side] == 1].sum(0) - features[~side][member[~side] == 0].sum(0)
            scores[side] = features[side] @ gap
        evaluation = evaluate(scores, member, ())
        deviations.append((evaluation.auc - 0.5) / evaluation.auc_standard_error)
    assert 1.5 < np.var(deviations) < 2.4
    assert of_doubled_variance(norm.sf(3.0)) == pytest.approx(norm.sf(3.0 / np.sqrt(2)))


def test_blind_scores_never_see_their_own_row():
    """Random features with far more leaves than information: a row's own membership must not shine through."""
    rng = np.random.default_rng(3)
    member = rng.integers(0, 2, 2000).astype(np.int8)
    scores = blind_scores(rng.normal(size=(2000, 5)), member, folds=5, seed=0)
    assert abs(scores[member == 1].mean() - scores[member == 0].mean()) < 0.1


def test_increment_over_the_blind_baseline_is_reported():
    assessment = assess(records(), bootstrap=100)
    guard = assessment.check("blind baseline")
    assert guard.details["a over blind, auc"] == pytest.approx(
        assessment.attacks["a"].auc - guard.details["auc"], abs=0.02
    )
    assert all(gain.low > 0 for gain in assessment.increments if gain.figure == "auc")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixel_distribution_sees_another_preprocessing(dtype):
    member = records().membership
    images = pictures(1500)
    images = images if dtype == np.uint8 else (images / 255).astype(np.float32)
    assert pixel_distribution(images, member).status == "pass"
    changed = images.copy()
    rows = member == 1
    changed[rows] = changed[rows] / 2 + np.roll(changed[rows], 1, axis=3) / 2  # a blur
    check = pixel_distribution(changed, member)
    assert check.status == "warn"
    assert "differ in" in check.sentence
    if dtype == np.float32:
        assert check.details["off-grid, p"] < 0.01
    assert check.details["roughness, p"] < 0.01


def test_pixel_statistics_by_blocks(monkeypatch):
    images = (pictures(50) / 255).astype(np.float32)
    whole = pixel_statistics(images)
    monkeypatch.setattr("mia_lightning.records.pixel_statistics.BLOCK", 7)
    assert all((pixel_statistics(images)[name] == values).all() for name, values in whole.items())
    assert whole["mean"] == pytest.approx(images.mean(axis=(1, 2, 3)), abs=1e-6)
    assert whole["mean of channel 1"] == pytest.approx(images[:, 1].mean(axis=(1, 2)), abs=1e-6)
    assert whole["off-grid"].max() == 0


def test_intervals_at_chance_pass_for_any_scores():
    given = records()
    scores = {"good": given.scores["a"], "tied": np.round(given.scores["a"]), "constant": np.zeros(1500)}
    check = intervals_at_chance(scores, given.membership, [0.01, 0.05], seed=0)
    assert check.status == "pass"
    assert check.details["good, successes in 100"] <= 15


def test_intervals_at_chance_warn_when_intervals_lie(monkeypatch):
    monkeypatch.setattr("mia_lightning.evaluation.permutation._beats_chance", lambda evaluation: evaluation.auc > 0.5)
    assert intervals_at_chance(records().scores, records().membership, [], seed=0).status == "warn"


def test_refitted_permutation_test_passes_for_honest_attack():
    given = records()
    table = SignalTable({"loss": -given.scores["a"]}, given.labels, 10)
    attacks = {
        "fixed": Threshold(column="loss", higher_is_member=False),
        "ratio": GaussianLikelihoodRatio(column="loss"),
    }
    check = refit(attacks, table, given.membership)
    assert check.status == "pass"
    assert "ratio, permutation p-value" in check.details
    assert "fixed, permutation p-value" not in check.details  # a threshold learns nothing that could leak
    assert check.details["p"] > 0.001


@dataclass
class Remembers(Attack):
    """Keeps the membership of every row it was ever fitted on, across folds."""

    seen: ClassVar[dict[float, int]] = {}

    def required_columns(self):
        return ("loss",)

    def fit(self, table, member, *, seed=0, validation=None):
        self.seen.update(zip(table.columns["loss"].tolist(), member.tolist(), strict=True))
        return self

    def score(self, table):
        return np.array([float(self.seen.get(value, 0.5)) for value in table.columns["loss"].tolist()])


def refit(attacks, table, member):
    return refitted_permutation_test(attacks, table, member, seed=0)


def test_refitted_permutation_test_catches_memory_of_other_folds():
    given = records()
    table = SignalTable({"loss": given.scores["a"]}, given.labels, 10)
    assert refit({"leaky": Remembers()}, table, given.membership).status == "warn"


def test_refits_are_planned_by_a_cost_model():
    """The plan depends on records, columns and attacks, and a slow attack takes the smallest sample there is."""
    quick = GaussianLikelihoodRatio(column="loss")
    slow = MLP(columns=["loss"], epochs=2000)
    assert plan_refits({"quick": quick}, 5000, 10) == plan_refits({"quick": quick}, 5000, 10)
    assert plan_refits({"quick": quick}, 5000, 10).rows == 2000
    assert plan_refits({"quick": quick}, 5000, 10).permutations == 19
    plan = plan_refits({"slow": slow}, 5000, 10)
    assert (plan.rows, plan.permutations) == (200, 5)
    assert plan_refits({"slow": slow}, 120, 10).rows == 120


def test_refitted_permutation_test_is_never_skipped_for_cost():
    given = records()
    table = SignalTable({"loss": given.scores["a"]}, given.labels, 10)
    attacks = {name: GaussianLikelihoodRatio(column="loss") for name in ("quick", "other")}
    attacks |= {"both": Fusion(members=["quick", "other"])}
    check = refit(attacks, table, given.membership)
    assert check.status == "pass"
    assert {name.split(",")[0] for name in check.details if "permutation p-value" in name} == {"quick", "other", "both"}
    assert check.details["both, permutation p-value"] == pytest.approx(1 / 20)  # a real signal, at the resolution
    assert "p = " in check.sentence
    assert refit({"fixed": Threshold(column="loss")}, table, given.membership).status == "skipped"


def test_generalization_gap_has_newcombe_s_interval():
    """His paper's example (1998, table II, example a): 56/70 against 48/80, method 10: 0.0524 to 0.3339."""
    check = generalization_gap((56, 48), (70, 80))
    assert check.status == "pass"
    assert (check.details["gap_low"], check.details["gap_high"]) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert generalization_gap((30, 90), (100, 100)).status == "warn"


def test_rate_interval_is_wilson_s():
    for count, total in ((0, 9), (3, 10), (999, 1000)):
        exact = binomtest(count, total).proportion_ci(0.95, "wilson")
        assert rate_interval(count, total) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_blind_baseline_is_skipped_with_few_records():
    few = records(16)
    assessment = {check.name: check.status for check in assess(few, bootstrap=100).checks}
    assert assessment["blind baseline"] == "skipped"


def test_assess_refuses_bad_arguments():
    with pytest.raises(MIAError, match="resamples"):
        assess(records(), bootstrap=5)
    with pytest.raises(MIAError, match="no scores"):
        assess(records(scores={}))
    with pytest.raises(MIAError, match="named 'blind baseline'"):
        assess(records(scores={"blind baseline": np.zeros(1500)}))


def test_chance_p_values_equal_random_rankings():
    """Of many rankings by lot, as many reach a TPR as its p-value says."""
    from mia_lightning.evaluation.blind_baseline import chance_p_values
    from mia_lightning.metrics.roc import evaluate

    rng = np.random.default_rng(3)
    member = np.repeat([1, 0], [60, 100]).astype(np.int8)
    evaluations = [evaluate(rng.random(160), member, (0.1,)) for _ in range(3000)]
    tprs = np.array([row.points[0].tpr for row in evaluations])
    for row in evaluations[:20]:
        assert chance_p_values(row)[1] == pytest.approx((tprs >= row.points[0].tpr).mean(), abs=0.035)
    areas = np.array([chance_p_values(row)[0] for row in evaluations])
    assert 0.03 < (areas < 0.05).mean() < 0.07


def people(rng, count=120, images=5):
    """A person's look, repeated in five images, and membership by person: the look is no evidence of membership."""
    look = rng.normal(size=(count, 6))[np.repeat(np.arange(count), images)]
    table = {f"x{k}": look[:, k] + 0.05 * rng.normal(size=len(look)) for k in range(6)}
    member = rng.permutation(np.arange(count) % 2).astype(np.int8)
    return SignalTable(table, np.zeros(len(look), np.int64), 1), np.repeat(member, images)


def test_refitted_permutation_test_permutes_memberships_by_group():
    """By record, an attack that recognizes persons has the smallest p-value there is; by group it is at chance."""
    table, member = people(np.random.default_rng(0))
    person = np.repeat(np.arange(120), 5)
    attacks = {"a": LightGBM(["x*"], n_estimators=20, min_child_samples=5, n_jobs=1)}
    alone = refitted_permutation_test(attacks, table, member, seed=0)
    together = refitted_permutation_test(attacks, table, member, seed=0, groups=person)
    assert alone.details["a, permutation p-value"] == pytest.approx(1 / 20)
    assert together.details["a, permutation p-value"] > 0.1
    assert together.status == "pass"
    shuffle = np.random.default_rng(1).permutation(600)
    copy = refitted_permutation_test(attacks, table.rows(shuffle), member[shuffle], seed=0, groups=person[shuffle])
    assert copy.details == together.details


def test_memberships_permuted_by_group_keep_groups_pure():
    rng = np.random.default_rng(0)
    units = np.sort(rng.integers(0, 40, 300))
    units = np.unique(units, return_inverse=True)[1]
    member = (units % 2).astype(np.int8)
    permuted = permuted_by_group(member, units, rng)
    assert not np.array_equal(permuted, member)
    assert all(len(np.unique(permuted[units == unit])) == 1 for unit in np.unique(units))


def test_blind_baseline_with_groups_does_not_recognize_persons():
    """Five images a person: by record the look gives membership away, by group it does not."""
    table, member = people(np.random.default_rng(2))
    look = np.stack(list(table.columns.values()), axis=1)
    person = np.repeat(np.arange(120), 5)
    by_record = blind_scores(look, member, folds=5, seed=0)
    by_group = blind_scores(look, member, folds=5, seed=0, groups=person)
    assert evaluate(by_record, member, ()).auc > 0.8
    figures = evaluate(by_group, member, (), groups=person, stability=0.0)
    assert figures.auc_low < 0.5 < figures.auc_high


def test_noise_adds_nothing_to_a_blind_baseline_of_few_scores():
    """60% of the members and 40% of the non-members have label 1; noise must not gain TPR by splitting its ties."""
    gains = []
    for seed in range(5):
        rng = np.random.default_rng((5, seed))
        member = np.repeat([1, 0], 300).astype(np.int8)
        labels = (rng.random(600) < np.where(member == 1, 0.6, 0.4)).astype(np.int64)
        given = ScoredRecords(np.arange(600), member, {f"a{k}": rng.normal(size=600) for k in range(3)}, labels, "x")
        base = blind_scores(labels[:, None].astype(float), member, folds=3, seed=seed)
        gains += increments(given, base, [0.05], 200, 3, seed)
    assert sum(gain.low > 0 for gain in gains) <= 3  # of 30, at 2.5%
    assert not any(gain.low > 0 and gain.p_holm <= 0.05 for gain in gains)
