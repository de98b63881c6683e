"""Every model of a pool as target: one pass gives the values of one target after the other."""

import numpy as np
import pytest

from mia_lightning.metrics.roc import auc
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.attack_r import AttackR
from mia_lightning.references.scores.base import ReferenceScore
from mia_lightning.references.scores.bavaria import BaVarIA
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.references.scores.official_lira import OfficialLiRA
from mia_lightning.references.scores.rmia import BASE, RMIA
from mia_lightning.references.target_pool import TargetPool, partners


def pool(form, k=8, n=60, q=2, effect=1.0, seed=0):
    draw = np.random.default_rng(seed)
    if form == "pairs":
        halves = [draw.permutation(n) < n // 2 for _ in range(k // 2)]
        keep = np.array([row for half in halves for row in (half, ~half)])
    elif form == "balanced":
        keep = draw.random((k, n)).argsort(axis=0) < k // 2
    else:
        keep = draw.random((k, n)) < 0.5
        if effect:
            keep[:3], keep[3:6] = True, False  # at least three on each side
    phi = draw.normal(size=(1, n, 1)) * 2 + effect * keep[..., None] + draw.normal(size=(k, n, q))
    outputs = ReferenceOutputs(np.zeros((n, q), "f4"), phi.astype("f4"), keep, draw.integers(0, 3, n), 3)
    return TargetPool(outputs)


SCORES = [
    *(LiRA(mode=mode) for mode in ("online", "offline")),
    LiRA(variance="fixed"),
    *(OfficialLiRA(mode=mode, fixed_variance=fixed) for mode in ("online", "offline") for fixed in (True, False)),
    *(RMIA(gamma=2.0), RMIA(mode="offline", a=0.3, gamma=2.0), BASE(mode="online"), BASE()),
    *(BaVarIA(), BaVarIA(density="normal"), AttackR(), DifficultyCalibration(), DifficultyCalibration(against="both")),
]


@pytest.mark.parametrize("form", ["pairs", "balanced", "coins"])
@pytest.mark.parametrize("score", SCORES, ids=str)
def test_one_pass_equals_target_by_target(score, form):
    models = pool(form, k=10)
    expected = ReferenceScore.of_targets(score, models)
    np.testing.assert_allclose(score.of_targets(models), expected, rtol=1e-6, atol=1e-8)


def test_partners_are_of_the_other_side_and_mutual():
    for form in ("pairs", "balanced"):
        keep = pool(form).keep
        partner = partners(keep)
        rows = np.arange(keep.shape[1])
        for k in range(len(keep)):
            assert (keep[partner[k], rows] != keep[k]).all()
            assert (partner[partner[k], rows] == k).all()
    assert partners(pool("coins").keep) is None


@pytest.mark.parametrize("form", ["pairs", "balanced", "coins"])
def test_models_without_memorization_are_at_chance(form):
    models = pool(form, k=8, n=3000, q=1, effect=0.0)
    need_both = () if form == "coins" else (OfficialLiRA(), RMIA(gamma=2.0))
    for score in (LiRA(), BaVarIA(), DifficultyCalibration(), *need_both):
        values = score.of_targets(models)
        mean = np.mean([auc(row, member.astype(np.int8)) for row, member in zip(values, models.keep, strict=True)])
        assert mean == pytest.approx(0.5, abs=0.02), score  # standard error of 8 targets about 0.004
