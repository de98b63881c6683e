"""Audits of arrays alone, without images or a checkpoint."""

import re

import numpy as np
import pytest

from mia_lightning import load_config
from mia_lightning.cli import evaluate, train
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.arrays import load_arrays
from mia_lightning.pipeline.audit import audit
from mia_lightning.references import exposure
from mia_lightning.references.scores.lira import LiRA

K, N, C = 8, 240, 4


@pytest.fixture(scope="module")
def pool():
    draw = np.random.default_rng(0)
    labels, difficulty, member = draw.integers(0, C, N), draw.normal(size=N), draw.random(N) < 0.5
    keep = np.array([half for _ in range(K // 2) for half in [draw.random(N) < 0.5] for half in (half, ~half)])

    def logits(in_):
        z = draw.normal(size=(N, 2, C))
        z[np.arange(N), :, labels] += (1 + difficulty + 2 * in_)[:, None]
        return z.astype(np.float32)

    return {
        "logits": np.stack([logits(row) for row in keep]),
        "keep": keep,
        "labels": labels,
        "target": logits(member),
        "membership": member,
    }


ATTACKS = {"p": {"class_path": "AttackP"}, "lira": {"class_path": "Threshold", "init_args": {"column": "ratio"}}}
SCORES = {"ratio": {"class_path": "LiRA"}}


def config(path, **references):
    return load_config(attacks=ATTACKS, references={"imported": str(path), "scores": SCORES} | references)


def save(folder, **arrays):
    np.savez(folder / "pool.npz", **arrays)
    return folder / "pool.npz"


def test_logits_and_phi_give_the_same_attacks(pool, tmp_path):
    first = audit(config(save(tmp_path, **pool)))
    arrays = load_arrays(config(tmp_path / "pool.npz"))
    outputs = arrays.reference_outputs
    phi = {"phi": outputs.references, "keep": pool["keep"], "target": outputs.target, "membership": pool["membership"]}
    second = audit(config(save(tmp_path, **phi, labels=pool["labels"])))
    np.testing.assert_allclose(first.attacks["lira"].public_scores, second.attacks["lira"].public_scores, rtol=1e-5)
    np.testing.assert_allclose(first.attacks["lira"].public_scores, LiRA().columns(outputs)[""])
    correct = pool["target"][:, 0].argmax(axis=1) == pool["labels"]
    assert first.target["accuracy_on_members"] == pytest.approx(correct[pool["membership"]].mean())


def test_train_writes_the_report(pool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exposure, "FEWEST_RECORDS", 200)
    monkeypatch.setattr(exposure, "RELIABLE", -9.0)
    options = [f"--references.imported={save(tmp_path, **pool)}", f"--output={tmp_path / 'run'}"]
    assert train([*options, "--attacks.p", "AttackP", "--references.scores", "{ratio: {class_path: LiRA}}"]) == 0
    assert "stored" not in capsys.readouterr().err
    assert {"report.html", "metrics.json", "scores.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert "<span>top 1%: 0." in (tmp_path / "run" / "report.html").read_text()
    lines = (tmp_path / "run" / "exposure.csv").read_text().splitlines()
    assert lines[0] == "id,split,mean,standard_deviation,top_probability"
    assert len(lines) == 1 + N


def test_evaluate_reads_arrays(pool, tmp_path, capsys):
    assert evaluate([str(save(tmp_path, **pool)), "--resamples", "100", "--attacks", "LiRA online,RMIA online"]) == 0
    assert "RMIA online" in capsys.readouterr().out


def test_signed_membership(pool, tmp_path):
    signed = np.where(pool["membership"], 1, -1)
    arrays = load_arrays(config(save(tmp_path, **pool | {"membership": signed})))
    np.testing.assert_array_equal(arrays.records.membership, pool["membership"])


def test_one_model_is_the_target(pool, tmp_path):
    without = {name: values for name, values in pool.items() if name not in ("target", "membership")}
    given = config(save(tmp_path, **without))
    with pytest.raises(MIAError, match=r"--evaluation.targets all"):
        load_arrays(given)
    given.evaluation.targets = (3,)
    arrays = load_arrays(given)
    np.testing.assert_array_equal(arrays.records.membership, pool["keep"][3])
    assert len(arrays.reference_outputs.references) == K - 1


def test_row_order_keeps_the_references(tmp_path):
    """One model of a matrix with every record IN exactly half is the target, so that records lose references."""
    draw = np.random.default_rng(1)
    keep = draw.random((K, N)).argsort(axis=0) < K // 2
    phi = (draw.normal(size=(K, N, 2)) + keep[..., None]).astype(np.float32)
    order = draw.permutation(N)
    stored = {"phi": phi[1:], "keep": keep[1:], "target": phi[0], "membership": keep[0], "labels": keep[0] * 0}
    shuffled = {name: values[:, order] if name in ("phi", "keep") else values[order] for name, values in stored.items()}
    first, second = (load_arrays(config(save(tmp_path, **arrays))).references(0) for arrays in (stored, shuffled))
    drawn = first.reference_outputs.drawn
    assert drawn is not None
    assert not drawn.all()  # records were cut
    np.testing.assert_array_equal(drawn[:, order], second.reference_outputs.drawn)


def test_records_without_references_are_left_out(pool, tmp_path):
    drawn = np.ones_like(pool["keep"])
    drawn[:, :5] = False
    arrays = load_arrays(config(save(tmp_path, **pool, drawn=drawn)))
    assert arrays.records.ids.tolist() == list(range(5, N))
    assert any("5 of 240 records have no reference drawn; left out" in note for note in arrays.notes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"membership": None}, "no membership of the target"),
        ({"membership": np.ones(N)}, "members \\(1\\) and non-members"),
        ({"ids": np.zeros(N)}, "ids must be unique"),
    ],
)
def test_mistakes(changes, sentence, pool, tmp_path, capsys):
    arrays = {name: values for name, values in (pool | changes).items() if values is not None}
    assert train([f"--references.imported={save(tmp_path, **arrays)}", f"--output={tmp_path / 'run'}"]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_evaluate_reads_scores_of_an_npz(tmp_path, capsys):
    draw = np.random.default_rng(0)
    member = draw.random(100) < 0.5
    np.savez(tmp_path / "scores.npz", membership=member, lira=draw.normal(size=100) + member)
    assert evaluate([str(tmp_path / "scores.npz"), "--resamples", "100"]) == 0
    assert "lira" in capsys.readouterr().out
