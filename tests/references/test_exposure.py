"""Exposure of records: calibration, stability between disjoint sets of references, and where it is left out."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from mia_lightning.config.command_line import load_config
from mia_lightning.pipeline.results import AuditResult
from mia_lightning.references.exposure import exposure
from mia_lightning.references.outputs import ReferenceOutputs

N = 4000


def population(seed):
    """Difficulty, standard deviation and exposure of each record; hard records are memorized more, some far more."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 2, N)
    exposed = np.exp(rng.normal(0.6 - 0.15 * difficulty, 0.4, N)) + rng.exponential(0.3, N)
    return difficulty, np.sqrt(1 / rng.gamma(6, 1 / 6, N)), exposed


def outputs(seed, truth, count=8, correlation=0.0):
    """phi of references on complementary halves, correlated between the two of a pair."""
    rng = np.random.default_rng(seed)
    difficulty, deviation, exposed = truth
    halves = [rng.random(N) < 0.5 for _ in range(count // 2)]
    keep = np.array([half for first in halves for half in (first, ~first)])
    own, common = rng.normal(size=(count, N)), np.repeat(rng.normal(size=(count // 2, N)), 2, axis=0)
    sign = np.where(np.arange(count) % 2, -1, 1)[:, None]  # the other half's neighbors move phi the other way
    noise = np.sqrt(1 - correlation) * own + np.sqrt(correlation) * sign * common
    phi = difficulty + deviation * ((keep - 0.5) * exposed + noise)
    zeros = np.zeros((N, 1), np.float32)
    return ReferenceOutputs(zeros, phi[..., None].astype(np.float32), keep, np.zeros(N, np.int64), 2)


def raw(given):
    """Separation in the record's own standard deviations, as LiRA with variances per record has it."""
    phi, keep = given.references[..., 0], given.keep
    sides = [np.where(mask, phi, np.nan) for mask in (keep, ~keep)]
    means, variances = (np.array([value(side, axis=0) for side in sides]) for value in (np.nanmean, np.nanvar))
    return (means[0] - means[1]) / np.sqrt(variances.mean(axis=0))


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_stated_probability_is_met_and_top_lists_agree(correlation):
    stated, happened, inside, overlaps = [], [], [], np.zeros(2)
    for seed in range(4):
        truth = population(seed)
        sets = [outputs(100 * seed + part, truth, correlation=correlation) for part in (1, 2)]
        results = [exposure(given) for given in sets]
        for result in results:
            stated.append(result.top_probability)
            happened.append(np.isin(np.arange(N), np.argsort(-truth[2])[: N // 100]))
            inside.append(np.abs(result.mean - truth[2]) < 1.96 * result.standard_deviation)
        for row, scores in enumerate(([r.top_probability for r in results], [raw(given) for given in sets])):
            tops = [set(np.argsort(-values, kind="stable")[:100].tolist()) for values in scores]
            overlaps[row] += len(tops[0] & tops[1])
    probabilities, events = np.concatenate(stated), np.concatenate(happened)
    assert probabilities.mean() == pytest.approx(0.01, rel=1e-3)
    for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 1.01)):
        rows = (probabilities >= low) & (probabilities < high)
        error = np.sqrt(probabilities[rows].mean() * (1 - probabilities[rows].mean()) / max(rows.sum(), 1))
        assert abs(probabilities[rows].mean() - events[rows].mean()) < 3 * error + 0.06, (low, high)
    assert 0.93 < np.mean(inside) < 0.99
    assert overlaps[0] >= 1.5 * overlaps[1]


def test_left_out_where_references_do_not_separate_records(caplog):
    caplog.set_level(logging.INFO)
    difficulty, deviation, _ = truth = population(0)
    assert exposure(outputs(0, (difficulty, deviation, np.full(N, 1.0)))) is None
    assert "8 references do not separate them" in caplog.text
    assert exposure(outputs(0, truth, count=6)) is None
    assert exposure(outputs(0, truth).records(np.arange(500))) is None


@pytest.mark.parametrize(("start", "is_measured"), [("random", True), ("target", False)])
def test_a_run_with_copies_of_the_target_has_no_exposure(start, is_measured):
    config = load_config(references={"count": 2, "training": {"start": start}})
    result = SimpleNamespace(config=config, reference_outputs=outputs(0, population(0)))
    assert (AuditResult.exposure.func(result) is not None) == is_measured


def test_records_without_two_references_on_a_side_are_nan():
    given = outputs(0, population(0))
    given.keep[:, 0] = True
    given.keep[:, 1] = np.arange(8) < 1
    result = exposure(given)
    assert np.isnan(np.array([result.mean, result.standard_deviation, result.top_probability])[:, :2]).all()
    assert np.isfinite(result.mean[2:]).all()
