import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.evaluation.explanation import columns_alone, permutation_importance, phi_of_records, reliability
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.signals.table import SignalTable


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    member = np.tile(np.array([0, 1], np.int8), 300)
    columns = {
        "noise": rng.normal(size=600),
        "phi": rng.normal(size=600) + 1.5 * member,
        "wide": rng.normal(size=(600, 3)),
    }
    columns["loss"] = -(columns["phi"] ** 3)
    return SignalTable(columns, np.zeros(600, np.int64), 10), member


def test_columns_alone(table):
    columns, member = table[0].columns, table[1]
    alone = columns_alone(columns, {"noise": 1, "phi": 1, "loss": -1, "wide": 1}, member, (0.05,))
    assert list(alone) == ["phi", "loss", "noise"]  # in the order of AUC, the wide one left out
    for name, sign in (("phi", 1), ("loss", -1), ("noise", 1)):
        assert alone[name].auc == pytest.approx(roc_auc_score(member, sign * columns[name]))


def test_permutation_importance_ranks_the_informative_column_first(table):
    signals, member = table
    fold = np.arange(600, dtype=np.int8) // 2 % 3
    attack = LightGBM(columns=["noise", "phi"], n_estimators=20, min_child_samples=10, n_jobs=1)
    importance = permutation_importance(attack, signals, member, fold, seed=0)
    assert list(importance) == ["phi", "noise"]
    assert importance["phi"] > 0.2
    assert abs(importance["noise"]) < 0.05


def test_reliability_equals_calibration_curve():
    rng = np.random.default_rng(1)
    probabilities = rng.random(1000)
    member = (rng.random(1000) < probabilities).astype(np.int8)
    bins = reliability(probabilities, member)
    observed, predicted = calibration_curve(member, probabilities, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([part.observed for part in bins], observed, atol=1e-12)
    np.testing.assert_allclose([part.predicted for part in bins], predicted, atol=1e-12)
    assert all(part.low <= part.observed <= part.high and part.records == 100 for part in bins)


def test_phi_of_records_leaves_undrawn_references_out():
    rng = np.random.default_rng(2)
    references = rng.normal(size=(4, 3, 2)).astype(np.float32)
    keep = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 1, 1]], bool)
    drawn = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], bool)
    outputs = ReferenceOutputs(
        rng.normal(size=(3, 2)).astype(np.float32), references, keep, np.zeros(3, np.int64), 2, drawn
    )
    rows = phi_of_records(outputs, [1, 2, 0], np.array(["a", "b", "c"]), np.array([1, 0, 0], np.int8))
    assert [row.id for row in rows] == ["b", "a"]  # no reference was drawn for the third
    np.testing.assert_allclose(rows[0].in_, [references[3, 1].mean()], rtol=1e-6)
    np.testing.assert_allclose(rows[0].out_, references[[0, 2], 1].mean(axis=1), rtol=1e-6)
