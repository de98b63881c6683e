"""Imported references: no label through the layout of the matrix, no figures from phi that is not the target's."""

from dataclasses import replace

import numpy as np
import pytest

from mia_lightning.errors import MIAError
from mia_lightning.references.fidelity import agreement_check, direction_check, rows_check, scale_check
from mia_lightning.references.independence import association, equalize, make_independent
from mia_lightning.references.outputs import ReferenceOutputs


def pairs(draw, total, n):
    halves = [draw.permutation(n) < n // 2 for _ in range(total // 2)]
    return np.concatenate([np.stack([half, ~half]) for half in halves])


def halves(draw, total, n):
    return np.argsort(draw.random((total, n)), axis=0) < total // 2


def quarters(draw, total, n):
    return np.argsort(draw.random((total, n)), axis=0) < total // 4


def blocks_of_four(draw, total, n):
    return np.concatenate([halves(draw, 4, n) for _ in range(total // 4)])


def coins(draw, total, n):
    return draw.random((total, n)) < 0.5


def models_of_equal_size(draw, total, n):
    return np.argsort(draw.random((total, n)), axis=1) < n // 2


def reference_outputs_of(keep, drawn=None):
    k, n = keep.shape
    phi = np.arange(k, dtype=np.float32)[:, None, None] + keep[..., None]
    return ReferenceOutputs(np.zeros((n, 1), np.float32), phi, keep, np.zeros(n, np.int64), 2, drawn)


def left_out(kind, total, n=2000, seed=0):
    """References and membership of the first model of a matrix of models."""
    keep = kind(np.random.default_rng((seed, total)), total, n)
    return reference_outputs_of(keep[1:]), keep[0].astype(np.int8)


def counts(reference_outputs):
    return np.stack([mask.sum(axis=0) for mask in reference_outputs.in_out_masks(slice(None))])


@pytest.mark.parametrize("total", [4, 16, 64])
@pytest.mark.parametrize("kind", [pairs, halves, blocks_of_four, quarters])
def test_counts_and_references_are_independent(kind, total):
    given, member = left_out(kind, total)
    result = make_independent(given, member, seed=0, source="phi.npz")
    in_, out_ = result.reference_outputs.in_out_masks(slice(None))
    assert len(np.unique(counts(result.reference_outputs), axis=1).T) == 1  # the same for every record
    for mask in (*in_, *out_):
        rates = [mask[member == value].mean() for value in (0, 1)]
        assert abs(rates[0] - rates[1]) < 4 * np.sqrt(2 * 0.25 / 1000)


def test_pair_mates_are_dropped_and_halves_are_cut():
    for total in (4, 16, 64):
        result = make_independent(*left_out(pairs, total), seed=0, source="phi.npz")
        assert (result.dropped, result.equalized) == ((0,), None)
        np.testing.assert_array_equal(result.reference_outputs.references[:, 0, 0] // 1 >= 1, True)
        result = make_independent(*left_out(halves, total), seed=0, source="phi.npz")
        assert (result.dropped, result.equalized) == ((), (total // 2 - 1, total // 2 - 1))


def test_pattern_that_is_left_is_uniform_given_membership():
    """Three references of a matrix of four: one IN, one OUT, one unused, in each of six orders equally often."""
    given, member = left_out(halves, 4, n=60_000)
    result = make_independent(given, member, seed=0, source="phi.npz").reference_outputs
    in_, out_ = result.in_out_masks(slice(None))
    order = in_.argmax(axis=0) * 3 + out_.argmax(axis=0)
    for value in (0, 1):
        share = np.unique(order[member == value], return_counts=True)[1] / (member == value).sum()
        np.testing.assert_allclose(share, 1 / 6, atol=4 * np.sqrt(5 / 36 / 30_000))


@pytest.mark.parametrize("kind", [coins, models_of_equal_size])
def test_independent_matrices_stay_as_they_are(kind):
    changed = 0
    for seed in range(60):
        given, member = left_out(kind, 16, n=400, seed=seed)
        changed += make_independent(given, member, seed=seed, source="phi.npz").reference_outputs is not given
    assert changed <= 3  # 1% each: three or fewer of 60 with probability 0.997


@pytest.mark.parametrize("keep", ["mate", "target", "anchored"])
def test_references_that_all_follow_membership_are_refused(keep):
    draw = np.random.default_rng(0)
    member = draw.integers(0, 2, 500).astype(np.int8)
    follow = member == 1
    matrix = {
        "mate": ~follow[None],
        "target": np.stack([follow, ~follow]),
        "anchored": np.where(draw.random((8, 500)) < 0.75, follow, draw.random((8, 500)) < 0.5),
    }[keep]
    with pytest.raises(MIAError, match=r"phi.npz: .*drawn \(K, N\)"):
        make_independent(reference_outputs_of(matrix), member, seed=0, source="phi.npz")


def test_anchored_references_with_drawn_pass():
    draw = np.random.default_rng(0)
    member = draw.integers(0, 2, 500).astype(np.int8)
    drawn = draw.random((16, 500)) < 0.25
    keep = np.where(drawn, draw.random((16, 500)) < 0.5, member == 1)
    given = reference_outputs_of(keep, drawn)
    assert make_independent(given, member, seed=0, source="phi.npz").reference_outputs is given


def test_unknown_membership_is_cut_like_known():
    given, member = left_out(halves, 16)
    member[1000:] = -1
    result = make_independent(given, member, seed=0, source="phi.npz")
    assert np.unique(counts(result.reference_outputs), axis=1).shape == (2, 1)


def test_p_values_of_independent_references():
    p_references, p_counts = [], []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        in_, member = draw.random((6, 120)) < 0.5, draw.random(120) < 0.4
        tested = association(in_, ~in_, member, seed=seed)
        p_references.extend(tested.references)
        p_counts.append(tested.counts)
    for p, n in ((np.array(p_references), 1200), (np.array(p_counts), 200)):
        for level in (0.05, 0.2):
            assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / n)


def test_equalize_without_references_for_a_record():
    assert equalize(np.zeros((2, 3), bool), np.zeros((2, 3), bool), seed=0) is None


def with_phi(gap, n=400):
    draw = np.random.default_rng(0)
    keep = draw.random((4, n)) < 0.5
    phi = (gap * keep + draw.normal(size=(4, n)))[..., None].astype(np.float32)
    return ReferenceOutputs(np.zeros((n, 1), np.float32), phi, keep, np.zeros(n, np.int64), 2)


@pytest.mark.parametrize(("gap", "status"), [(1.0, "passed"), (0.0, "passed"), (-1.0, "failed")])
def test_direction_of_phi(gap, status):
    check = direction_check(with_phi(gap))
    assert check.status == status
    assert ("inverted" in check.detail) == (status == "failed")


@pytest.mark.parametrize(
    ("rows", "status", "words"),
    [
        ([0, 1, 2, 3], "passed", "no model"),
        ([1, 0, 2, 3], "failed", "2 of 4 references is higher IN by another row of keep, that of reference 0 by row 1"),
        ([1, 2, 3, 0], "failed", "that of reference 0 by row 3"),
        ([0, 1, None, 3], "failed", "phi of reference 2 is lower for records IN"),
    ],
)
def test_rows_of_keep_in_another_order_are_named(rows, status, words):
    outputs = with_phi(1.0)
    keep = np.stack([~outputs.keep[k] if row is None else outputs.keep[row] for k, row in enumerate(rows)])
    check = rows_check(replace(outputs, keep=keep))
    assert (check.status, words in check.detail) == (status, True)


def test_rows_of_keep_are_not_named_by_chance():
    draw = np.random.default_rng(1)
    for scheme in (lambda: draw.random((64, 300)) < 0.5, lambda: np.repeat(draw.random((1, 300)) < 0.5, 64, axis=0)):
        keep, phi = scheme(), draw.normal(size=(64, 300, 1)).astype(np.float32)
        outputs = ReferenceOutputs(np.zeros((300, 1), np.float32), phi, keep, np.zeros(300, np.int64), 2)
        assert rows_check(outputs).status == "passed"
        assert rows_check(replace(outputs, references=phi + 2 * keep[..., None])).status == "passed"


@pytest.mark.parametrize(("factor", "status"), [(1, "passed"), (0.2, "warned"), (10, "warned"), (0, "warned")])
def test_scale_of_the_target(factor, status):
    outputs = with_phi(0.5)
    draw = np.random.default_rng(1)
    target = (factor * draw.normal(size=(len(outputs.target), 1))).astype(np.float32)
    assert scale_check(replace(outputs, target=target)).status == status


def test_agreement_with_the_target_just_queried():
    phi = np.random.default_rng(0).normal(3, 2, 500)
    draw = np.random.default_rng(1)
    assert agreement_check(phi + 0.01 * draw.normal(size=500), phi).status == "passed"
    for other in (draw.permutation(phi), -phi, phi / 2, phi + 1, np.zeros(500)):
        check = agreement_check(other, phi)
        assert check.status == "failed"
        assert "order" in check.detail
