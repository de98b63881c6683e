"""The contract of every reference score in the package, found by itself."""

from dataclasses import fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from mia_lightning.references import scores
from mia_lightning.references.columns import reference_columns, score_columns
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores import ReferenceScore

QUERIES = 18


def subclasses(base):
    return [class_ for child in base.__subclasses__() for class_ in (child, *subclasses(child))]


def variants():
    """Each score of the package as it is by default, and with each value of each option that is one of several
    words."""
    for score in subclasses(ReferenceScore):
        if not score.__module__.startswith(scores.__name__):
            continue
        yield pytest.param(score(), id=score.__name__)
        hints = get_type_hints(score)
        for field in fields(score):
            if get_origin(hints[field.name]) is Literal:
                for value in get_args(hints[field.name]):
                    if value != field.default:
                        yield pytest.param(score(**{field.name: value}), id=f"{score.__name__}-{value}")


def simulated(k=16, n=300, seed=0, drawn=None):
    draw = np.random.default_rng(seed)
    keep = np.argsort(draw.random((k, n)), axis=0) < k // 2
    difficulty = draw.normal(3, 3, (n, 1))
    phi = difficulty + keep[..., None] + draw.normal(size=(k, n, 1)) + 0.3 * draw.normal(size=(k, n, QUERIES))
    target = difficulty + draw.normal(size=(n, 1)) + 0.3 * draw.normal(size=(n, QUERIES))
    labels = draw.integers(0, 10, n)
    return ReferenceOutputs(target.astype(np.float32), phi.astype(np.float32), keep, labels, 10, drawn)


def mostly_drawn(reference_outputs, seed=1):
    """A mask that leaves the first five records no reference and all others at least three IN and three OUT."""
    order = np.random.default_rng(seed).random(reference_outputs.keep.shape)
    drawn = order < 0.6
    for mask in (reference_outputs.keep, ~reference_outputs.keep):
        drawn |= mask & (np.where(mask, order, 2).argsort(axis=0).argsort(axis=0) < 3)
    drawn[:, :5] = False
    return drawn


@pytest.mark.parametrize("score", list(variants()))
def test_columns_are_finite_and_one_per_record(score):
    columns = reference_columns({"score": score}, simulated())
    assert "score" in columns
    for name, values in columns.items():
        assert values.dtype == np.float64, name
        assert not name.endswith("p_value") or ((values > 0) & (values <= 1)).all()
        assert not name.endswith("standard_error") or (values >= 0).all()


@pytest.mark.parametrize("score", list(variants()))
def test_undrawn_references_change_no_column(score):
    """keep and phi are permuted where keep followed from membership."""
    clean = simulated()
    clean = replace(clean, drawn=mostly_drawn(clean))
    hidden = ~clean.drawn
    draw = np.random.default_rng(2)
    keep, phi = clean.keep.copy(), clean.references.copy()
    keep[hidden], phi[hidden] = draw.permutation(keep[hidden]), draw.permutation(phi[hidden]) * 7 - 20
    assert (keep != clean.keep).sum() > 100
    spoiled = replace(clean, keep=keep, references=phi)
    expected, columns = score_columns(score, clean), score_columns(score, spoiled)
    assert list(columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values, err_msg=name)


@pytest.mark.parametrize("score", list(variants()))
def test_a_record_without_references_is_neutral(score):
    reference_outputs = simulated()
    reference_outputs = replace(reference_outputs, drawn=mostly_drawn(reference_outputs))
    values = score_columns(score, reference_outputs)[""]
    assert (values[:5] == np.median(values[5:])).all()
    rest = score.columns(reference_outputs.records(np.arange(5, 300)))[""]
    np.testing.assert_array_equal(values[5:], rest)


@pytest.mark.parametrize("score", list(variants()))
def test_membership_column_of_private_records_is_not_needed(score):
    """Scores hold for records in any order."""
    reference_outputs = simulated()
    order = np.random.default_rng(3).permutation(300)
    whole, shuffled = (score_columns(score, part) for part in (reference_outputs, reference_outputs.records(order)))
    for name, values in whole.items():
        np.testing.assert_allclose(shuffled[name], values[order], rtol=1e-6, atol=1e-9, err_msg=name)
