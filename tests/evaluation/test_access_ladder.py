"""Access ladder: reductions of the outputs, one learner at every level, and runs restricted to a level."""

import numpy as np
import pytest
import torch

from mia_lightning import MIAError, audit
from mia_lightning.evaluation.access_ladder import access_ladder
from mia_lightning.outputs.access import LEVELS, highest_access, reduce_logits, restrict
from mia_lightning.outputs.boundary import boundary_distances
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.scores.folds import assign_folds

FAST = {"evaluation": {"folds": 2}}


@pytest.fixture(scope="module")
def simulated():
    """Outputs whose logits, but not whose labels, know the membership."""
    rng = np.random.default_rng(0)
    count, queries, classes = 800, 2, 6
    member, labels = np.repeat(np.array([1, 0], np.int8), count // 2), rng.integers(0, classes, count)
    logits = rng.normal(size=(count, queries, classes)).astype(np.float32)
    logits[np.arange(count), :, labels] += (8 + 3 * member)[:, None]
    return Outputs(logits, np.zeros((count, 0), np.float32), np.zeros((count, 0), np.float32), labels), member


def test_reductions_show_what_the_level_shows(simulated):
    logits = simulated[0].logits
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    seen = {level: np.exp(reduce_logits(logits, level)) for level in LEVELS[:6]}
    for values in seen.values():
        np.testing.assert_array_equal(values.argmax(-1), logits.argmax(-1))
    np.testing.assert_allclose(seen["probabilities"], p, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(seen["probabilities_2"].clip(0.005), np.round(p, 2).clip(0.005), atol=1e-6)
    np.testing.assert_allclose(seen["top1"].max(-1), p.max(-1), rtol=1e-4)
    np.testing.assert_allclose(seen["top1"].sum(-1), 1, rtol=1e-3)
    assert len(np.unique(reduce_logits(logits, "label"))) == 2
    with pytest.raises(MIAError, match="does not reduce"):
        reduce_logits(logits, "logits")


def test_levels_below_features_have_neither_features_nor_gradients(simulated):
    outputs, _ = simulated
    full = Outputs(outputs.logits, np.ones((800, 3), np.float32), np.ones((800, 3), np.float32), outputs.labels)
    assert restrict(full, "references") is full
    assert restrict(full, "features").features.shape[1] == 3
    assert restrict(full, "logits").features.shape[1] == restrict(full, "features").gradient_norms.shape[1] == 0
    assert highest_access("logits", outputs) == "logits"
    assert highest_access("probabilities", outputs) == "probabilities"
    assert highest_access("probabilities", restrict(outputs, "label")) == "label"


def test_ladder_rises_where_confidence_leaks_and_labels_do_not(simulated):
    outputs, member = simulated
    fold = assign_folds(member, folds=2, seed=0)
    options = {"target_access": "logits", "highest": "references", "references": {}, "models": 0, "seed": 0}
    rungs = {(rung.access, rung.queries): rung for rung in access_ladder(outputs, member, fold, **options).rungs}
    label, logits = rungs["label", 1].evaluation, rungs["logits", 1].evaluation
    assert label.auc_low < 0.5 < label.auc_high
    assert logits.auc > 0.9
    (gain,) = (gain for gain in rungs["top1", 1].gain if gain.figure == "auc")
    assert gain.low > 0.2
    assert rungs["label", 2].total_queries == 1600
    short = access_ladder(outputs, member, np.where(np.arange(800) < 500, fold, -1), **options)
    assert short.rungs == ()
    assert "there are 400 and 100" in short.reason


def test_restricted_run_reads_labels_alone(simulated):
    outputs, member = simulated
    inputs, labels = outputs.logits[:, 0], outputs.labels

    def model(batch):
        return batch

    sides = [(inputs[member == side], labels[member == side]) for side in (1, 0)]
    full, restricted = audit(model, *sides, **FAST), audit(model, *sides, access="label", **FAST)
    assert full.attacks["phi_threshold"].public.auc > 0.9
    assert restricted.attacks["phi_threshold"].public.distinct <= 2
    assert restricted.ladder().access.tolist() == ["label"]
    assert "the predicted label on" in restricted.contents.run.threat[0]
    with pytest.raises(MIAError, match="--access label has neither"):
        audit(model, *sides, access="label", references=4)
    with pytest.raises(MIAError, match="access"):
        audit(model, *sides, access="lable")


@pytest.mark.parametrize(("budget", "most"), [(100, 2.0), (1000, 1.1)])
def test_boundary_distance_approaches_that_of_a_half_space(budget, most):
    rng = torch.Generator().manual_seed(0)
    normal, inputs = torch.randn(20, generator=rng), torch.randn(40, 20, generator=rng)
    normal /= normal.norm()
    asked = 0

    def predict(batch):
        nonlocal asked
        asked += len(batch)
        return (batch @ normal > 0).long()

    labels = predict(inputs)
    asked = 0
    labels[0] = 1 - labels[0]
    result = boundary_distances(predict, inputs, labels, inputs, budget=budget, seed=0)
    ratio = result.distances * inputs.std() / (inputs @ normal).abs()
    assert result.distances[0] == 0
    assert ratio[1:].min() > 0.999
    assert ratio[1:].median() < most
    assert result.queries <= budget
    assert asked <= (budget + 1) * len(inputs)


def test_boundary_is_a_rung_with_its_budget(simulated, tmp_path):
    outputs, member = simulated
    sides = [(outputs.logits[member == side, 0], outputs.labels[member == side]) for side in (1, 0)]
    result = audit(lambda batch: batch.argmax(1), *sides, boundary={"queries": 60, "records": 60}, **FAST)
    rungs = result.ladder()
    (row,) = [row for name, row in rungs.iterrows() if "boundary distance of 60 records" in name]
    assert 30 < row.queries <= 60
    assert row.auc > rungs.iloc[0].auc + 0.2  # members lie farther from the boundary, and all are correct
    assert row.members == 30
    every = result.contents.run.ladder.rungs
    number, rung = next((i, rung) for i, rung in enumerate(every) if rung.attack == "boundary distance")
    (gain,) = (gain for gain in rung.gain if gain.figure == "auc")
    assert gain.low <= gain.value <= gain.high
    sampled = rung.evaluation.auc - gain.value  # of the labels, on the sampled records
    assert abs(sampled - every[number - 1].evaluation.auc) < 0.2
    result.report(tmp_path / "report")
    card = (tmp_path / "report" / "audit_card.md").read_text()
    table = card[card.index("## Access ladder") : card.index("## Sanity checks")]
    assert table.count("\n| ") == len(rungs) + 1
    assert f"({gain.low:+.3f} to {gain.high:+.3f})" in table
    with pytest.raises(MIAError, match="queries must be 0 or between"):
        audit(lambda batch: batch.argmax(1), *sides, boundary={"queries": 3})


def test_boundary_of_whole_numbers_is_a_note():
    rng = np.random.default_rng(0)
    sides = [(rng.integers(0, 9, (40, 5)), rng.integers(0, 3, 40)) for _ in range(2)]
    result = audit(lambda batch: batch[:, :3] * 1.0, *sides, boundary={"queries": 60, "records": 20}, **FAST)
    ladder = result.contents.run.ladder
    assert ladder.rungs == ()
    assert "not measured: it needs inputs of floating-point numbers or uint8 images, not int" in ladder.notes[0]
