"""The attack objective and the winner's held-out evaluation: no leak of membership, honest figures."""

import json
from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.search import RATE, model_outputs, run_config, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_lightning.config.command_line import load_config
from mia_lightning.config.search import SearchConfig
from mia_lightning.scores.crossfit import draw_holdout
from mia_lightning.search.attack_objective import build_attack_objective, required_attacks
from mia_lightning.search.selection import compare, estimate, interval_of
from mia_lightning.search.space import Space


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=200), st.floats(0, 0.9))
@settings(max_examples=60)
def test_holdout_is_a_share_of_members_and_non_members(rows, share):
    member = np.array(rows)
    held = draw_holdout(member.astype(np.int8), share=share, seed=3)
    assert not held[member == -1].any()
    for value in (0, 1):
        assert abs(held[member == value].sum() - share * (member == value).sum()) <= 1 + 1e-9


@pytest.mark.parametrize("metric", ["auc", "partial_auc", "tpr@0.05", "tpr@0.001"])
def test_gain_over_itself_and_over_noise(metric):
    outputs = model_outputs(1200, signal=2.0)
    noise = {"class_path": "Threshold", "init_args": {"column": "feature_norm"}}
    config = load_config(
        attacks={"a": noise}, signals={"names": ["phi", "feature_norm"]}, evaluation={"folds": 4, "fprs": [0.05, 0.001]}
    )
    space = Space(config, {"attacks.a.column": {"dist": "choice", "values": ["phi"]}}, roots=("attacks",))
    objective = build_attack_objective(space, outputs, attack="a", metric=metric)
    default = estimate(objective, outputs, config, 0)
    winner = estimate(objective, outputs, space.apply({"attacks.a.column": 0}), 1)
    same = compare(default, default, outputs, metric=metric, seed=0)
    assert (same.gain.value, same.gain.low, same.gain.high) == (0.0, 0.0, 0.0)
    comparison = compare(default, winner, outputs, metric=metric, seed=0)
    assert comparison.gain.value == interval_of(winner.outer, metric).value - interval_of(default.outer, metric).value
    assert comparison.gain.low <= comparison.gain.value <= comparison.gain.high
    assert comparison.resolvable == (metric != "tpr@0.001")
    assert comparison.gain.low > 0 or metric == "tpr@0.001"
    json.dumps(comparison.to_dict(), allow_nan=False)


def test_tied_default_loses_nothing_to_noise():
    """Scores of two values have a TPR of 0 at 5% FPR, noise of many values one of 5%."""
    member = np.repeat([1, 0], 200).astype(np.int8)
    outputs = SimpleNamespace(public=SimpleNamespace(membership=member, held_out=np.ones(400, bool)))
    for seed in range(2):
        rng = np.random.default_rng(seed)
        default, winner = (
            SimpleNamespace(held_out_scores=scores) for scores in (rng.integers(0, 2, 400), rng.normal(size=400))
        )
        gain = compare(default, winner, outputs, metric="tpr@0.05", seed=0).gain
        assert gain.value > 0.01
        assert gain.low < 0 < gain.high


def test_objective_holds_no_held_out_membership(task):
    """Everything reachable from the objective: arrays of membership, and names of files."""
    outputs = model_outputs(300, signal=1.0)
    config = replace(run_config(), data=replace(run_config().data, private="secret.pt"))
    space = Space(config, RATE, roots=("attacks",))
    objective = build_attack_objective(space, outputs, attack="mlp", metric="auc")
    truth, held = outputs.public.membership, outputs.public.held_out
    assert (objective.member[held] == -1).all()
    seen = []

    def walk(node):
        if isinstance(node, np.ndarray):
            seen.append(node)
        elif is_dataclass(node) and not isinstance(node, type):
            for f in fields(node):
                walk(getattr(node, f.name))
        elif isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif hasattr(node, "__dict__"):
            walk(vars(node))
        else:
            assert "secret.pt" not in str(node)

    walk(objective)
    assert len(seen) > 3
    for array in seen:
        if array.shape == truth.shape and array is not objective.labels:
            assert not np.array_equal(array[held], truth[held])


def test_held_out_labels_change_no_trial():
    outputs = model_outputs(400, signal=1.0)
    flipped = outputs.public.membership.copy()
    flipped[outputs.public.held_out] = 1 - flipped[outputs.public.held_out]
    other = replace(outputs, public=replace(outputs.public, membership=flipped))
    space = Space(run_config(), RATE, roots=("attacks",))
    first, second = (build_attack_objective(space, half, attack="gaussian", metric="auc") for half in (outputs, other))
    assert first.evaluate({}) == second.evaluate({})


def test_table_equals_that_of_a_run(task):
    """Columns computed once, against what the pipeline computes for each configuration."""
    from mia_lightning.references.outputs import ReferenceOutputs
    from mia_lightning.references.result import References

    outputs = model_outputs(120, signal=1.0)
    rng = np.random.default_rng(0)
    keep = np.argsort(rng.random((6, 120)), axis=0) < 3
    phi = rng.normal(size=(6, 120, 2)).astype(np.float32) + keep[..., None]
    reference_outputs = ReferenceOutputs(
        rng.normal(size=(120, 2)).astype(np.float32), phi, keep, outputs.outputs.labels, 3
    )
    outputs = replace(outputs, reference_sets={"": References(reference_outputs, (), ())})
    scores = {"lira": {"class_path": "LiRA"}, "rmia": {"class_path": "RMIA"}}
    config = load_config(
        signals={"names": ["phi", "loss"]},
        references={"count": 6, "scores": scores},
        attacks={"a": {"class_path": "MLP"}},
    )
    described = {
        "signals.names": {"dist": "choice", "values": [["entropy", "phi"], ["standard"]]},
        "signals.query_reduction": {"dist": "choice", "values": ["mean", "first", "none"]},
        "references.scores.lira.variance": {"dist": "choice", "values": ["fixed", "empirical_bayes"]},
    }
    space = Space(config, described, roots=("attacks", "signals", "references.scores"))
    objective = build_attack_objective(space, outputs, attack="a", metric="auc")
    for params in samples(space, SearchConfig(), 6):
        trial = space.apply(params)
        table, expected = objective.table(trial), outputs.table(trial)
        assert list(table.columns) == list(expected.columns)
        for name, column in expected.columns.items():
            assert np.array_equal(table.columns[name], column)


def test_anchored_references_hide_held_out_membership():
    """Where a reference is IN because its record is a known member, `keep` is membership itself."""
    from mia_lightning.references.columns import reference_columns
    from mia_lightning.references.outputs import ReferenceOutputs
    from mia_lightning.references.result import References

    outputs = model_outputs(120, signal=1.0)
    truth, rng = outputs.public.membership, np.random.default_rng(0)
    drawn = np.argsort(rng.random((12, 120)), axis=0) < 8
    keep = np.where(drawn, np.argsort(rng.random((12, 120)), axis=0) % 2 == 0, truth == 1)
    phi = rng.normal(size=(12, 120, 2)).astype(np.float32) + keep[..., None]
    reference_outputs = ReferenceOutputs(phi[0], phi, keep, outputs.outputs.labels, 3, drawn)
    config = load_config(
        references={"count": 12, "scores": {"lira": {"class_path": "LiRA"}}}, attacks={"a": {"class_path": "MLP"}}
    )
    described = {"references.scores.lira.variance": {"dist": "choice", "values": ["fixed", "empirical_bayes"]}}
    space = Space(config, described, roots=("references.scores",))
    outputs = replace(outputs, reference_sets={"": References(reference_outputs, (), ())})
    objective = build_attack_objective(space, outputs, attack="a", metric="auc")
    assert not objective.reference_outputs.keep[~drawn].any()
    expected = reference_columns(config.references.scores, reference_outputs)
    for name, column in expected.items():
        assert np.array_equal(objective.table(config).columns[name], column)


def test_required_attacks():
    attacks = run_config().attacks
    assert list(required_attacks(attacks, "fusion")) == ["mlp", "lightgbm", "fusion"]
    assert list(required_attacks(attacks, "gaussian")) == ["gaussian"]
