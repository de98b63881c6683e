"""Scores from reference models: printed vectors, slow plain references, closed forms, simulated models."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from mia_lightning.errors import MIAError
from mia_lightning.metrics.roc import auc, tpr_at_fpr
from mia_lightning.references.moments import log_mean_exp, masked_median, moments, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.attack_r import AttackR
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.references.scores.joint_lira import JointLiRA
from mia_lightning.references.scores.lira import LiRA, fit_groups
from mia_lightning.references.scores.official_lira import OfficialLiRA
from mia_lightning.references.scores.reference_features import ReferenceFeatures
from mia_lightning.references.scores.rmia import BASE, GRID, RMIA, choose, dominance_share, log_ratio, pseudo_targets
from mia_lightning.references.variances import log_density, log_survival, variance_prior

IN, OUT, PHI = (3.0, 4.0, 5.0, 4.0), (0.0, 1.0, 2.0, 1.5), 3.2


def reference_outputs_of(target, references, keep, drawn=None):
    target, references = np.asarray(target, np.float32), np.asarray(references, np.float32)
    if target.ndim == 1:
        target, references = target[:, None], references[..., None]
    return ReferenceOutputs(target, references, np.asarray(keep, bool), np.zeros(len(target), np.int64), 10, drawn)


def printed(copies=1):
    """The printed example, one record (or equal copies of it)."""
    references = np.repeat(np.array(IN + OUT)[:, None], copies, axis=1)
    keep = np.repeat(np.array([True] * 4 + [False] * 4)[:, None], copies, axis=1)
    return reference_outputs_of(np.full(copies, PHI), references, keep)


def simulated(k=8, n=4000, queries=1, seed=0, memory=1.5, scheme="balanced"):
    """Models of records of unequal difficulty and variance; returns evidence and the target's membership."""
    draw = np.random.default_rng(seed)
    difficulty, spread = draw.normal(3, 3, n), np.sqrt(0.6 / draw.chisquare(5, n) * 5)
    gain = memory * np.exp(-0.3 * (difficulty - 3) / 3) * draw.gamma(2, 0.5, n)
    lots = draw.random((k, n))
    keep = np.argsort(lots, axis=0) < k // 2 if scheme == "balanced" else lots < 0.5
    member = draw.random(n) < 0.5
    everyone = np.concatenate([member[None], keep])
    center = difficulty + everyone * gain
    phi = (
        center[..., None]
        + spread[:, None] * draw.normal(size=(k + 1, n, 1))
        + 0.3 * draw.normal(size=(k + 1, n, queries))
    )
    return reference_outputs_of(phi[0], phi[1:], keep), member.astype(np.int8)


class TestPrintedVectors:
    def test_lira_on_the_printed_example_with_its_own_variance(self):
        scores = LiRA(variance="per_sample", shrink_shift=False).columns(printed())[""]
        assert scores[0] == pytest.approx(2.5172347, abs=1e-5)

    def test_lira_offline(self):
        scores = LiRA(mode="offline", variance="per_sample").columns(printed())[""]
        assert scores[0] == pytest.approx(4.8862613, abs=1e-5)

    def test_carlini_ddof_0(self):
        # the example's medians are 4 and 1.25, not its means 4 and 1.125
        scale_in, scale_out = np.std(IN), np.std(OUT)
        expected = stats.norm.logpdf(PHI, 4, scale_in) - stats.norm.logpdf(PHI, 1.25, scale_out)
        assert OfficialLiRA().columns(printed())[""][0] == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize(("a", "expected"), [(0.3, 0.1511680), (0.6, 0.2009902), (None, 0.1167971)])
    def test_rmia(self, a, expected):
        assert log_ratio(printed(), a=a)[0] == pytest.approx(expected, abs=1e-6)

    def test_empirical_bayes_prior(self):
        prior = variance_prior(np.array([0.05, 0.3, 1, 2, 9, 0.1, 30, 3]), np.array(3.0))
        assert prior.degrees_of_freedom == pytest.approx(1.1535605, abs=1e-6)
        assert prior.variance == pytest.approx(0.5501390, abs=1e-6)


class TestPieces:
    def test_student_density_is_scipys(self):
        x, degrees_of_freedom = np.linspace(-30, 30, 13), np.full(13, 3.7)
        expected = stats.t.logpdf(x, 3.7, loc=1, scale=2)
        np.testing.assert_allclose(
            log_density(x, center=np.ones(13), variance=np.full(13, 4.0), degrees_of_freedom=degrees_of_freedom),
            expected,
        )

    @pytest.mark.parametrize("step", [0.0, 1.0, 0.3])
    def test_degrees_of_freedom_that_repeat(self, step):
        draw = np.random.default_rng(0)
        freedom = 4.3 + step * draw.integers(0, 9, 300)
        x, center, variance = draw.normal(size=300), draw.normal(size=300), draw.gamma(3, 1, 300)
        expected = stats.t.logpdf(x, freedom, center, np.sqrt(variance))
        given = {"center": center, "variance": variance}
        np.testing.assert_allclose(log_density(x, **given, degrees_of_freedom=freedom), expected, rtol=1e-11)
        freedom[::7], variances = np.inf, variance * draw.gamma(2, 1, 300)
        expected[::7] = stats.norm.logpdf(x, center, np.sqrt(variance))[::7]
        np.testing.assert_allclose(log_density(x, **given, degrees_of_freedom=freedom), expected, rtol=1e-11)
        freedom[::7] = 4.3
        logs = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
        excess = logs.var(ddof=1) - special.polygamma(1, freedom / 2).mean()
        prior = variance_prior(variances, freedom)
        assert special.polygamma(1, prior.degrees_of_freedom / 2) == pytest.approx(excess)
        half = prior.degrees_of_freedom / 2
        assert np.log(prior.variance) == pytest.approx(logs.mean() + special.digamma(half) - np.log(half))

    @pytest.mark.parametrize("degrees_of_freedom", [1.5, 12.0, np.inf])
    def test_upper_tail_is_scipys_where_scipy_has_digits(self, degrees_of_freedom):
        x = np.array([-5.0, 0.0, 2.0, 8.0, 30.0])
        expected = stats.norm.logsf(x) if np.isinf(degrees_of_freedom) else stats.t.logsf(x, degrees_of_freedom)
        log_tail = log_survival(
            x, center=np.zeros(5), variance=np.ones(5), degrees_of_freedom=np.full(5, degrees_of_freedom)
        )
        np.testing.assert_allclose(log_tail, expected, rtol=1e-9)

    def test_upper_tail_goes_on_where_the_tail_itself_is_zero(self):
        # Pr[T >= u] of nu degrees of freedom falls as u**-nu, so log differences between u and 2u tend to nu log 2
        u = np.array([1e4, 2e4])
        log_tail = log_survival(u, center=np.zeros(2), variance=np.ones(2), degrees_of_freedom=np.full(2, 100.0))
        assert np.isfinite(log_tail).all()
        assert log_tail[0] - log_tail[1] == pytest.approx(100 * np.log(2), rel=1e-6)

    def test_upper_tail_does_not_jump_where_the_series_takes_over(self):
        u = np.geomspace(100, 1e5, 2000)
        log_tail = log_survival(
            u, center=np.zeros(2000), variance=np.ones(2000), degrees_of_freedom=np.full(2000, 100.0)
        )
        assert log_tail[-1] < np.log(1e-250) - 100 < log_tail[0]  # both sides of the change are there
        np.testing.assert_allclose(np.diff(log_tail) / np.diff(np.log(u)), -100, rtol=0.02)

    @given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 6))
    @settings(max_examples=40)
    def test_masked_median_is_numpys(self, seed, k, n):
        draw = np.random.default_rng(seed)
        values, mask = draw.normal(size=(k, n)), draw.random((k, n)) < 0.6
        expected = [np.median(values[mask[:, i], i]) if mask[:, i].any() else 0.0 for i in range(n)]
        np.testing.assert_allclose(masked_median(values, mask), expected)

    def test_log_mean_exp_of_extremes(self):
        values = np.array([[-1000.0, 0.0], [-1001.0, 700.0]])
        means = log_mean_exp(values, np.array([[True, True], [True, True]]))
        np.testing.assert_allclose(means, [-1000 + np.log((1 + np.exp(-1)) / 2), 700 - np.log(2)])
        assert log_mean_exp(values, np.zeros((2, 2), bool)).tolist() == [-np.inf, -np.inf]

    def test_contrast_is_stored_pixels_against_shifted_ones(self):
        phi = np.zeros(18)
        phi[[0, 9]], phi[3] = 4.0, 16.0
        assert reduce_queries(phi, "contrast") == pytest.approx(4.0 - 1.0)

    def test_contrast_needs_shifted_views(self):
        with pytest.raises(MIAError, match=r"--extraction.queries 18"):
            reduce_queries(np.zeros((3, 2)), "contrast")

    def test_blocks_do_not_change_moments(self, monkeypatch):
        reference_outputs, _ = simulated(k=6, n=500, queries=18)
        whole = moments(reference_outputs, "contrast")
        monkeypatch.setattr("mia_lightning.references.moments.BLOCK", 1000)
        parts = moments(reference_outputs, "contrast")
        np.testing.assert_array_equal(whole.in_.squares, parts.in_.squares)
        np.testing.assert_array_equal(whole.out_.mean, parts.out_.mean)


def slow_lira(reference_outputs, variance):
    """One record after the other, by scipy, in double precision."""
    target, phi = reference_outputs.target.astype(float).mean(1), reference_outputs.references.astype(float).mean(2)
    pooled = []
    for in_ in (True, False):
        squares, degrees_of_freedom = 0.0, 0
        for i in range(len(target)):
            values = phi[reference_outputs.keep[:, i] == in_, i]
            squares, degrees_of_freedom = (
                squares + ((values - values.mean()) ** 2).sum(),
                degrees_of_freedom + len(values) - 1,
            )
        pooled.append(np.sqrt(squares / degrees_of_freedom))
    scores = []
    for i in range(len(target)):
        logs = []
        for number, in_ in enumerate((True, False)):
            values = phi[reference_outputs.keep[:, i] == in_, i]
            scale = pooled[number] if variance == "fixed" else values.std(ddof=1)
            logs.append(stats.norm.logpdf(target[i], values.mean(), scale))
        scores.append(logs[0] - logs[1])
    return scores


class TestLiRA:
    @pytest.mark.parametrize("variance", ["fixed", "per_sample"])
    def test_equals_the_plain_loop(self, variance):
        reference_outputs, _ = simulated(k=8, n=60, queries=2)
        scores = LiRA(variance=variance, shrink_shift=False).columns(reference_outputs)[""]
        np.testing.assert_allclose(scores, slow_lira(reference_outputs, variance), rtol=1e-9, atol=1e-9)

    def test_empirical_bayes_equals_the_plain_loop(self):
        reference_outputs, _ = simulated(k=8, n=80)
        phi, target = reference_outputs.references[..., 0].astype(float), reference_outputs.target[:, 0].astype(float)
        expected = np.zeros(80)
        for in_, sign in ((True, 1), (False, -1)):
            values = [phi[reference_outputs.keep[:, i] == in_, i] for i in range(80)]
            prior = variance_prior(np.array([v.var(ddof=1) for v in values]), np.array(3.0))
            for i, v in enumerate(values):
                degrees_of_freedom = prior.degrees_of_freedom + 3
                variance = (prior.degrees_of_freedom * prior.variance + 3 * v.var(ddof=1)) / degrees_of_freedom
                expected[i] += sign * stats.t.logpdf(
                    target[i], degrees_of_freedom, v.mean(), np.sqrt(variance * (1 + 1 / 4))
                )
        scores = LiRA(shrink_shift=False).columns(reference_outputs)[""]
        np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)

    def test_carlini_equals_the_published_lines(self):
        reference_outputs, _ = simulated(k=8, n=50, queries=3, scheme="bernoulli")
        keep, scores = reference_outputs.keep, reference_outputs.references.astype(float)
        dat_in = [scores[keep[:, i], i] for i in range(50)]
        dat_out = [scores[~keep[:, i], i] for i in range(50)]
        in_size, out_size = min(map(len, dat_in)), min(map(len, dat_out))
        if min(in_size, out_size) == 0:
            pytest.skip("a record without references on a side")
        dat_in = np.array([x[:in_size] for x in dat_in])
        dat_out = np.array([x[:out_size] for x in dat_out])
        own = reference_outputs.target.astype(float)
        for fixed in (False, True):
            std_in = np.std(dat_in) if fixed else np.std(dat_in, 1)
            std_out = np.std(dat_in) if fixed else np.std(dat_out, 1)
            pr_in = stats.norm.logpdf(own, np.median(dat_in, 1), std_in + 1e-30)
            pr_out = stats.norm.logpdf(own, np.median(dat_out, 1), std_out + 1e-30)
            columns = OfficialLiRA(fixed_variance=fixed).columns(reference_outputs)[""]
            np.testing.assert_allclose(columns, (pr_in - pr_out).mean(1), rtol=1e-6, atol=1e-6)
            std_out = np.std(dat_out) if fixed else np.std(dat_out, 1)
            expected = -stats.norm.logpdf(own, np.median(dat_out, 1), std_out + 1e-30).mean(1)
            columns = OfficialLiRA(mode="offline", fixed_variance=fixed).columns(reference_outputs)[""]
            np.testing.assert_allclose(columns, expected, rtol=1e-6, atol=1e-6)

    @given(st.integers(0, 1000), st.floats(-5, 5), st.floats(0.2, 5))
    @settings(max_examples=15)
    def test_invariance_to_order_location_scale(self, seed, shift, scale):
        reference_outputs, _ = simulated(k=6, n=200, seed=seed)
        order = np.random.default_rng(seed).permutation(6)
        other = reference_outputs_of(
            reference_outputs.target[:, 0] * scale + shift,
            reference_outputs.references[order, :, 0] * scale + shift,
            reference_outputs.keep[order],
        )
        first, second = (LiRA().columns(e)[""] for e in (reference_outputs, other))
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=2e-3)  # inputs are rounded to float32

    def test_p_values_of_non_members_are_uniform(self):
        reference_outputs, member = simulated(k=16, n=20_000)
        p = LiRA(mode="offline").columns(reference_outputs)["p_value"][member == 0]
        for level in (0.01, 0.05, 0.5):
            assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / len(p)) + 0.15 * level)

    def test_one_sided_offline_beats_two_sided(self):
        reference_outputs, member = simulated(k=16, n=8000)
        one = LiRA(mode="offline").columns(reference_outputs)[""]
        two = OfficialLiRA(mode="offline", fixed_variance=True).columns(reference_outputs)[""]
        assert auc(one, member) > auc(two, member) + 0.03

    def test_empirical_bayes_wins_at_few_references(self):
        reference_outputs, member = simulated(k=8, n=20_000)
        ours, theirs = (score.columns(reference_outputs)[""] for score in (LiRA(), OfficialLiRA()))
        assert tpr_at_fpr(ours, member, 0.01) > 1.2 * tpr_at_fpr(theirs, member, 0.01)

    def test_standard_error_is_that_of_other_draws_of_the_references(self):
        errors, scores = [], []
        for seed in range(60):
            draw = np.random.default_rng(seed)
            keep = np.repeat((np.arange(32) < 16)[:, None], 200, axis=1)
            phi = np.where(keep, 2.0, 0.0) + draw.normal(size=(32, 200))
            columns = LiRA(variance="fixed", shrink_shift=False).columns(
                reference_outputs_of(np.full(200, 1.5), phi, keep)
            )
            errors.append(columns["standard_error"])
            scores.append(columns[""])
        assert np.std(scores, axis=0).mean() == pytest.approx(np.mean(errors), rel=0.1)

    @pytest.mark.parametrize(
        "score",
        [
            RMIA(gamma=2.0),
            RMIA(mode="offline", a=0.3, gamma=2.0),
            BASE(),
            BASE(mode="online"),
            DifficultyCalibration(),
            JointLiRA(density="normal", shrink_shift=False),
            JointLiRA(mode="offline", density="normal"),
        ],
        ids=lambda score: f"{type(score).__name__}-{getattr(score, 'mode', '')}",
    )
    def test_standard_errors_of_other_scores(self, score):
        errors, scores = [], []
        for seed in range(60):
            draw = np.random.default_rng(seed)
            keep = np.repeat((np.arange(32) < 16)[:, None], 200, axis=1)
            phi = np.where(keep, 2.0, 0.0)[..., None] + draw.normal(size=(32, 200, 1)) + draw.normal(size=(32, 200, 3))
            columns = score.columns(reference_outputs_of(np.full((200, 3), 1.5), phi, keep))
            errors.append(columns["standard_error"])
            scores.append(columns[""])
        assert np.std(scores, axis=0).mean() == pytest.approx(np.mean(errors), rel=0.15)

    def test_record_without_references_in_or_out_gets_mean_shift(self):
        reference_outputs, member = simulated(k=4, n=3000, scheme="bernoulli")
        alone = reference_outputs.keep.all(axis=0) | ~reference_outputs.keep.any(axis=0)
        assert alone.sum() > 100
        score = LiRA().columns(reference_outputs)[""]
        assert np.isfinite(score).all()
        assert auc(score[alone], member[alone]) > 0.55

    def test_shrinking_the_shift_helps_few_references(self):
        reference_outputs, member = simulated(k=4, n=20_000)
        shrunk, raw = (LiRA(shrink_shift=s).columns(reference_outputs)[""] for s in (True, False))
        assert auc(shrunk, member) > auc(raw, member)

    def test_two_references_have_no_variance(self):
        reference_outputs, _ = simulated(k=2, n=100)
        with pytest.raises(MIAError, match=r"at least 3 references .* DifficultyCalibration"):
            LiRA().columns(reference_outputs)

    def test_a_variance_per_record_needs_two_a_side(self):
        reference_outputs, _ = simulated(k=6, n=400, scheme="bernoulli")
        with pytest.raises(MIAError, match="use variance empirical_bayes"):
            LiRA(variance="per_sample").columns(reference_outputs)

    @pytest.mark.parametrize("variance", ["empirical_bayes", "fixed", "per_sample"])
    @pytest.mark.parametrize("mode", ["online", "offline"])
    def test_records_on_which_all_references_agree(self, mode, variance):
        """Trees give a record the same probability to the last digit: its variance is 0."""
        reference_outputs, _ = simulated(k=8, n=200)
        references, target = reference_outputs.references.copy(), reference_outputs.target.copy()
        references[:, :2], target[:2, 0] = 85.1, [85.1, 80]
        memorized = np.where(reference_outputs.keep[..., None], np.float32(85.1), references)
        for phi in (references, memorized):  # on two records; on all that they were trained on
            columns = LiRA(mode=mode, variance=variance).columns(
                replace(reference_outputs, references=phi, target=target)
            )
            assert all(np.abs(values).max() < np.finfo(np.float32).max for values in columns.values())


class TestJointLiRA:
    @pytest.mark.parametrize("mode", ["online", "offline"])
    def test_one_query_is_lira(self, mode):
        reference_outputs, _ = simulated(k=8, n=400)
        joint, single = (score(mode=mode).columns(reference_outputs)[""] for score in (JointLiRA, LiRA))
        np.testing.assert_allclose(joint, single, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("density", ["student", "normal"])
    def test_equals_the_plain_loop(self, density):
        reference_outputs, _ = simulated(k=8, n=300, queries=3)
        phi, target = reference_outputs.references.astype(float), reference_outputs.target.astype(float)
        expected = np.zeros(300)
        for in_, sign in ((True, 1), (False, -1)):
            values = [phi[reference_outputs.keep[:, i] == in_, i] for i in range(300)]
            squares = np.array([((x - x.mean(0)) ** 2).sum(0) for x in values])
            priors = [variance_prior(squares[:, q] / 3, np.array(3.0)) for q in range(3)]
            degrees_of_freedom = np.array([p.degrees_of_freedom + 3 for p in priors])
            within = (np.array([p.degrees_of_freedom * p.variance for p in priors]) + squares) / degrees_of_freedom
            gaps = np.concatenate([(x - x.mean(0)) / np.sqrt(w) for x, w in zip(values, within, strict=True)])
            spread = np.sqrt((gaps**2).sum(0))
            correlation = 0.9 * (gaps.T @ gaps) / np.outer(spread, spread) + 0.1 * np.eye(3)
            for i, x in enumerate(values):
                scale = np.sqrt(within[i] * 1.25)
                shape = correlation * np.outer(scale, scale)
                if density == "normal":
                    log = stats.multivariate_normal.logpdf(target[i], x.mean(0), shape)
                else:
                    log = stats.multivariate_t.logpdf(target[i], x.mean(0), shape, df=degrees_of_freedom.mean())
                expected[i] += sign * log
        scores = JointLiRA(density=density, shrink_shift=False).columns(reference_outputs)[""]
        np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)

    def test_views_with_noise_of_their_own_say_more_together(self):
        draw = np.random.default_rng(0)
        keep = np.argsort(draw.random((16, 4000)), axis=0) < 8
        member = draw.random(4000) < 0.5
        phi = np.concatenate([member[None], keep])[..., None] + draw.normal(size=(17, 4000, 6))
        reference_outputs = reference_outputs_of(phi[0], phi[1:], keep)
        # six views that differ by 1 with noise of 1 each: d' = sqrt(6), and AUC = Phi(d' / sqrt(2)) = 0.958
        scores = auc(JointLiRA().columns(reference_outputs)[""], member.astype(np.int8))
        assert scores == pytest.approx(stats.norm.cdf(np.sqrt(3)), abs=0.02)

    def test_blocks_do_not_change_it(self, monkeypatch):
        reference_outputs, _ = simulated(k=6, n=300, queries=4)
        whole = JointLiRA().columns(reference_outputs)[""]
        monkeypatch.setattr("mia_lightning.references.moments.BLOCK", 500)
        np.testing.assert_allclose(JointLiRA().columns(reference_outputs)[""], whole, rtol=1e-9, atol=1e-9)

    def test_p_values_of_non_members_are_uniform(self):
        reference_outputs, member = simulated(k=16, n=20_000, queries=4)
        p = JointLiRA(mode="offline").columns(reference_outputs)["p_value"][member == 0]
        for level in (0.05, 0.5):
            assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / len(p)) + 0.15 * level)


class TestRMIA:
    @given(st.integers(0, 10_000), st.sampled_from([1.0, 1.1, 1.5, 2.0]))
    @settings(max_examples=40)
    def test_dominated_is_bit_equal_to_comparing_every_pair(self, seed, gamma):
        draw = np.random.default_rng(seed)
        ratio = np.round(draw.gamma(2, 1, 60), 1) + 0.1  # many ties
        population = np.round(draw.gamma(2, 1, 40), 1) + 0.1
        expected = (ratio[:, None] / population > gamma).sum(axis=1) / 40
        np.testing.assert_array_equal(dominance_share(ratio, population, gamma=gamma), expected)
        own = (ratio[:, None] / ratio > gamma).sum(axis=1) / 59
        np.testing.assert_array_equal(dominance_share(ratio, gamma=gamma), own)

    def test_equals_the_plain_loop(self):
        reference_outputs, _ = simulated(k=6, n=50, queries=3)
        p, own = (1 / (1 + np.exp(-x.astype(float))) for x in (reference_outputs.references, reference_outputs.target))
        online = np.log(own / p.mean(axis=0)).mean(axis=1)
        np.testing.assert_allclose(log_ratio(reference_outputs, a=None), online, rtol=1e-9)
        for i in range(50):
            out_ = p[~reference_outputs.keep[:, i], i].mean(axis=0)
            expected = np.log(own[i] / (0.5 * ((1 + 0.3) * out_ + (1 - 0.3)))).mean()
            assert log_ratio(reference_outputs, a=0.3)[i] == pytest.approx(expected, rel=1e-9)

    def test_a_is_chosen_without_the_target(self):
        reference_outputs, _ = simulated(k=6, n=1000)
        other = ReferenceOutputs(
            -reference_outputs.target,
            reference_outputs.references,
            reference_outputs.keep,
            reference_outputs.labels,
            10,
        )
        assert choose(reference_outputs, GRID) == choose(other, GRID)

    def test_a_cannot_be_chosen_from_one_reference(self):
        reference_outputs = reference_outputs_of(np.zeros(4), np.zeros((1, 4)), np.zeros((1, 4)))
        with pytest.raises(MIAError, match="train at least 3"):
            RMIA(mode="offline").columns(reference_outputs)

    def test_records_without_references_out_are_named(self):
        reference_outputs = reference_outputs_of(np.zeros(4), np.zeros((2, 4)), [[1, 1, 0, 0], [1, 0, 1, 0]])
        with pytest.raises(MIAError, match="1 of 4 records have no reference OUT"):
            RMIA(mode="offline", a=0.3).columns(reference_outputs)

    def test_base_online_is_rmia_online_for_balanced_references(self):
        reference_outputs, _ = simulated(k=6, n=100)
        np.testing.assert_allclose(
            BASE(mode="online").columns(reference_outputs)[""], log_ratio(reference_outputs, a=None), rtol=1e-9
        )

    @pytest.mark.parametrize("mode", ["offline", "online"])
    @pytest.mark.parametrize("queries", [1, 3])
    @pytest.mark.parametrize("lowest", [-5.0, -2000.0])  # exp(-2000) is no double
    def test_base_of_any_phi(self, mode, queries, lowest):
        draw = np.random.default_rng(0)
        keep = np.argsort(draw.random((6, 50)), axis=0) < 3
        phi = draw.uniform(lowest, 800, (7, 50, queries)).astype(np.float32)
        columns = BASE(mode=mode).columns(reference_outputs_of(phi[0], phi[1:], keep))
        log_p = special.log_expit(phi.astype(np.float64))
        for record in range(50):
            shown = np.flatnonzero(~keep[:, record] if mode == "offline" else keep[:, record] >= 0)
            mean = special.logsumexp(log_p[1 + shown, record], axis=0) - np.log(len(shown))
            expected = (log_p[0, record] - (1.0 if mode == "online" else 0.33) * mean).mean()
            assert columns[""][record] == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert np.isfinite(columns["standard_error"]).all()

    def test_base_offline(self):
        losses_out, own = np.log1p(np.exp(-np.array(OUT))), np.log1p(np.exp(-PHI))
        expected = -own - 0.33 * np.log(np.exp(-losses_out).mean())
        assert BASE().columns(printed())[""][0] == pytest.approx(expected, abs=1e-6)


class TestOthers:
    def test_attack_r_equals_interpolation(self):
        reference_outputs, _ = simulated(k=9, n=60, scheme="bernoulli")
        reference_outputs.keep[0] = False
        scores = AttackR().columns(reference_outputs)
        losses, own = (
            np.logaddexp(0, -x[..., 0].astype(float)) for x in (reference_outputs.references, reference_outputs.target)
        )
        for i in range(60):
            out_ = np.sort(losses[~reference_outputs.keep[:, i], i])
            heights = np.arange(len(out_) + 2) / (len(out_) + 1)
            expected = np.interp(own[i], [0, *out_, 1000], heights)
            assert scores["p_value"][i] == pytest.approx(expected, abs=1e-9)
            assert scores[""][i] == pytest.approx(-expected, abs=1e-9)

    def test_difficulty_calibration_with_one_reference(self):
        reference_outputs, member = simulated(k=2, n=6000)
        one = ReferenceOutputs(
            reference_outputs.target,
            reference_outputs.references[:1],
            reference_outputs.keep[:1],
            reference_outputs.labels,
            10,
        )
        score = DifficultyCalibration().columns(one)[""]
        out_ = ~one.keep[0]
        np.testing.assert_allclose(score[out_], (one.target - one.references[0])[out_, 0], rtol=1e-6)
        assert auc(score, member) > auc(one.target[:, 0].astype(float), member)

    def test_statistics_hold_no_count_of_references(self):
        """References balanced among themselves, one of them the target: their counts alone would tell everything."""
        draw = np.random.default_rng(0)
        pool = np.argsort(draw.random((16, 4000)), axis=0) < 8
        phi = draw.normal(size=(16, 4000))  # no memorization at all
        reference_outputs = reference_outputs_of(phi[0], phi[1:], pool[1:])
        for name, column in ReferenceFeatures().columns(reference_outputs).items():
            values = np.round(column, 12)
            assert len(np.unique(values)) > 1000 or np.ptp(values) == 0, name

    @pytest.mark.parametrize(
        "score",
        [
            LiRA(),
            LiRA(mode="offline"),
            JointLiRA(),
            JointLiRA(mode="offline"),
            RMIA(),
            RMIA(mode="offline"),
            BASE(),
            AttackR(),
            DifficultyCalibration(),
            OfficialLiRA(),
        ],
        ids=lambda score: f"{type(score).__name__}-{getattr(score, 'mode', '')}",
    )
    def test_null_and_signal(self, score):
        reference_outputs, member = simulated(k=8, n=6000)
        scores = score.columns(reference_outputs)[""]
        if not isinstance(score, BASE):  # without references' scale BASE offline is nearly the plain loss
            assert auc(scores, member) > 0.6
        permuted = np.random.default_rng(1).permutation(member)
        assert auc(scores, permuted) == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 1500))
        assert tpr_at_fpr(scores, permuted, 0.05) == pytest.approx(0.05, abs=0.02)

    def test_empty_sides_in_fit_sides_are_finite(self):
        reference_outputs, _ = simulated(k=4, n=500, scheme="bernoulli")
        fit = fit_groups(moments(reference_outputs, "mean"), "empirical_bayes", shrink_shift=True)
        for part in (fit.in_, fit.out_):
            assert np.isfinite(part.center).all()
            assert (part.variance > 0).all()


def test_pseudo_targets_never_have_their_mate_among_the_references():
    """The mate of a complementary pair is IN exactly where the pseudo-target is not: its column is the answer."""
    rng = np.random.default_rng(0)
    halves = rng.random((3, 200)) < 0.5
    keep = np.stack([half for pair in halves for half in (pair, ~pair)])
    given = ReferenceOutputs(
        target=rng.normal(size=(200, 1)).astype(np.float32),
        references=rng.normal(size=(6, 200, 1)).astype(np.float32),
        keep=keep,
        labels=np.zeros(200, np.int64),
        num_classes=2,
    )
    for pseudo, member in pseudo_targets(given, need_in=True):
        assert len(pseudo.references) == 4
        assert not (pseudo.keep == (member == 0)).all(axis=1).any()
