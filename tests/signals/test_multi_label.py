"""Signals and access levels of multi-label targets: sums over the labels of binary formulas, from scipy."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, xlogy
from torch.nn import functional as F

from mia_lightning.errors import MIAError
from mia_lightning.outputs.access import highest_access, restrict
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.outputs.phi import is_correct, phi
from mia_lightning.outputs.resolution import resolution_notes
from mia_lightning.signals import build_table, get_signal

N, Q, C = 30, 2, 4


@pytest.fixture
def outputs():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(N, Q, C)).astype(np.float32)
    features = rng.normal(size=(N, 3)).astype(np.float32)
    return Outputs(logits, features, np.empty((N, 0), np.float32), rng.integers(0, 2, (N, C)))


def test_signals_are_sums_over_labels(outputs):
    p = expit(outputs.logits.astype(np.float64))
    y = outputs.labels[:, None]
    p_y = np.where(y == 1, p, 1 - p)
    expected = {
        "phi": logit(p_y).sum(-1),
        "loss": -np.log(p_y).sum(-1),
        "log_confidence": np.log(p_y).sum(-1),
        "confidence": p_y.prod(-1),
        "energy": np.log(1 - p).sum(-1),
        "hinge": logit(p_y).min(-1),
        "entropy": -(xlogy(p, p) + xlogy(1 - p, 1 - p)).sum(-1),
        "is_correct": (p_y > 0.5).mean(-1),
        "logit_norm": np.sqrt((outputs.logits.astype(np.float64) ** 2).sum(-1)),
        "canonical_logits": -np.sort(-logit(p_y), axis=-1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(get_signal(name)(outputs), values, rtol=1e-9, err_msg=name)
    torch_phi = phi(torch.from_numpy(outputs.logits[:, 0]), torch.from_numpy(outputs.labels))
    np.testing.assert_allclose(torch_phi, expected["phi"][:, 0], rtol=1e-5, atol=1e-5)
    right = is_correct(torch.from_numpy(outputs.logits[:, 0]), torch.from_numpy(outputs.labels)).numpy()
    assert np.array_equal(right, (p_y[:, 0] > 0.5).all(-1))


def test_gradient_norms_equal_autograd(outputs):
    for row in range(3):
        weight = torch.zeros(C, 3, dtype=torch.float64, requires_grad=True)
        bias = torch.tensor(outputs.logits[row, 0], dtype=torch.float64, requires_grad=True)
        score = weight @ torch.tensor(outputs.features[row], dtype=torch.float64) + bias
        F.binary_cross_entropy_with_logits(
            score, torch.tensor(outputs.labels[row]).double(), reduction="sum"
        ).backward()
        assert get_signal("bias_gradient_norm")(outputs)[row, 0] == pytest.approx(float(bias.grad.norm()))
        assert get_signal("weight_gradient_norm")(outputs)[row] == pytest.approx(float(weight.grad.norm()))


def test_presets_omit_signals_of_one_class(outputs):
    table = build_table(outputs, names=["standard"])
    assert {"phi", "loss", "phi_std", "features", "logits"} <= set(table.columns)
    assert not {"modified_entropy", "label_rank", "top2_margin", "max_logit"} & set(table.columns)
    assert (table.labels == 0).all()
    with pytest.raises(MIAError, match="'label_rank' is not defined for multi-label targets"):
        build_table(outputs, names=["phi", "label_rank"])


def test_access_reduces_each_label_by_itself(outputs):
    p = expit(outputs.logits.astype(np.float64))
    rounded = restrict(outputs, "probabilities_2").logits
    np.testing.assert_allclose(expit(rounded), np.clip(p.round(2), 0.005, 0.995), atol=1e-6)
    assert np.array_equal(restrict(outputs, "label").logits > 0, p > 0.5)
    assert len(np.unique(restrict(outputs, "label").logits)) == 2
    assert highest_access("sigmoids", restrict(outputs, "label")) == "label"
    assert highest_access("sigmoids", outputs) == "probabilities"
    with pytest.raises(MIAError, match="--access topk does not apply"):
        restrict(outputs, "topk")


def test_saturated_labels_are_reported():
    labels = np.ones((40, 2), np.int64)
    logits = np.random.default_rng(0).normal(size=(40, 1, 2)).astype(np.float32)
    logits[:8] = 16.6
    empty = np.empty((40, 0), np.float32)
    notes = list(resolution_notes(Outputs(logits, empty, empty, labels), np.repeat([1, 0], 20).astype(np.int8)))
    assert notes[0].startswith("8 of 40 records tie at a label probability of exactly 1")
