"""Search spaces and samplers: distributions, grids, typed values, mistakes."""

import json
import re

import numpy as np
import pytest
from helpers import ROOT
from helpers.search import RATE, run_config, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mia_lightning.cli import tune
from mia_lightning.config.command_line import parse_mapping
from mia_lightning.config.files import to_mapping
from mia_lightning.config.search import SearchConfig
from mia_lightning.errors import MIAError
from mia_lightning.search.space import Space

DROPOUT, EPOCHS = "attacks.mlp.dropout", "attacks.mlp.epochs"
HIGHEST = 2**31 - 1
"""The largest integer that a field accepts."""


def space_of(**described):
    return Space(run_config(), {f"attacks.mlp.{key}": value for key, value in described.items()}, roots=("attacks",))


@given(st.floats(0, 0.5), st.floats(0.01, 0.4), st.integers(0, 1000))
@settings(max_examples=20)
def test_samples_lie_in_range(low, width, seed):
    space = space_of(dropout={"dist": "uniform", "low": low, "high": low + width})
    (params,) = samples(space, SearchConfig(), 1, seed)
    assert low <= space.values(params)[DROPOUT] <= low + width
    assert space.values(params)[DROPOUT] == pytest.approx(params[DROPOUT], rel=1e-3)


def test_loguniform_samples_are_uniform_in_log():
    space = Space(run_config(), RATE, roots=("attacks",))
    (key,) = RATE
    rates = [space.values(params)[key] for params in samples(space, SearchConfig(trials=500), 500)]
    assert stats.kstest(np.log10(rates), stats.uniform(-4, 2).cdf).pvalue > 1e-3


def test_int_samples_are_uniform():
    space = space_of(epochs={"dist": "int", "low": 3, "high": 6})
    values, counts = np.unique(
        [params[EPOCHS] for params in samples(space, SearchConfig(trials=400), 400)], return_counts=True
    )
    assert values.tolist() == [3, 4, 5, 6]
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_samples_depend_on_seed_and_number(algorithm):
    space = space_of(
        dropout={"dist": "uniform", "low": 0, "high": 0.5, "steps": 4}, epochs={"dist": "int", "low": 1, "high": 9}
    )
    search = SearchConfig(algorithm=algorithm)
    first = samples(space, search, 6)
    assert samples(space, search, 6) == first
    assert samples(space, search, 6, seed=1) != first
    assert len({json.dumps(params) for params in first}) == 6


def test_grid_holds_every_combination_once():
    space = space_of(
        epochs={"dist": "int", "low": 2, "high": 4},
        hidden={"dist": "choice", "values": [[8], [64, 32]]},
        dropout={"dist": "uniform", "low": 0, "high": 0.5, "steps": 3},
    )
    points = [space.values(params) for params in samples(space, SearchConfig(algorithm="grid"), 18)]
    expected = {
        (epochs, hidden, dropout)
        for epochs in (2, 3, 4)
        for hidden in ("[8]", "[64, 32]")
        for dropout in (0, 0.25, 0.5)
    }
    assert {(p[EPOCHS], json.dumps(p["attacks.mlp.hidden"]), p[DROPOUT]) for p in points} == expected


def test_huge_ranges_are_not_enumerated():
    space = space_of(epochs={"dist": "int", "low": 1, "high": HIGHEST})
    assert all(1 <= params[EPOCHS] <= HIGHEST for params in samples(space, SearchConfig(algorithm="optuna"), 12))
    with pytest.raises(MIAError, match=r"2,147,483,647 combinations, over 10,000"):
        space.grid()


def test_applied_values_equal_parsed_ones():
    """Independent of `apply`: the same values, laid over the plain mapping and parsed."""
    described = {
        "attacks.mlp.init_args.hidden": {"dist": "choice", "values": [[8], [64, 32]]},
        "attacks.mlp.dropout": {"dist": "choice", "values": [0, 0.25]},
        "attacks.lightgbm.n_estimators": {"dist": "int", "low": 3, "high": 9},
        "attacks.fusion.members": {"dist": "choice", "values": [["mlp"], ["mlp", "lightgbm"]]},
        "signals.names": {"dist": "choice", "values": [["standard"], ["phi", "loss"]]},
    }
    space = Space(run_config(), described, roots=("attacks", "signals"))
    for params in samples(space, SearchConfig(), 4):
        mapping = to_mapping(run_config())
        for key, value in space.values(params).items():
            *above, last = key.split(".")
            node = mapping
            for part in above:
                node = node[part].get("init_args", node[part])
            node[last] = value
        assert space.apply(params) == parse_mapping(mapping)


def test_values_outside_the_space_are_refused():
    space = space_of(
        hidden={"dist": "choice", "values": [[8], [4]]}, dropout={"dist": "uniform", "low": 0, "high": 0.5}
    )
    good = {"attacks.mlp.hidden": 1, DROPOUT: 0.25}
    assert space.values(good) == {"attacks.mlp.hidden": [4], DROPOUT: 0.25}
    bad = (
        {"attacks.mlp.hidden": 2},
        {"attacks.mlp.hidden": "1"},
        {DROPOUT: 0.6},
        {DROPOUT: True},
        {DROPOUT: float("nan")},
        {"x": 1},
    )
    for change in bad:
        with pytest.raises(ValueError, match=r"cannot be|no choice|other fields"):
            space.values(good | change)


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
        ("{attacks.mlp.dropout: {dist: [1], low: 0, high: 1}}", "no distribution is named"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0.5, high: 0.1}}", "low must be below high, got 0.5 and 0.1"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0.5}}", "uniform needs high"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0, high: x}}", "high must be a number, got 'x'"),
        ("{attacks.mlp.epochs: {dist: int, low: 0, high: 1.0e+300}}", "high must be a whole number"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0, high: .nan}}", "high must be a number, got nan"),
        ("{attacks.mlp.dropout: {dist: uniform, low: 0, high: 1.5}}", "cannot be 1.5.*dropout must be"),
        ("{attacks.mlp.epochs: {dist: uniform, low: 0.5, high: 1.5}}", "cannot be .*expected"),
        ("{attacks.mlp.loss: {dist: choice, values: [bce, hinge]}}", "cannot be 'hinge'"),
        ("{attacks.mlp.dropout: {dist: choice, values: []}}", "values must be a list of 1 to 200 values"),
        ("{attacks.mlp.learning_rate: {dist: loguniform, low: 0, high: 1}}", "low must be above 0 on a log scale"),
    ],
)
def test_space_error_message(search, sentence, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(f"search: {{space: {search}}}")
    assert tune([*BASE, "--config", str(tmp_path / "s.yaml"), "--output", str(tmp_path / "x")]) == 2
    error = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert re.search(sentence, error), error
    assert not (tmp_path / "x").exists()


def test_grid_size_is_checked_first(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(
        f"search: {{space: {{{EPOCHS}: {{dist: int, low: 1, high: {HIGHEST}}}}}, algorithm: grid}}"
    )
    assert tune([*BASE, "--config", str(tmp_path / "s.yaml"), "--output", str(tmp_path / "x")]) == 2
    assert "combinations, over 10,000" in capsys.readouterr().err
