"""No label through references where phi and membership have nothing to do with each other (small, fixed seeds)."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.honesty_references import columns_of, configuration, head_aucs, null_data, without_costly_choices
from mia_lightning.metrics.roc import auc

RECORDS = 1000
CHANCE = np.sqrt((RECORDS + 1) / 3) / RECORDS  # standard deviation of the AUC


@pytest.mark.parametrize("references", [3, 15])
@pytest.mark.parametrize("kind", ["halves", "pairs"])
@pytest.mark.parametrize("name", ["references", "few_references"])
def test_one_model_of_a_balanced_matrix_as_target(name, kind, references):
    data = null_data(f"leave one out of {kind}", references, RECORDS, seed=1)
    scores, patterns = configuration(name)
    columns = columns_of(without_costly_choices(scores), data, seed=1)
    assert any("each" in column or "calibration" in column for column in columns)
    for column, values in columns.items():
        assert auc(values, data.member) == pytest.approx(0.5, abs=4 * CHANCE), column
    for head, value in head_aucs(columns, patterns, data).items():
        assert value == pytest.approx(0.5, abs=4 * 1.4 * CHANCE), head  # out-of-fold scores vary more (section E)


def test_anchored_references():
    data = null_data("anchored", 16, RECORDS, seed=2)
    scores, patterns = configuration("few_references")
    columns = columns_of(scores, data, seed=2)
    for column, values in columns.items():
        assert auc(values, data.member) == pytest.approx(0.5, abs=4 * CHANCE), column
    for head, value in head_aucs(columns, patterns, data).items():
        assert value == pytest.approx(0.5, abs=4 * 1.4 * CHANCE), head


@pytest.mark.parametrize(("name", "memory"), [("small_references", 0.0), ("fine_tuned", 0.7)])
def test_two_networks_that_measure_difficulty(name, memory):
    """Membership by coins; copies of the target remember what the target does."""
    data = null_data("balanced", 2, RECORDS, seed=3)
    outputs = data.reference_outputs
    data = replace(data, reference_outputs=replace(outputs, references=outputs.references + memory * outputs.target))
    scores, patterns = configuration(name)
    columns = columns_of(scores, data, seed=3)
    assert {"difficulty", "difficulty_in_0", "difficulty_out_0"} == set(columns)
    for column, values in columns.items():
        assert auc(values, data.member) == pytest.approx(0.5, abs=4 * CHANCE), column
    for head, value in head_aucs(columns, patterns, data).items():
        assert value == pytest.approx(0.5, abs=4 * 1.4 * CHANCE), head


def test_the_test_can_fail():
    """Without the checks of an import the count IN is the label."""
    data = null_data("leave one out of halves", 15, RECORDS, seed=1)
    count = data.reference_outputs.keep.sum(axis=0).astype(np.float64)
    assert set(np.unique(count + data.member)) == {8}
    value = head_aucs({"count": count}, ["count"], data)["LightGBM"]
    assert value > 0.99
