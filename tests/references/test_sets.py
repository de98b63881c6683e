"""Several sets of reference models in one run."""

import numpy as np
import pytest
import torch
from torch import nn

from mia_lightning import MIAError, audit, load_config
from mia_lightning.pipeline.requirements import check_requirements
from mia_lightning.references.sets import in_set, seed_of

CLASSES, SIDE = 3, 6
COPIES = {
    "count": 2,
    "queries": 1,
    "accuracy_tolerance": 1,
    "training": {"start": "target", "epochs": 1, "batch_size": 10},
    "scores": {"difficulty": {"class_path": "PerReferenceDifference"}},
}
FULL = {**COPIES, "count": 4, "training": {"epochs": 2, "batch_size": 10}, "scores": {"lira": {"class_path": "LiRA"}}}
RUN = {
    "signals": {"names": ["phi"]},
    "extraction": {"queries": 1},
    "attacks": {
        "forest": {"class_path": "LightGBM", "init_args": {"columns": ["phi", "lira", "copies_difficulty*"]}},
        "threshold": {"class_path": "Threshold", "init_args": {"column": "copies_difficulty"}},
    },
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def run(references, **options):
    draw = np.random.default_rng(0)
    images, labels = draw.normal(size=(80, 3, SIDE, SIDE)).astype(np.float32), draw.integers(0, CLASSES, 80)
    return audit(
        network(), (images[:40], labels[:40]), (images[40:], labels[40:]), references=references, **RUN | options
    )


def test_two_sets(tmp_path):
    both = run({**FULL, "sets": {"copies": COPIES}})
    result = both.result
    assert list(result.reference_sets) == ["", "copies"]
    assert [len(each.rows) for each in result.reference_sets.values()] == [4, 2]
    copies = result.reference_sets["copies"].reference_outputs
    assert np.abs(copies.references - copies.target).mean() < np.abs(result.reference_outputs.references).mean()
    assert not np.array_equal(copies.keep[0], result.reference_outputs.keep[0])
    gap = result.reference_outputs.target[:, 0] - copies.references[..., 0]
    out = np.where(copies.keep[0], gap[1], gap[0])
    np.testing.assert_allclose(result.table.columns["copies_difficulty_out_0"], out, atol=1e-6)
    both.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "4 reference models" in page
    assert "2 further reference models, trained on random halves of the same records (copies)" in page
    first = run(FULL, attacks={"threshold": {"class_path": "Threshold", "init_args": {"column": "lira"}}})
    np.testing.assert_array_equal(first.result.table.columns["lira"], result.table.columns["lira"])


def test_one_set_without_others():
    threshold = {"threshold": {"class_path": "Threshold", "init_args": {"column": "copies_difficulty"}}}
    result = run({"sets": {"copies": COPIES}}, attacks=threshold).result
    assert result.reference_outputs is None
    assert result.exposure is None
    assert [row.status for row in result.references] == ["trained"] * 2


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"count": 0}, r"set --references\.sets\.copies\.count"),
        (
            {"count": 4, "scores": {"lira": {"class_path": "LiRA"}}},
            r"--references\.sets\.copies\.scores\.lira \(LiRA\)",
        ),
        (
            {"training": {"batch_size": 60}},
            r"--references\.sets\.copies\.training\.batch_size; --references\.sets\.copies null",
        ),
        ({"queries": 50}, r"--references\.sets\.copies\.queries is 50"),
        ({"sets": {"more": COPIES}}, r"references\.sets\.copies holds sets itself"),
        ({"coutn": 3}, r"unknown option --references\.sets\.copies\.coutn.*count"),
    ],
)
def test_bad_set(further, message):
    threshold = {"threshold": {"class_path": "Threshold", "init_args": {"column": "phi"}}}
    scores = further.get("scores", COPIES["scores"])
    training = {**COPIES["training"], **further.get("training", {})}
    copies = {**COPIES, **further, "scores": scores, "training": training}
    with pytest.raises(MIAError, match=message):
        run({"sets": {"copies": copies}}, attacks=threshold)


def test_names_of_sets():
    with pytest.raises(MIAError, match="cannot name columns"):
        load_config("few_references", references={"sets": {"a b": COPIES}})
    clash = {"count": 2, "scores": {"mean": {"class_path": "PerReferenceDifference"}}}
    with pytest.raises(MIAError, match=r"column 'each_mean'; rename --references\.sets\.each"):
        check_requirements(load_config("few_references", references={"sets": {"each": clash}}))


def test_null_leaves_a_set_out():
    assert load_config("few_references", references={"sets": {"copies": None}}).references.sets == {}
    kept = load_config(
        "few_references", references={"scores": {"head": None}, "sets": {"copies": {"scores": {"a": None}}}}
    )
    assert "head" not in kept.references.scores
    assert list(kept.references.sets["copies"].scores) == ["difficulty"]


def test_messages_and_seeds():
    assert in_set("raise --references.count (references.training)", "a") == (
        "raise --references.sets.a.count (references.sets.a.training)"
    )
    assert in_set("train or import references.", "a") == "train or import references."
    assert seed_of(7, "") == 7
    assert len({seed_of(7, name) for name in ("", "a", "b", "ab")}) == 4
