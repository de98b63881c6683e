"""Fraction of an unlabeled set that was in training: coverage, groups, misfit and mistakes as one sentence."""

import json

import numpy as np
import pytest

from mia_lightning.cli import evaluate
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.fraction import fraction_in_training
from mia_lightning.metrics import evaluate as figures


def draw(seed, n, fraction, shift=1.4):
    """Known scores, membership, unlabeled scores."""
    rng = np.random.default_rng(seed)
    member, hidden = np.arange(n) % 2, rng.random(n) < fraction
    return rng.normal(size=n) + shift * member, member, rng.normal(size=n) + shift * hidden


@pytest.mark.parametrize("fraction", [0.0, 0.9])
def test_fraction_is_covered(fraction):
    """Of 40 intervals of 95%, at least 34 hold the true fraction."""
    estimates = []
    for seed in range(40):
        scores, member, unlabeled = draw([seed, int(10 * fraction)], 1000, fraction)
        estimates.append(fraction_in_training("a", unlabeled, scores, member, seed=seed))
    assert sum(e.low <= fraction <= e.high for e in estimates) >= 34
    assert abs(np.mean([e.value for e in estimates]) - fraction) < 0.04
    assert np.mean([e.fits for e in estimates]) > 0.9


def test_interval_is_narrow_with_many_records():
    scores, member, unlabeled = draw(0, 20_000, 0.5)
    estimate = fraction_in_training("a", unlabeled, scores, member)
    assert estimate.high - estimate.low < 0.04


def test_order_of_scores_is_enough():
    scores, member, unlabeled = draw(4, 1000, 0.3)
    plain = fraction_in_training("a", unlabeled, scores, member)
    steep = fraction_in_training("a", np.exp(2 * unlabeled), np.exp(2 * scores), member)
    assert steep.value == pytest.approx(plain.value, abs=0.01)


def test_repeated_records_as_groups():
    """Each unlabeled record ten times: with its group the interval is that of the records once, 3 times as wide."""
    scores, member, unlabeled = draw(1, 1000, 0.5)
    once = fraction_in_training("a", unlabeled[:200], scores, member)
    repeated, groups = unlabeled[:200].repeat(10), np.arange(200).repeat(10)
    grouped = fraction_in_training("a", repeated, scores, member, unlabeled_groups=groups)
    ignored = fraction_in_training("a", repeated, scores, member)
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high), abs=1e-6)
    assert ignored.high - ignored.low < 0.6 * (once.high - once.low)


def test_another_distribution_does_not_fit():
    scores, member, unlabeled = draw(2, 1000, 0.5)
    assert not fraction_in_training("a", 3 * unlabeled, scores, member).fits


def test_precision_at_the_estimated_share():
    scores, member, unlabeled = draw(5, 2000, 0.2)
    estimate = fraction_in_training("a", unlabeled, scores, member)
    point = figures(scores, member, fprs=(0.05,)).points[0]
    value, low = estimate.precision(point)
    assert value == pytest.approx(
        estimate.value * point.tpr / (estimate.value * point.tpr + (1 - estimate.value) * 0.05)
    )
    assert 0 < low < value


def test_scores_that_do_not_separate():
    with pytest.raises(MIAError, match="do not separate members from non-members"):
        fraction_in_training("a", np.zeros(100), np.zeros(200), np.arange(200) % 2)


def test_evaluate_unlabeled(tmp_path, capsys):
    scores, member, unlabeled = draw(3, 600, 0.3)
    rows = "".join(f"{i},{m},{s:.5f}\n" for i, (m, s) in enumerate(zip(member, scores, strict=True)))
    (tmp_path / "scores.csv").write_text("id,membership,phi\n" + rows)
    (tmp_path / "u.csv").write_text("id,score\n" + "".join(f"{i},{s:.5f}\n" for i, s in enumerate(unlabeled)))
    np.savez(tmp_path / "u.npz", phi=unlabeled.round(5))
    words = [str(tmp_path / "scores.csv"), "--resamples", "100", "--unlabeled"]
    assert evaluate([*words, str(tmp_path / "u.csv"), "--output", str(tmp_path / "out")]) == 0
    assert "of the 600 unlabeled records" in capsys.readouterr().out
    fraction = json.loads((tmp_path / "out/metrics.json").read_text())["fraction"]
    assert fraction["low"] < 0.3 < fraction["high"]
    assert fraction["precision"][0]["low"] <= fraction["precision"][0]["value"]
    for name in ("report.html", "audit_card.md"):
        assert "of the 600 unlabeled records" in (tmp_path / "out" / name).read_text()
    (tmp_path / "few.csv").write_text("id,score\n1,0.5\n")
    (tmp_path / "other.csv").write_text("id,label\n1,2\n")
    (tmp_path / "nan.csv").write_text("id,score\n1,nan\n")
    for name, part in (
        ("few.csv", "needs 50 members"),
        ("other.csv", "has no column 'phi' or score"),
        ("nan.csv", "nan.csv"),
        ("absent.csv", "absent.csv"),
        ("u.csv --leaderboard key.csv", "leave it out with --leaderboard"),
    ):
        assert evaluate([*words, *f"{tmp_path}/{name}".split()]) == 2
        message = capsys.readouterr().err
        assert part in message
        assert message.count("\n") == 1
