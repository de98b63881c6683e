"""The curve over references and the table of classes, against direct computation."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mia_lightning.evaluation.assessment import CurvePoint
from mia_lightning.evaluation.learning_curve import learning_curve
from mia_lightning.evaluation.per_class import per_class_metrics
from mia_lightning.metrics.roc import tpr_at_fpr
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.references.scores.lira import LiRA


def reference_outputs(references=6, n=400, seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=(n, 1))
    member = rng.integers(0, 2, n).astype(np.int8)
    keep = np.concatenate([[half, ~half] for half in rng.random((references // 2, n)) < 0.5])
    phi = hard + rng.normal(size=(references, n, 1)) + keep[:, :, None]
    target = hard + rng.normal(size=(n, 1)) + member[:, None]
    labels = rng.integers(0, 3, n)
    return ReferenceOutputs(target.astype(np.float32), phi.astype(np.float32), keep, labels, 3), member


def test_points_are_the_scores_of_the_first_references():
    given, member = reference_outputs()
    member[::7] = -1
    labeled = member[:300] >= 0
    curve = learning_curve({"calibration": DifficultyCalibration()}, given, member[:300], fpr=0.05)["calibration"]
    assert [point.references for point in curve] == [2, 4, 6]
    for point in curve:
        k = point.references
        out = np.where(given.keep[:k, :, None], np.nan, given.references[:k])
        scores = (given.target - np.nanmean(out, axis=0))[:300, 0]  # every record has a reference OUT in each pair
        assert point.auc == pytest.approx(roc_auc_score(member[:300][labeled], scores[labeled]), abs=1e-3)
        assert point.tpr == pytest.approx(tpr_at_fpr(scores[labeled], member[:300][labeled], 0.05), abs=0.02)
        assert point.auc_low < point.auc < point.auc_high
    assert isinstance(curve[0], CurvePoint)


def test_full_scores_are_reused():
    given, member = reference_outputs()
    scores = {"calibration": DifficultyCalibration()}
    known = {"calibration": np.arange(len(given), dtype=np.float64)}
    curve = learning_curve(scores, given, member, full_scores=known)["calibration"]
    assert curve[-1].auc == pytest.approx(roc_auc_score(member, known["calibration"]))
    assert curve[:-1] == learning_curve(scores, given, member)["calibration"][:-1]


def test_a_score_starts_where_it_has_enough_references():
    given, member = reference_outputs(references=8)
    curves = learning_curve({"lira": LiRA(), "calibration": DifficultyCalibration()}, given, member)
    assert [point.references for point in curves["calibration"]] == [2, 4, 8]
    assert [point.references for point in curves["lira"]] == [4, 8]


def test_class_figures_equal_figures_of_rows():
    rng = np.random.default_rng(1)
    member, labels = rng.integers(0, 2, 900).astype(np.int8), rng.integers(0, 4, 900)
    member[labels == 3] = 1
    scores = rng.normal(size=900) + member
    level = np.sort(scores[member == 0])[::-1][int(0.05 * (member == 0).sum())]
    for row in per_class_metrics(scores, member, labels, fpr=0.05):
        rows = labels == row.label
        in_, out_ = rows & (member == 1), rows & (member == 0)
        assert (row.members, row.non_members) == (in_.sum(), out_.sum())
        assert row.tpr == pytest.approx((scores[in_] > level).mean())
        assert row.tpr_low <= row.tpr <= row.tpr_high
        if row.label == 3:
            assert (row.auc, row.fpr) == (None, None)
        else:
            assert row.auc == pytest.approx(roc_auc_score(member[rows], scores[rows]))
            assert row.fpr == pytest.approx((scores[out_] > level).mean())
