"""Canaries: making, the commitment, audits whose coins were followed or not, and bounds that hold."""

import json

import numpy as np
import pytest

from mia_lightning.canary.manifest import read_manifest
from mia_lightning.cli import canaries
from mia_lightning.evaluation.config import OneRun
from mia_lightning.evaluation.privacy import privacy_bounds


@pytest.fixture
def records(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 1, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "records.npz", images=images, labels=np.arange(300) % 3)
    return str(tmp_path / "records.npz")


@pytest.fixture
def made(records, tmp_path, capsys):
    folder = tmp_path / "made"
    assert canaries(["make", records, "--output", str(folder), "--count", "200", "--seed", "1"]) == 0
    assert "published before training" in capsys.readouterr().out
    manifest = read_manifest(folder)
    rows = [f"{i},{c + 0.01 * n:.4f}" for n, (i, c) in enumerate(zip(manifest.ids, manifest.coins, strict=True))]
    (tmp_path / "scores.csv").write_text("ids,score\n" + "\n".join(rows) + "\n")
    return folder


def words(made, **changed):
    options = {"scores": made.parent / "scores.csv", "trained": made / "train.npz"} | changed
    return ["audit", str(made), *(w for name, value in options.items() for w in (f"--{name}", str(value)))]


@pytest.mark.parametrize("pattern", ["mislabeled", "blank", "high_frequency"])
def test_patterns(records, tmp_path, pattern):
    options = ("--count", "100", "--pattern", pattern, "--output", str(tmp_path / "c"), "--seed", "3")
    assert canaries(["make", records, *options]) == 0
    with np.load(tmp_path / "c/canaries.npz") as everything, np.load(tmp_path / "c/train.npz") as train:
        assert everything["images"].shape == (100, 1, 4, 4)
        assert everything["images"].dtype == np.uint8
        coins = everything["membership"] == 1
        assert 30 < coins.sum() < 70
        np.testing.assert_array_equal(everything["ids"][coins], train["ids"])
        np.testing.assert_array_equal(everything["images"][coins], train["images"])
        if pattern == "mislabeled":
            with np.load(records) as source:
                known = {
                    image.tobytes(): label for image, label in zip(source["images"], source["labels"], strict=True)
                }
            labels = [known[image.tobytes()] for image in everything["images"]]
            assert (np.array(labels) != everything["labels"]).all()
        elif pattern == "blank":
            assert (everything["images"].std(axis=(1, 2, 3)) == 0).all()
        else:
            assert set(np.unique(everything["images"])) == {0, 255}


def test_coins_cannot_be_repeated_without_a_seed(records, tmp_path):
    for name in "ab":
        assert canaries(["make", records, "--count", "100", "--output", str(tmp_path / name)]) == 0
    first, second = (read_manifest(tmp_path / name) for name in "ab")
    assert first.coins != second.coins
    assert first.commitment != second.commitment


def test_audit(made, tmp_path, capsys):
    commitment = read_manifest(made).commitment
    assert canaries(words(made, commitment=commitment, output=tmp_path / "audit.json")) == 0
    printed = capsys.readouterr().out
    assert "reported: epsilon >= " in printed
    assert printed.count("sensitivity: ") == 3
    content = json.loads((tmp_path / "audit.json").read_text())
    (reported,) = [bound for bound in content["bounds"] if bound["reported"]]
    assert reported["method"].startswith("one run (Steinke")
    assert reported["epsilon"] > 2
    assert content["commitment"] == commitment


def test_trained_records_by_id(made, tmp_path):
    manifest = read_manifest(made)
    ids = [i for i, coin in zip(manifest.ids, manifest.coins, strict=True) if coin] + ["other-1"]
    (tmp_path / "trained.csv").write_text("id\n" + "\n".join(ids) + "\n")
    assert canaries(words(made, trained=tmp_path / "trained.csv")) == 0


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ("all", "the coins were not followed: 0 canaries to be trained on are missing and"),
        ("none", "the coins were not followed"),
        ("coins", "was changed after its commitment"),
        ("json", "is not a manifest of canaries"),
        ("gone", "cannot be read"),
        ("commitment", "is not the one of --commitment"),
        ("hex", "64 hexadecimal digits"),
        ("scores", "are missing"),
        ("delta", "delta must lie in [0, 1)"),
        ("no trained", "--trained is not given"),
        ("action", "expected canaries make or canaries audit"),
        ("few", "--count must be between 20 and"),
        ("many", "has 300 records with labels; 1,000 mislabeled canaries"),
        ("pattern", "expected one of mislabeled"),
        ("full", "holds other files"),
    ],
)
def test_bad_canaries(made, records, tmp_path, capsys, case, part):
    manifest, scores = made / "manifest.json", tmp_path / "scores.csv"
    if case == "coins":
        content = json.loads(manifest.read_text())
        content["coins"][0] = 1 - content["coins"][0]
        manifest.write_text(json.dumps(content))
    if case == "json":
        manifest.write_text("{")
    if case == "gone":
        manifest.unlink()
    if case == "scores":
        scores.write_text("\n".join(scores.read_text().splitlines()[:-1]) + "\n")
    making = ["make", records, "--output", str(tmp_path / "new")]
    given = {
        "all": words(made, trained=made / "canaries.npz"),
        "none": words(made, trained=records),
        "commitment": words(made, commitment="0" * 64),
        "hex": words(made, commitment="x"),
        "delta": words(made, delta=2),
        "no trained": ["audit", str(made), "--scores", str(scores)],
        "action": ["mkae", records],
        "few": [*making, "--count", "5"],
        "many": making,
        "pattern": [*making, "--pattern", "noise"],
        "full": ["make", records, "--output", str(made), "--count", "100"],
    }
    assert canaries(given.get(case, words(made))) == 2
    message = capsys.readouterr().err
    assert part in message
    assert message.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_bounds_are_rarely_above_the_truth():
    """Randomized response of epsilon 1: one-run bounds above 1 in at most 5% of runs, plus simulation error."""
    rng, above = np.random.default_rng(0), 0
    for seed in range(60):
        coins = rng.integers(0, 2, 300)
        answers = np.where(rng.random(300) < 1 / (1 + np.exp(-1)), coins, 1 - coins)
        declared = OneRun(random_inclusion=True)
        above += privacy_bounds("a", answers + 0.0, coins, delta=1e-5, seed=seed, one_run=declared)[1].epsilon > 1
    assert above <= 7
