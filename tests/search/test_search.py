"""Searches: spaces, honest estimates, what is left behind, kills, failures, engines, bad input."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import yaml
from helpers import ROOT
from helpers.runner import wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mia_lightning.attacks.mlp import MLP
from mia_lightning.cli import train, tune
from mia_lightning.config.command_line import load_config, parse_mapping, parse_tuning
from mia_lightning.config.files import to_mapping
from mia_lightning.config.search import SearchConfig
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.runtime.locks import Lock
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, draw_holdout
from mia_lightning.search.attack_objective import attack_problem, needed
from mia_lightning.search.local import run_here
from mia_lightning.search.sampler import Proposals
from mia_lightning.search.selection import compare, estimate, range_of
from mia_lightning.search.space import Space, distribution
from mia_lightning.search.stacked import fit_together
from mia_lightning.search.trial import Judgment, Trial
from mia_lightning.search.trial_log import Journal
from mia_lightning.signals.table import SignalTable

RATE = {"attacks.mlp.learning_rate": {"dist": "loguniform", "low": 1e-4, "high": 1e-2}}
SEARCH = """
data: {private: null}
attacks:
  loss_threshold: {class_path: Threshold, init_args: {column: loss, higher_is_member: false}}
  mlp: {class_path: MLP, init_args: {columns: [phi, entropy, loss], epochs: 2, hidden: [8], batch_size: 40}}
submission: {attack: mlp}
evaluation: {holdout: 0.4, folds: 3, fprs: [0.01, 0.1]}
search:
  trials: 5
  metric: tpr@0.1
  space:
    attacks.mlp.learning_rate: {dist: loguniform, low: 1e-4, high: 1e-1}
    attacks.mlp.dropout: {dist: uniform, low: 0.0, high: 0.5}
"""


def run_config():
    return load_config(ROOT / "configs/demo.yaml")


# Spaces


@given(st.floats(-100, 100), st.floats(1e-3, 100), st.floats(0, 1))
def test_draws_of_a_range_lie_within_it(low, width, share):
    drawn = distribution("x", {"dist": "uniform", "low": low, "high": low + width}).at(share)
    assert low <= drawn <= low + width
    assert drawn == pytest.approx(low + share * width, abs=1e-3 * max(abs(low), abs(low + width)))


@given(st.floats(1e-8, 1), st.floats(1.5, 1e6))
def test_a_log_range_is_even_on_the_log_scale(low, factor):
    values = distribution("x", {"dist": "loguniform", "low": low, "high": low * factor})
    found = np.log([values.at(share) for share in np.linspace(0, 1, 9)])
    np.testing.assert_allclose(np.diff(found), np.log(factor) / 8, atol=3e-3)


@given(st.integers(-5, 5), st.integers(1, 9))
def test_whole_numbers_are_equally_likely(low, width):
    values = distribution("x", {"dist": "int", "low": low, "high": low + width})
    counts = np.unique([values.at(share) for share in (np.arange(1000) + 0.5) / 1000], return_counts=True)
    assert counts[0].tolist() == list(range(low, low + width + 1)) == values.grid()
    assert np.ptp(counts[1]) <= 1


def test_draws_depend_on_seed_and_number_alone():
    space = Space(run_config(), RATE, roots=("attacks",))
    assert space.draw(1, 7) == space.draw(1, 7)
    many = [space.draw(1, number)["attacks.mlp.learning_rate"] for number in range(500)]
    assert stats.kstest(np.log10(many), stats.uniform(-4, 2).cdf).pvalue > 1e-3


def test_a_grid_holds_every_combination_once():
    keys, sizes = (
        ("attacks.lightgbm.n_estimators", "attacks.lightgbm.num_leaves", "attacks.lightgbm.max_depth"),
        (2, 1, 3),
    )
    described = {key: {"dist": "choice", "values": list(range(2, 2 + n))} for key, n in zip(keys, sizes, strict=True)}
    grid = Space(run_config(), described, roots=("attacks",)).grid()
    assert len({json.dumps(point) for point in grid}) == len(grid) == np.prod(sizes)


def test_applied_values_are_what_the_parser_makes_of_them():
    """Independent of `apply`: the same values, laid over the plain mapping and parsed whole."""
    described = {
        "attacks.mlp.init_args.hidden": {"dist": "choice", "values": [[8], [64, 32]]},
        "attacks.mlp.dropout": {"dist": "choice", "values": [0, 0.25]},
        "attacks.lightgbm.n_estimators": {"dist": "int", "low": 3, "high": 9},
        "attacks.fusion.members": {"dist": "choice", "values": [["mlp"], ["mlp", "lightgbm"]]},
        "signals.names": {"dist": "choice", "values": [["standard"], ["phi", "loss"]]},
    }
    space = Space(run_config(), described, roots=("attacks", "signals"))
    for number in range(4):
        params = space.draw(0, number)
        mapping = to_mapping(run_config())
        for key, value in params.items():
            *above, last = key.split(".")
            node = mapping
            for part in above:
                node = node[part].get("init_args", node[part])
            node[last] = value
        assert space.apply(params) == parse_mapping(mapping)


# Networks side by side


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": True, "dropout": (0.0, 0.3, 0.5)},
        {"loss": "pairwise", "networks": 2, "dropout": (0.2, 0.0, 0.2)},
        {"loss": "partial_auc", "dropout": (0.0, 0.0, 0.0)},
        {"loss": "focal", "dropout": (0.0, 0.1, 0.0)},
    ],
)
def test_networks_side_by_side_are_those_trained_alone(options):
    rng = np.random.default_rng(0)
    member = rng.permutation(np.repeat([0, 1], 150)).astype(np.int8)
    columns = {name: rng.normal(size=300) + 0.5 * member for name in "abc"}
    table = SignalTable(columns, np.zeros(300, np.int64), 1)
    rest = {name: value for name, value in options.items() if name != "dropout"}
    heads = [
        MLP(epochs=3, batch_size=32, hidden=[8, 4], learning_rate=rate, weight_decay=decay, dropout=dropout, **rest)
        for rate, decay, dropout in zip((1e-3, 1e-2, 3e-2), (0.0, 0.1, 1.0), options["dropout"], strict=True)
    ]
    for together, alone in zip(fit_together(heads, table, member, seed=5), heads, strict=True):
        expected = alone.fit(table, member, seed=5).score(table)
        found = together.score(table)
        assert expected.std() > 1e-4
        # a loss of pairs leaves the common level of all scores free, and AdamW blows up the rounding there
        share = 0.1 if heads[0].loss in ("pairwise", "partial_auc") else 1e-4
        np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=share * expected.std())


def test_losses_against_plain_loops():
    import torch

    from mia_lightning.attacks._losses import losses

    rng = np.random.default_rng(1)
    scores, member = rng.normal(size=(2, 60)), rng.integers(0, 2, (2, 60))
    member[0, :45], member[0, 45:] = 0, 1
    for kind in ("bce", "focal", "pairwise", "partial_auc"):
        found = losses(kind, torch.tensor(scores), torch.tensor(member, dtype=torch.float64)).numpy()
        top = max(1, int(np.ceil(0.05 * (member == 0).sum(axis=1).min())))
        for k in range(2):
            inside, outside = scores[k][member[k] == 1], np.sort(scores[k][member[k] == 0])
            right = np.where(member[k] == 1, 1, -1) * scores[k]
            expected = {
                "bce": np.log1p(np.exp(-right)).mean(),
                "focal": (np.log1p(np.exp(-right)) / (1 + np.exp(right)) ** 2).mean(),
                "pairwise": np.mean([np.log1p(np.exp(o - i)) for i in inside for o in outside]),
                "partial_auc": np.mean([np.log1p(np.exp(o - i)) for i in inside for o in outside[-top:]]),
            }[kind]
            assert found[k] == pytest.approx(expected, rel=1e-9)


# The hold-out


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=200), st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_holdout_is_a_share_of_members_and_non_members(rows, share):
    member = np.array(rows)
    held = draw_holdout(member.astype(np.int8), share=share, seed=3)
    assert not held[member == -1].any()
    for value in (0, 1):
        assert abs(held[member == value].sum() - share * (member == value).sum()) <= 1 + 1e-9


# Honesty


def answered_of(n, *, signal, seed=0, share=0.5):
    """Outputs whose phi tells members apart by `signal`, beside noise; half of the records are held out."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.repeat([0, 1], n // 2)).astype(np.int8)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 2, 3)).astype(np.float32)
    logits[np.arange(n), :, labels] += signal * member[:, None]
    outputs = Outputs(logits, rng.normal(size=(n, 40)).astype(np.float32), np.empty((n, 0), np.float32), labels)
    held = draw_holdout(member, share=share, seed=seed)
    fold = np.where(held, NOT_IN_ANY_FOLD, rng.permutation(np.arange(n) % 4)).astype(np.int8)
    half = SplitInfo(np.arange(n), member, fold, held)
    return ModelOutputs(half, None, outputs, None, None, {}, None, [])


def lottery(answered, *, trials, metric="tpr@0.05"):
    """Search over which signals a threshold ranks by, in either direction: many chances to look good by luck."""
    names = ["phi", "loss", "entropy", "hinge", "energy", "logit_norm", "feature_norm", "phi_original"]
    config = load_config(
        signals={"names": [*names, "features"]},
        attacks={"forest": {"class_path": "RandomForest", "init_args": {"columns": ["features"], "n_estimators": 3}}},
        evaluation={"folds": 4, "fprs": [0.05]},
    )
    described = {
        "attacks.forest.columns": {"dist": "choice", "values": [["features"], *[[name, "features"] for name in names]]},
        "attacks.forest.min_samples_leaf": {"dist": "int", "low": 1, "high": 60},
        "attacks.forest.n_estimators": {"dist": "int", "low": 1, "high": 6},
        "attacks.forest.depth": {"dist": "int", "low": 1, "high": 12},
    }
    space = Space(config, described, roots=("attacks",))
    problem = attack_problem(space, answered, attack="forest", metric=metric).limited(1)
    search = SearchConfig(trials=trials, space=described)
    found = []
    proposals = Proposals(space, search, seed=1, done=[], metric=metric, higher_is_better=True)
    run_here(problem, proposals, search, found.append)
    best = max(found, key=lambda trial: trial.figures[metric])
    default = estimate(problem, answered, config, 0)
    winner = estimate(problem, answered, space.apply(best.params), best.number)
    return best, compare(default, winner, answered, metric=metric, seed=0)


def test_with_permuted_labels_the_best_trial_looks_good_and_the_hold_out_says_chance():
    answered = answered_of(1200, signal=0.0)
    best, found = lottery(answered, trials=40)
    inner, outer = (range_of(side, "tpr@0.05") for side in (found.winner.inner, found.winner.outer))
    assert inner.value == best.figures["tpr@0.05"]
    assert (
        stats.binomtest(
            round(inner.value * found.winner.inner.n_members), found.winner.inner.n_members, 0.05, alternative="greater"
        ).pvalue
        < 0.05
    )  # the lucky one of 40
    assert outer.low <= 0.05 <= outer.high
    assert found.gain.low <= 0 <= found.gain.high


@pytest.mark.parametrize("metric", ["auc", "partial_auc", "tpr@0.05", "tpr@0.001"])
def test_the_gain_over_itself_is_nothing_and_over_noise_is_seen(metric):
    answered = answered_of(1200, signal=2.0)
    noise = {"class_path": "Threshold", "init_args": {"column": "feature_norm"}}
    config = load_config(
        attacks={"a": noise}, signals={"names": ["phi", "feature_norm"]}, evaluation={"folds": 4, "fprs": [0.05, 0.001]}
    )
    space = Space(config, {"attacks.a.column": {"dist": "choice", "values": ["phi"]}}, roots=("attacks",))
    problem = attack_problem(space, answered, attack="a", metric=metric)
    default = estimate(problem, answered, config, 0)
    winner = estimate(problem, answered, space.apply({"attacks.a.column": "phi"}), 1)
    same = compare(default, default, answered, metric=metric, seed=0)
    assert (same.gain.value, same.gain.low, same.gain.high) == (0.0, 0.0, 0.0)
    found = compare(default, winner, answered, metric=metric, seed=0)
    assert found.gain.value == range_of(winner.outer, metric).value - range_of(default.outer, metric).value
    assert found.gain.low <= found.gain.value <= found.gain.high
    assert found.resolvable == (metric != "tpr@0.001")
    assert found.gain.low > 0 or metric == "tpr@0.001"
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_trial_holds_no_membership_but_that_of_development_records(task):
    """Whatever can be reached from what a trial is given: arrays of membership, and names of files."""
    answered = answered_of(300, signal=1.0)
    config = replace(run_config(), data=replace(run_config().data, private="secret.pt"))
    space = Space(config, RATE, roots=("attacks",))
    problem = attack_problem(space, answered, attack="mlp", metric="auc")
    truth, held = answered.public.membership, answered.public.held_out
    assert (problem.member[held] == -1).all()
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

    walk(problem)
    assert len(seen) > 3
    for array in seen:
        if array.shape == truth.shape and array is not problem.labels:
            assert not np.array_equal(array[held], truth[held])


def test_held_out_labels_change_no_trial():
    answered = answered_of(400, signal=1.0)
    flipped = answered.public.membership.copy()
    flipped[answered.public.held_out] = 1 - flipped[answered.public.held_out]
    other = replace(answered, public=replace(answered.public, membership=flipped))
    space = Space(run_config(), RATE, roots=("attacks",))
    found = [attack_problem(space, one, attack="gaussian", metric="auc").judge({}).figures for one in (answered, other)]
    assert found[0] == found[1]


def test_signals_and_reference_scores_are_those_of_a_run(task):
    """What a trial puts together from columns computed once equals what the pipeline computes for it."""
    from mia_lightning.references.outputs import ReferenceOutputs
    from mia_lightning.references.result import References

    answered = answered_of(120, signal=1.0)
    rng = np.random.default_rng(0)
    keep = np.argsort(rng.random((6, 120)), axis=0) < 3
    phi = rng.normal(size=(6, 120, 2)).astype(np.float32) + keep[..., None]
    reference_outputs = ReferenceOutputs(
        rng.normal(size=(120, 2)).astype(np.float32), phi, keep, answered.outputs.labels, 3
    )
    answered = replace(answered, references=References(reference_outputs, (), ()))
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
    problem = attack_problem(space, answered, attack="a", metric="auc")
    for number in range(6):
        trial = space.apply(space.draw(0, number))
        found, expected = problem.table(trial), answered.table(trial)
        assert list(found.columns) == list(expected.columns)
        for name, column in expected.columns.items():
            assert np.array_equal(found.columns[name], column)


def test_anchored_references_tell_no_trial_who_is_held_out():
    """Where a reference is IN because its record is a known member, `keep` is membership itself."""
    from mia_lightning.references.columns import reference_columns
    from mia_lightning.references.outputs import ReferenceOutputs
    from mia_lightning.references.result import References

    answered = answered_of(120, signal=1.0)
    truth, rng = answered.public.membership, np.random.default_rng(0)
    drawn = np.argsort(rng.random((12, 120)), axis=0) < 8
    keep = np.where(drawn, np.argsort(rng.random((12, 120)), axis=0) % 2 == 0, truth == 1)
    phi = rng.normal(size=(12, 120, 2)).astype(np.float32) + keep[..., None]
    reference_outputs = ReferenceOutputs(phi[0], phi, keep, answered.outputs.labels, 3, drawn)
    config = load_config(
        references={"count": 12, "scores": {"lira": {"class_path": "LiRA"}}}, attacks={"a": {"class_path": "MLP"}}
    )
    described = {"references.scores.lira.variance": {"dist": "choice", "values": ["fixed", "empirical_bayes"]}}
    space = Space(config, described, roots=("references.scores",))
    answered = replace(answered, references=References(reference_outputs, (), ()))
    problem = attack_problem(space, answered, attack="a", metric="auc")
    assert not problem.reference_outputs.keep[~drawn].any()
    expected = reference_columns(config.references.scores, reference_outputs)
    for name, column in expected.items():
        assert np.array_equal(problem.table(config).columns[name], column)


# Engines and proposals


class Hill:
    """Highest at x = 0.3; counts what it is asked, and fails where it is told to."""

    metric, higher_is_better, width = "auc", True, 1

    def __init__(self, fail=()):
        self.fail, self.seen = fail, []

    def judge(self, params, report=None):
        x = params["attacks.mlp.dropout"]
        self.seen.append(x)
        if len(self.seen) in self.fail:
            raise RuntimeError("of its own")
        for epoch in range(1, 10):
            if report is not None:
                report(epoch, -abs(x - 0.3) * epoch)
        return Judgment({"auc": -abs(x - 0.3)})

    def limited(self, threads):
        return self

    def stack_key(self, params):
        return None

    def judge_together(self, params):
        raise AssertionError


HILL = {"attacks.mlp.dropout": {"dist": "uniform", "low": 0.0, "high": 0.9}}


def climb(problem, search, done=()):
    space = Space(run_config(), HILL, roots=("attacks",))
    proposals = Proposals(space, search, seed=0, done=list(done), metric="auc", higher_is_better=True)
    found = list(done)
    run_here(problem, proposals, search, found.append)
    return found


def test_a_failing_trial_is_reported_and_ends_nothing():
    found = climb(Hill(fail=(2,)), SearchConfig(trials=4))
    assert [trial.status for trial in found] == ["finished", "failed", "finished", "finished"]
    assert found[1].message == "RuntimeError: of its own"


def test_optuna_learns_from_trials_and_from_those_of_an_earlier_try():
    def late(found):
        return np.mean([abs(trial.params["attacks.mlp.dropout"] - 0.3) for trial in found[-10:]])

    search = SearchConfig(trials=40, algorithm="optuna")
    drawn = climb(Hill(), SearchConfig(trials=40))
    learned = climb(Hill(), search)
    assert late(learned) < 0.6 * late(drawn)
    resumed = climb(Hill(), SearchConfig(trials=50, algorithm="optuna"), done=learned)
    assert late(resumed) < 0.6 * late(drawn)
    assert [trial.number for trial in resumed] == list(range(1, 51))


def test_halving_stops_the_worse_trials_and_keeps_the_best():
    found = climb(Hill(), SearchConfig(trials=40, scheduler="asha", grace_period=1))
    stopped = [trial for trial in found if trial.status == "stopped"]
    finished = [trial for trial in found if trial.status == "finished"]
    assert len(stopped) >= 15
    assert all(0 < max(trial.epochs) <= 9 for trial in stopped)
    distances = [[abs(trial.params["attacks.mlp.dropout"] - 0.3) for trial in side] for side in (finished, stopped)]
    assert min(distances[0]) <= min(distances[1])
    assert np.mean(distances[0]) < np.mean(distances[1])


def test_a_sweep_that_goes_on_tries_what_it_would_have_tried():
    whole = climb(Hill(), SearchConfig(trials=9))
    rest = climb(Hill(), SearchConfig(trials=9), done=whole[:4])
    assert [(trial.number, trial.params) for trial in rest] == [(trial.number, trial.params) for trial in whole]


def test_a_line_cut_short_is_no_trial(tmp_path):
    journal = Journal(tmp_path)
    trials = [Trial(n, {"x": [1, 2]}, "finished", {"auc": 0.5}, [0.1], {3: 0.2}, 1.5) for n in range(3)]
    for trial in trials:
        journal.append(trial)
    text = journal.path.read_text()
    for cut in (1, 20, len(text) // 3 - 2):
        journal.path.write_text(text[:-cut])
        assert journal.read() == trials[:2]
    journal.append(trials[2])
    assert journal.read() == trials


# A whole sweep


@pytest.fixture(scope="module")
def quick(task, tmp_path_factory):
    """Arguments of a small sweep, and the folder whose store they share."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "search.yaml").write_text(SEARCH)
    return [*task.arguments, "--config", str(folder / "search.yaml")], folder


@pytest.fixture(scope="module")
def sweep(quick):
    arguments, folder = quick
    assert tune([*arguments, "--output", str(folder / "a")]) == 0
    return folder / "a"


def rows_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_configuration_runs_to_the_last_digit(sweep):
    assert train(["--config", str(sweep / "best.yaml")]) == 0
    outcome = json.loads((sweep / "search_result.json").read_text())
    again = json.loads((sweep.with_name("a-best") / "metrics.json").read_text())
    assert again["headline"] == "mlp"
    inner, found = outcome["winner"]["inner"], again["attacks"]["mlp"]
    assert found["auc"] == inner["auc"]
    for point in inner["points"]:
        assert point in found["points"]
    assert again["run"]["held_out"]["mlp"] == outcome["winner"]["outer"]
    best = max(rows_of(sweep), key=lambda row: float(row["tpr@0.1"]))
    points = {point["fpr"]: point["tpr"] for point in found["points"]}
    assert points[0.1] == float(best["tpr@0.1"])
    with (sweep.with_name("a-best") / "scores.csv").open(newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert (splits.count("holdout"), splits.count("public")) == (96, 144)


def test_trials_are_listed_with_what_was_tried(sweep):
    rows = rows_of(sweep)
    assert [int(row["trial"]) for row in rows] == list(range(6))
    assert all(row["status"] == "finished" for row in rows)
    assert all(1e-4 <= float(row["attacks.mlp.learning_rate"]) <= 1e-1 for row in rows[1:])
    assert all(len(row["by_fold"].split()) == 3 for row in rows)


def test_tensorboard_has_hyper_parameters_and_scalars_of_each_trial(sweep):
    row = rows_of(sweep)[3]
    events = EventAccumulator(str(sweep / "tensorboard" / "trial-0003")).Reload()
    assert events.Scalars("final/tpr@0.1")[0].value == pytest.approx(float(row["tpr@0.1"]), abs=1e-6)
    assert len(events.Scalars("tpr@0.1 by fold")) == 3
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"attacks.mlp.learning_rate" in plugin


def test_a_sweep_on_two_devices_has_the_trials_of_one(quick, sweep):
    arguments, folder = quick
    own = [
        "--hardware.devices",
        "2",
        "--cache_dir",
        str(folder / "store-of-two"),
        "--output",
        str(folder / "two"),
    ]
    command = [sys.executable, str(ROOT / "tune.py"), *arguments, *own]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("extracted") == 1
    one, two = rows_of(sweep), rows_of(folder / "two")
    assert [row["attacks.mlp.learning_rate"] for row in one] == [row["attacks.mlp.learning_rate"] for row in two]
    assert float(two[0]["auc"]) == pytest.approx(float(one[0]["auc"]), abs=1e-3)  # batches of another process's threads


def test_a_killed_sweep_goes_on(quick, sweep):
    arguments, folder = quick
    output = folder / "killed"
    command = [sys.executable, str(ROOT / "tune.py"), *arguments, "--search.batch_trials", "1", "--search.trials", "60"]
    running = subprocess.Popen([*command, "--output", str(output)], env=os.environ, cwd=ROOT, stderr=subprocess.PIPE)
    trials = output / "trials.jsonl"
    wait_for(lambda: trials.exists() and len(trials.read_bytes().splitlines()) >= 3, running)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    before = trials.read_bytes().splitlines()
    assert 3 <= len(before) < 61
    assert not (output / "best.yaml").exists()
    assert tune([*command[2:], "--output", str(output)]) == 2  # not without --resume
    assert tune([*command[2:], "--output", str(output), "--resume"]) == 0
    after = (output / "trials.jsonl").read_bytes().splitlines()
    assert after[: len(before) - 1] == before[:-1]
    assert [int(row["trial"]) for row in rows_of(output)] == list(range(61))
    first = {row["trial"]: row["auc"] for row in rows_of(sweep)}
    again = {row["trial"]: row["auc"] for row in rows_of(output)}
    assert all(float(again[n]) == pytest.approx(float(value), abs=2e-3) for n, value in first.items())


@pytest.mark.parametrize(("engine", "number"), [("local", signal.SIGTERM), ("ray", signal.SIGINT)])
def test_a_signal_ends_a_sweep_within_seconds(quick, sweep, engine, number):
    arguments, folder = quick
    output = folder / f"{engine}-{number.name}"
    options = [
        "--search.engine",
        engine,
        "--search.batch_trials",
        "1",
        "--search.trials",
        "500",
        "--output",
        str(output),
    ]
    command = [sys.executable, str(ROOT / "tune.py"), *arguments, *options]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for(lambda: (output / "trials.jsonl").exists() and len((output / "trials.jsonl").read_bytes()) > 1000, running)
    running.send_signal(number)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 128 + number, said
    assert f"interrupted ({number.name}); rerun the same command with --resume to continue" in said
    assert "Traceback" not in said
    assert not (output / "best.yaml").exists()


@pytest.mark.slow
def test_ray_finds_what_this_process_finds(quick, sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments, folder = quick
    options = [
        "--search.engine",
        "ray",
        "--search.max_concurrent",
        "1",
        "--search.scheduler",
        "asha",
        "--search.grace_period",
        "1",
    ]
    assert tune([*arguments, *options, "--output", str(folder / "ray")]) == 0
    rows, here = rows_of(folder / "ray"), {row["trial"]: row for row in rows_of(sweep)}
    assert len(rows) == 6
    assert {row["status"] for row in rows} <= {"finished", "stopped"}
    for row in rows:
        assert row["attacks.mlp.dropout"] == here[row["trial"]]["attacks.mlp.dropout"]
        if row["status"] == "finished":
            assert float(row["auc"]) == pytest.approx(float(here[row["trial"]]["auc"]), abs=2e-3)
        if int(row["trial"]) > 0:
            assert int(row["epochs"]) >= 1


def test_recipes_are_compared_with_the_target(tmp_path, capsys):
    overlay = tmp_path / "recipes.yaml"
    overlay.write_text(
        "search:\n  trials: 2\n  grace_period: 1\n  space:\n"
        "    references.training.epochs: {dist: int, low: 1, high: 3}\n"
        "    references.training.learning_rate: null\n    references.training.weight_decay: null\n"
        "    references.training.flip: {dist: choice, values: [false]}\n    references.training.shift: null\n"
    )
    files = [ROOT / "configs/demo.yaml", ROOT / "configs/demo_references.yaml", ROOT / "configs/tune_references.yaml"]
    words = [word for file in (*files, overlay) for word in ("--config", str(file))]
    less = ["--references.training.epochs", "12", "--hardware.accelerator", "cpu", "--search.engine", "local"]
    assert tune([*words, *less, "--output", str(tmp_path / "recipes")]) == 0
    rows = rows_of(tmp_path / "recipes")
    scores = [float(row["mismatch"]) for row in rows if row["status"] == "finished"]
    # the run's own 12 epochs know their records better, as the over-fitted target does, than 1 to 3 epochs
    assert min(scores) == float(rows[0]["mismatch"])
    best = yaml.safe_load((tmp_path / "recipes" / "best.yaml").read_text())
    assert best["references"]["training"]["epochs"] == 12
    assert "on references that no trial trained" in capsys.readouterr().out


# Bad input


def refuse(capsys, *options):
    assert tune([*options]) == 2
    return capsys.readouterr().err


BASE = ["--config", str(ROOT / "configs/demo.yaml"), "--evaluation.holdout", "0.2"]


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("{attacks.mlp.dropout: {low: 0, high: 0.5}}", "no dist is given; write {dist: uniform"),
        ("{}", "search.space is empty; name at least one field"),
        ("{attacks.mlp.learning_rat: {dist: int, low: 1, high: 2}}", "is unknown.*did you mean 'learning_rate'"),
        ("{attacks.mpl.epochs: {dist: int, low: 1, high: 2}}", "is unknown.*did you mean 'mlp'"),
        ("{attacks.mlp.epochs.x: {dist: int, low: 1, high: 2}}", "it is a single value"),
        ("{extraction.queries: {dist: choice, values: [1, 2]}}", "which a trial cannot change"),
        ("{seed: {dist: int, low: 1, high: 2}}", "which a trial cannot change"),
        ("{attacks.mlp.dropout: {dist: unifrom, low: 0, high: 1}}", "named 'unifrom'; did you mean 'uniform'"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0.5, high: 0.1}}", "low must be below high, got 0.5 and 0.1"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0.5}}", "uniform needs high"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0, high: x}}", "high must be a number, got 'x'"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0, high: 1.5}}", "cannot be 1.5.*dropout must be"),
        ("{attacks.mlp.epochs: {dist: uniform, low: 0.5, high: 1.5}}", "cannot be .*expected"),
        ("{attacks.mlp.loss: {dist: choice, values: [bce, hinge]}}", "cannot be 'hinge'"),
        ("{attacks.mlp.dropout: {dist: choice, values: []}}", "values must be a list of at least one value"),
        ("{attacks.mlp.learning_rate: {dist: loguniform, low: 0, high: 1}}", "low must be above 0 on a log scale"),
    ],
)
def test_a_bad_space_is_one_sentence(search, sentence, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(f"search: {{space: {search}}}")
    error = refuse(capsys, *BASE, "--config", str(tmp_path / "s.yaml"), "--output", str(tmp_path / "x"))
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(sentence, error), error
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--search.trials", "0"], "search.trials must be at least 1, got 0"),
        (["--search.metric", "tpr@0.02"], "no attack reports search.metric 'tpr@0.02'"),
        (["--search.attack", "mpl"], "did you mean 'mlp'"),
        (["--search.attack", "lightgbm", "--search.scheduler", "asha"], "attack 'lightgbm' has none; use none"),
        (["--evaluation.holdout", "0"], "set --evaluation.holdout, 0.2 for example"),
        (["--evaluation.holdout", "0.99"], "holdout must lie between 0 and 0.9"),
        (["--search.trails", "3"], "unknown option --search.trails; did you mean 'search.trials'"),
    ],
)
def test_bad_options_are_one_sentence(options, sentence, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(f"search: {{space: {json.dumps(RATE)}}}")
    error = refuse(capsys, *BASE, "--config", str(tmp_path / "s.yaml"), "--output", str(tmp_path / "x"), *options)
    assert sentence in error
    assert error.count("\n") == 1


def test_a_foreign_or_locked_folder_is_refused(quick, sweep, capsys, tmp_path):
    arguments, _ = quick
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds other files" in refuse(capsys, *arguments, "--output", str(tmp_path))
    assert "holds another run" in refuse(capsys, *arguments, "--seed", "7", "--output", str(sweep))
    assert "add --resume to go on" in refuse(capsys, *arguments, "--output", str(sweep))
    lock = Lock(sweep / ".lock")
    assert lock.acquire()
    try:
        assert "is writing into" in refuse(capsys, *arguments, "--output", str(sweep), "--resume")
    finally:
        lock.release()


def test_help_and_mistakes_wait_for_neither_torch_nor_ray():
    script = (
        "import sys\nfrom mia_lightning.cli import tune\n"
        "code = None\n"
        "try:\n    tune(['--help'])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(code, sorted({'torch', 'ray', 'optuna', 'sklearn', 'lightning', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "--search.trials" in done.stdout
    assert "--resume" in done.stdout


@pytest.mark.parametrize("name", ["tune.yaml", "tune_references.yaml"])
def test_shipped_searches_are_valid(name):
    from mia_lightning.search.sweep import check

    overlaid = ["configs/no_reference.yaml", "configs/references.yaml"]
    files = overlaid if "references" in name else []
    words = [word for file in (*files, f"configs/{name}") for word in ("--config", str(ROOT / file))]
    check(parse_tuning([*words, "--data.public", "pub.pt"]))


def test_only_the_attacks_that_are_judged_run():
    attacks = run_config().attacks
    assert list(needed(attacks, "fusion")) == ["mlp", "lightgbm", "fusion"]
    assert list(needed(attacks, "gaussian")) == ["gaussian"]
