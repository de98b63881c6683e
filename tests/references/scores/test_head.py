"""The head across references: power without known members of the target, and none where references remember nothing."""

import numpy as np
import pytest

from mia_lightning.errors import MIAError
from mia_lightning.metrics.roc import auc
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.head import ReferenceHead, _Sources
from mia_lightning.references.scores.lira import LiRA

N = 1500


def pairs(draw, k):
    halves = [draw.permutation(N) < N // 2 for _ in range((k + 1) // 2)]
    return np.stack([half for half in halves for half in (half, ~half)])[:k]


def simulated(k, *, memory=2.0, balanced=False, seed=0):
    """Models that remember the stored pixels: `memory` is added to the views 0 and 9 of 18 for training records."""
    draw = np.random.default_rng(seed)
    keep = np.argsort(draw.random((k, N)), axis=0) < k // 2 if balanced else pairs(draw, k)
    member = draw.random(N) < 0.5
    phi = draw.normal(3, 3, (1, N, 1)) + draw.normal(size=(k + 1, N, 1)) + 0.5 * draw.normal(size=(k + 1, N, 18))
    phi[:, :, [0, 9]] += memory * np.vstack([member, keep])[..., None] * draw.random((k + 1, N, 1))
    phi = phi.astype(np.float32)
    return ReferenceOutputs(phi[0], phi[1:], keep, draw.integers(0, 10, N), 10), member.astype(np.int8)


def head(reference_outputs):
    return ReferenceHead(n_estimators=40).columns(reference_outputs)[""]


def test_head_finds_what_no_formula_states():
    outputs, member = simulated(4)
    assert auc(head(outputs), member) > max(auc(LiRA().columns(outputs)[""], member), 0.75) + 0.1


@pytest.mark.parametrize("k", [1, 2])
def test_one_or_two_references_are_targets_without_comparison(k):
    outputs, member = simulated(k)
    assert auc(head(outputs), member) > 0.75


@pytest.mark.parametrize("balanced", [False, True])
def test_references_that_remember_nothing_give_chance(balanced):
    """Each record is IN half of the references, so that the others' numbers would reveal the membership in one."""
    outputs, _ = simulated(6, memory=0.0, balanced=balanced)
    for number in (0, 3):
        rest = np.delete(np.arange(6), number)
        complement = (outputs.keep == ~outputs.keep[number]).all(axis=1)
        rest = [other for other in rest if not complement[other]]
        pseudo = ReferenceOutputs(
            outputs.references[number], outputs.references[rest], outputs.keep[rest], outputs.labels, 10
        )
        assert abs(auc(head(pseudo), outputs.keep[number].astype(np.int8)) - 0.5) < 0.06  # 4 standard errors


def test_permuted_membership_of_references_gives_chance():
    outputs, member = simulated(4)
    order = np.random.default_rng(1).permutation(N)
    permuted = ReferenceOutputs(outputs.target, outputs.references, outputs.keep[:, order], outputs.labels, 10)
    assert abs(auc(head(permuted), member) - 0.5) < 0.06


def test_equally_many_references_are_compared_in_and_out():
    outputs, _ = simulated(6, balanced=True)
    used = _Sources(outputs).comparison(2)
    np.testing.assert_array_equal(used.in_.sum(axis=0), np.full(N, 2))
    np.testing.assert_array_equal(used.out_.sum(axis=0), np.full(N, 2))
    assert not (used.in_[2] | used.out_[2]).any()
    assert (used.in_ <= outputs.keep).all()
    assert not (used.out_ & outputs.keep).any()


def test_complementary_reference_is_left_out():
    outputs, _ = simulated(4)
    used = _Sources(outputs).comparison(1)
    assert not (used.in_ | used.out_)[:2].any()
    assert ((used.in_ | used.out_)[2:].sum(axis=0) == 2).all()


def test_too_few_records_are_refused():
    outputs, _ = simulated(4)
    with pytest.raises(MIAError, match="needs 20 of each; give more records"):
        ReferenceHead().columns(outputs.records(np.arange(12)))
