"""Plans of reference models: forecasts, the advice to stop, and mistakes as one sentence."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import norm, t

from mia_lightning.cli import planner
from mia_lightning.evaluation.assessment import CurvePoint
from mia_lightning.evaluation.config import PlannerConfig
from mia_lightning.planning import without_references
from mia_lightning.planning.plan import plan
from mia_lightning.planning.run import run


def curve(tprs, error=0.005):
    """Points at 2, 4, ... references."""
    return [
        CurvePoint(2 ** (i + 1), 0.8, 0.79, 0.81, 0.05, t, t - 2 * error, t + 2 * error) for i, t in enumerate(tprs)
    ]


def lira_tprs(rng, counts, n=4000):
    """TPR@5% of the likelihood ratio of normal phi with the first K references, half of them trained on each record."""
    level, shift, member = 2 * rng.normal(size=n), rng.gamma(1, 1.5, n), np.arange(n) % 2 == 1
    target = level + shift * member + rng.normal(size=n)
    in_, out = ((center + rng.normal(size=(max(counts) // 2, n))) for center in (level + shift, level))
    tprs = []
    for count in counts:
        means = [side[: count // 2].mean(axis=0) for side in (in_, out)]
        score = (target - means[1]) ** 2 - (target - means[0]) ** 2
        tprs.append(float((score[member] > np.quantile(score[~member], 0.95)).mean()))
    return tprs


def run_folder(folder, points):
    folder.mkdir()
    rows = [asdict(point) for point in points]
    facts = {"target": {}, "learning_curve": {"lira": rows}, "references": [{"seconds": 360.0}] * 4}
    (folder / "metrics.json").write_text(json.dumps({"run": facts}))
    return str(folder)


def plain_run(folder, tpr, resolvable=True, **run):
    """A run without references; its headline attack has one TPR at both rates."""
    folder.mkdir()
    points = [
        {"fpr": f, "tpr": tpr, "low": tpr and tpr * 0.9, "high": tpr and min(tpr * 1.1, 1), "resolvable": resolvable}
        for f in (0.01, 0.05)
    ]
    content = {"headline": "a", "attacks": {"a": {"n_members": 5000, "points": points}}, "run": {"target": {}} | run}
    (folder / "metrics.json").write_text(json.dumps(content))
    return str(folder)


MEASURED = {  # TPR without references and with four, of each target (table in benchmarks/README.md)
    0.05: (
        [0.205, 0.116, 0.131, 0.150, 0.147, 0.067, 0.069, 0.323, 0.230],
        [0.389, 0.253, 0.278, 0.340, 0.286, 0.094, 0.207, 0.411, 0.563],
    ),
    0.01: (
        [0.075, 0.047, 0.026, 0.045, 0.038, 0.017, 0.012, 0.140, 0.050],
        [0.160, 0.084, 0.123, 0.161, 0.144, 0.025, 0.066, 0.241, 0.315],
    ),
}


def test_forecast_without_references(tmp_path, capsys):
    shifts = {fpr: np.diff(norm.ppf(pairs), axis=0)[0] for fpr, pairs in MEASURED.items()}
    for fpr, (mean, deviation) in without_references.SHIFTS.items():
        assert (shifts[fpr].mean(), shifts[fpr].std(ddof=1)) == pytest.approx((mean, deviation), abs=0.02)
    plans = run(PlannerConfig((plain_run(tmp_path / "a", 0.2),)))
    assert [(item.fpr, item.present) for item in plans] == [(0.01, 0), (0.05, 0)]
    for item in plans:
        (row,) = item.forecasts
        width = t.ppf(0.975, 8) * shifts[item.fpr].std(ddof=1) * (1 + 1 / 9) ** 0.5
        ends = norm.cdf(norm.ppf(0.2) + shifts[item.fpr].mean() + np.array([-width, width])) - 0.2
        assert (row.gain_low, row.gain_high) == pytest.approx(ends, abs=0.02)
        assert row.low < 0.2 + row.gain_low < 0.2 + row.gain_high < row.high
    printed = capsys.readouterr().out
    assert "measured on 9 targets" in printed.replace("\n", " ")
    assert "train 4 references: +0.1" in printed
    assert run(PlannerConfig((plain_run(tmp_path / "all", 1.0),)))[0].advice.startswith("stop: ")


def test_forecasts_of_likelihood_ratios():
    """Of 30 audits with 4 references, the intervals hold the TPR with 8 and 32 of them in at least 26."""
    rng, held = np.random.default_rng(0), []
    for _ in range(30):
        tprs = lira_tprs(rng, (2, 4, 8, 32))
        eight, _, many, _ = plan("lira", curve(tprs[:2], error=0.011)).forecasts
        held.append((eight.low < tprs[2] < eight.high, many.low < tprs[3] < many.high))
    assert np.sum(held, axis=0).min() >= 26


def test_gains_shrink_and_hours_add_up():
    rows = plan("lira", curve([0.36, 0.40]), seconds=60).forecasts
    assert [row.references for row in rows] == [8, 16, 32, 64]
    assert [row.hours for row in rows] == pytest.approx([4 / 60, 12 / 60, 28 / 60, 1])
    gains = np.diff([0.0, *(row.gain for row in rows)])
    assert gains == pytest.approx([0.028, 0.0196, 0.01372, 0.009604])
    assert all(row.gain_low <= row.gain <= row.gain_high for row in rows)


def test_flat_curve_advises_to_stop(tmp_path, capsys):
    folder = run_folder(tmp_path / "a", curve([0.419, 0.42]))
    assert planner([folder, "--output", str(tmp_path / "plan.json")]) == 0
    assert "stop: twice the references bring less than 0.005" in capsys.readouterr().out
    assert json.loads((tmp_path / "plan.json").read_text())[0]["advice"].startswith("stop")


def test_steep_curve_names_hours(tmp_path, capsys):
    assert planner([run_folder(tmp_path / "a", curve([0.2, 0.3, 0.36]))]) == 0
    printed = capsys.readouterr().out
    assert "train up to 64 references: +0.0" in printed
    assert "for 5.6 hours" in printed


def test_bad_plans(tmp_path, capsys):
    one = run_folder(tmp_path / "one", curve([0.4]))
    twice = run_folder(tmp_path / "twice", curve([0.4]) * 2)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "metrics.json").write_text("{")
    for words, part in (
        ([], "0 runs are named"),
        ([str(tmp_path)], "has no metrics.json"),
        ([one], "has no learning curve"),
        ([plain_run(tmp_path / "few", 0.2, resolvable=False)], "has too few non-members"),
        ([plain_run(tmp_path / "null", None)], "its metrics.json is damaged"),
        ([plain_run(tmp_path / "two", 0.2, references=[{}] * 2)], "with --references.count 4 or more, or with none"),
        ([str(damaged)], "is not the metrics.json of a run"),
        ([twice], "its metrics.json is damaged"),
        ([twice, "--output", str(tmp_path)], "is a folder; name a file"),
    ):
        assert planner(words) == 2
        message = capsys.readouterr().err
        assert part in message
        assert message.count("\n") == 1
