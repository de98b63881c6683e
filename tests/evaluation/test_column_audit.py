"""Column audit: side doors of the membership are found, honest columns pass."""

import numpy as np

from mia_lightning.evaluation.column_audit import CARRIERS, column_audit
from mia_lightning.evaluation.reference_columns import reference_columns
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.lira import LiRA


def matrix(models, n, rng):
    """Every record IN exactly half of the models, at random."""
    return np.argsort(rng.random((models, n)), axis=0) < models // 2


def outputs(keep, target_in, rng):
    k, n = keep.shape
    hardness = rng.normal(size=n)
    phi = (hardness + rng.normal(size=(k, n)) + keep)[..., None].astype(np.float32)
    target = (hardness + rng.normal(size=n) + target_in)[:, None].astype(np.float32)
    return ReferenceOutputs(target, phi, keep, np.zeros(n, np.int64), 2)


def test_leave_one_out_of_a_balanced_matrix_is_found():
    """The target is one model of the matrix: the number of references IN equals the label."""
    rng = np.random.default_rng(0)
    keep = matrix(16, 1500, rng)
    member = keep[0].astype(np.int8)
    rows, columns = reference_columns({}, outputs(keep[1:], keep[0], rng), np.arange(1500), seed=0)
    check = column_audit(columns, member, rows=rows)
    assert check.status == "warn"
    assert "references IN" in check.sentence
    assert check.details[CARRIERS] >= 1


def test_honest_references_pass_although_their_columns_help():
    """Difficulty is associated with membership given phi, but not without the target."""
    rng = np.random.default_rng(1)
    member = rng.integers(0, 2, 1500).astype(np.int8)
    given = outputs(matrix(16, 1500, rng), member, rng)
    rows, columns = reference_columns({"lira": LiRA()}, given, np.arange(1500), seed=0)
    assert any("target exchanged" in name for name in columns)
    assert column_audit(columns, member, rows=rows).status == "pass"


def test_flags_that_were_not_drawn_are_left_out():
    rng = np.random.default_rng(2)
    member = rng.integers(0, 2, 1000).astype(np.int8)
    keep, drawn = matrix(8, 1000, rng), rng.random((8, 1000)) < 0.5
    keep = np.where(drawn, keep, member == 1)  # anchored: IN exactly if a member
    given = outputs(keep, member, rng)
    given = ReferenceOutputs(given.target, given.references, keep, given.labels, 2, drawn)
    rows, columns = reference_columns({}, given, np.arange(1000), seed=0)
    assert column_audit(columns, member, rows=rows).status == "pass"


def test_scores_that_are_the_membership_are_named():
    member = np.random.default_rng(0).integers(0, 2, 100).astype(np.int8)
    assert column_audit({}, member, scores={"leak": 0.1 + 0.8 * member}).status == "warn"
    assert column_audit({}, member, scores={"a": np.arange(100.0)}).status == "skipped"


def test_false_alarms_of_the_audit_are_rare():
    """At the stated 0.1%, one of 40 would happen in 4% of such tests."""
    rng = np.random.default_rng(3)
    status = [
        column_audit({str(i): rng.normal(size=300) for i in range(20)}, rng.integers(0, 2, 300).astype(np.int8)).status
        for _ in range(40)
    ]
    assert status.count("warn") == 0
