"""Comparison of two targets: differences, coverage, per-record changes, and mistakes as one sentence."""

import csv
import json

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from mia_lightning.cli import compare as command
from mia_lightning.comparison.changes import compare, detectable

N = 400
MEMBER = (np.arange(N) % 2).astype(np.int8)


def scores_of(seed, shift, n=N):
    """Scores of one target: half of their variance belongs to the record, the same for all targets of a population."""
    of_record = np.random.default_rng(seed // 2).normal(size=n)
    of_target = np.random.default_rng(10_000 + seed).normal(size=n)
    return (of_record + of_target) / np.sqrt(2) + shift * (np.arange(n) % 2)


def write(path, values, *, membership=MEMBER, first=0, name="lira"):
    rows = [f"r{i + first},{m},{v:.8f}" for i, (m, v) in enumerate(zip(membership, values, strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"id,membership,{name}\n" + "\n".join(rows) + "\n")
    return str(path)


def run_folder(folder, values, *, digest, records="r"):
    write(folder / "scores.csv", values)
    rows = [f"r{i},public,{v:.6f},0.5" for i, v in enumerate(values * 2)]
    (folder / "references.csv").write_text("id,split,calibration,calibration_p_value\n" + "\n".join(rows) + "\n")
    target = {"digest": digest, "accuracy_on_members": 1.0, "accuracy_on_non_members": 0.8}
    facts = {"run": {"target": target, "sources": [{"part": "public", "digest": records}]}}
    (folder / "metrics.json").write_text(json.dumps(facts))
    return str(folder)


def test_compare_runs(tmp_path, capsys):
    before = run_folder(tmp_path / "a", scores_of(2, 1.5), digest="1")
    after = run_folder(tmp_path / "b", scores_of(3, 0.2), digest="2")
    assert command([before, after, "--output", str(tmp_path / "out"), "--resamples", "200"]) == 0
    printed = capsys.readouterr().out
    for part in ("lira: 200 members", "calibration, against reference models", "tpr@0.05", "McNemar p", "gap of the"):
        assert part in printed
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["before"]["target"] == "1"
    rows = {row["figure"]: row for row in content["attacks"]["lira"]["differences"]}
    figures = [content["attacks"]["lira"][side]["auc"] for side in ("before", "after")]
    assert rows["auc"]["value"] == pytest.approx(figures[1] - figures[0])
    assert rows["auc"]["high"] < 0
    assert content["attacks"]["calibration"]["against_references"]
    records = list(csv.DictReader((tmp_path / "out/changes.csv").open()))
    assert len(records) == N
    values = scores_of(3, 0.2)
    assert float(records[1]["lira_after"]) == pytest.approx((values[MEMBER == 0] < values[1]).mean(), abs=1e-4)


def test_equal_runs_move_nobody(tmp_path, capsys):
    same = [write(tmp_path / f"{name}.csv", scores_of(2, 1.0)) for name in "ab"]
    assert command([*same, "--resamples", "100"]) == 0
    printed = capsys.readouterr().out
    for words in ("fell", "rose"):
        assert f"members whose rank among the non-members {words} most (percentage points): none\n" in printed


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ("one", "1 runs are named; name two"),
        ("other ids", "ids of"),
        ("other membership", "membership differs from"),
        ("other images", "is of other records than"),
        ("no attack in common", "have no attack in common (lira and loss)"),
        ("empty folder", "has no scores.csv"),
        ("unknown attack", "'rmia' is not an attack of both"),
        ("foreign output", "holds other files"),
        ("missing", "nowhere"),
    ],
)
def test_bad_comparisons(tmp_path, capsys, case, part):
    a = write(tmp_path / "a.csv", scores_of(2, 1))
    b = write(tmp_path / "b.csv", scores_of(3, 1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    folders = [run_folder(tmp_path / x, scores_of(2, 1), digest=x, records=x) for x in "xy"]
    words = {
        "one": [a],
        "other ids": [a, write(tmp_path / "ids.csv", scores_of(3, 1), first=1)],
        "other membership": [a, write(tmp_path / "c.csv", scores_of(3, 1), membership=1 - MEMBER)],
        "other images": folders,
        "no attack in common": [a, write(tmp_path / "loss.csv", scores_of(3, 1), name="loss")],
        "empty folder": [a, str(tmp_path / "empty")],
        "unknown attack": [a, b, "--attacks", "rmia"],
        "foreign output": [a, b, "--output", str(tmp_path / "full")],
        "missing": [a, str(tmp_path / "nowhere.csv")],
    }[case]
    assert command(words) == 2
    message = capsys.readouterr().err
    assert part in message
    assert message.count("\n") == 1


def test_null_is_covered():
    """Two targets of equal exposure: the 95% interval of the difference holds 0 in 88 or more of 100 pairs, and
    a change found with a probability of 90% is 3.24 standard deviations of the differences.
    """
    covered, values, smallest = np.zeros(2), [], []
    member = (np.arange(1000) % 2).astype(np.int8)
    for seed in range(0, 200, 2):
        scores = [{"a": scores_of(seed + side, 1.0, 1000)} for side in (0, 1)]
        (change,) = compare(*scores, member, fprs=(0.05,), resamples=120, seed=seed)
        covered += [row.low <= 0 <= row.high for row in change.differences]
        values.append([row.value for row in change.differences])
        smallest.append([detectable(row) for row in change.differences])
    assert (covered >= 88).all()
    assert np.mean(smallest, axis=0) == pytest.approx(3.24 * np.std(values, axis=0), rel=0.25)


def test_change_is_found():
    """A difference of 0.1 in TPR@5% is within its interval, and significant."""
    shift, n = 1.0, 4000
    tpr = float(ndtr(shift - ndtri(0.95)))
    lower = float(ndtri(tpr - 0.1) + ndtri(0.95))
    member = (np.arange(n) % 2).astype(np.int8)
    before, after = {"a": scores_of(2, shift, n)}, {"a": scores_of(3, lower, n)}
    (change,) = compare(before, after, member, fprs=(0.05,), resamples=300, seed=0)
    row = change.differences[1]
    assert row.low < -0.1 < row.high < 0
    assert change.identified.only_before > change.identified.only_after
