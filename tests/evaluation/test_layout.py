"""Row order and ids: notes on the file, never the verdict or the figures."""

from dataclasses import replace

import numpy as np
import pytest

from mia_lightning.evaluation.assess import assess
from mia_lightning.evaluation.file_notes import file_notes, runs_p_value
from mia_lightning.report.contents import Report
from mia_lightning.report.files import metrics, versions
from mia_lightning.scores.scored_records import ScoredRecords


def records(n=1200, seed=0):
    rng = np.random.default_rng(seed)
    member = rng.integers(0, 2, n).astype(np.int8)
    scores = {"a": rng.normal(size=n) + 0.8 * member, "b": np.round(rng.normal(size=n) + member, 1)}
    return ScoredRecords(rng.permutation(10 * n)[:n], member, scores, rng.integers(0, 5, n), "scores.csv")


def in_order(given, order):
    return ScoredRecords(
        given.ids[order],
        given.membership[order],
        {name: scores[order] for name, scores in given.scores.items()},
        given.labels[order],
        given.source,
    )


def test_sorted_and_shuffled_files_have_the_same_figures():
    given = records()
    pixels = np.random.default_rng(1).integers(0, 256, (1200, 3, 8, 8)).astype(np.uint8)
    size = np.random.default_rng(2).normal(size=1200)
    results = []
    for order in (np.arange(1200), np.argsort(given.membership), np.argsort(-given.membership, kind="stable")):
        assessment = assess(in_order(given, order), bootstrap=100, pixels=pixels[order], columns={"size": size[order]})
        figures = metrics(Report(assessment, "a", "named", versions()))
        figures["agreement"].pop("only")  # lists of ids, in the order of the file
        results.append((figures.pop("notes"), figures, assessment.claims["a"].q_value[np.argsort(given.ids[order])]))
    assert not results[0][0]
    assert "Row order" in results[1][0][0]
    for _, figures, q_values in results[1:]:
        assert figures == results[0][1]
        np.testing.assert_array_equal(q_values, results[0][2])


def of_member(member, name, rng):
    n = len(member)
    make = {
        "two ranges": lambda: rng.permutation(n) + 10 * n * member.astype(int),
        "even": lambda: 2 * rng.permutation(10 * n)[:n] + 1 - member,
        "camera": lambda: np.array([f"{rng.integers(10**6):06d}_cam{2 - m}_{i}" for i, m in enumerate(member)]),
        "extension": lambda: np.array(
            [f"{rng.integers(10**9):09d}{i}.{'jpg' if m else 'png'}" for i, m in enumerate(member)]
        ),
        "day": lambda: np.array(
            [
                f"2024-01-{rng.integers(1, 29):02d}T{rng.integers(*((8, 18) if m else (18, 24))):02d}:{i:05d}"
                for i, m in enumerate(member)
            ]
        ),
        "upper": lambda: np.array(
            [(str.upper if m else str)(f"{rng.integers(1 << 60):015x}a{i:x}") for i, m in enumerate(member)]
        ),
        "random": lambda: rng.permutation(10 * n)[:n],
    }
    return make[name]()


@pytest.mark.parametrize("name", ["two ranges", "even", "camera", "extension", "day", "upper", "random"])
def test_ids_that_follow_membership_are_noted(name):
    given = records()
    ids = of_member(given.membership, name, np.random.default_rng(3))
    notes = file_notes(replace(given, ids=ids), seed=0)
    assert [note.split(" ")[0] for note in notes] == ([] if name == "random" else ["Ids"])


@pytest.mark.parametrize("pattern", ["sorted", "alternating", "blocks"])
def test_row_order_that_follows_membership_is_noted(pattern):
    rows = np.arange(1000)
    member = {"sorted": rows < 500, "alternating": rows % 2 == 0, "blocks": rows // 50 % 2 == 0}[pattern]
    assert runs_p_value(member.astype(np.int8)) < 1e-6


def test_runs_of_random_order_have_uniform_p_values():
    rng = np.random.default_rng(0)
    p_values = [runs_p_value(rng.permutation(np.repeat([0, 1], [80, 120]))) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
