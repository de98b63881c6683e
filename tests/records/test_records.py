"""Records: rows, groups, class names and ids of two halves."""

import numpy as np
import pytest

from mia_lightning.errors import MIAError
from mia_lightning.records.halves import align_class_names, check_disjoint, separate_ids
from mia_lightning.records.records import Records


def records(ids=4, *, source="a.npz", **more):
    invented = isinstance(ids, int)
    ids = np.arange(ids) if invented else np.asarray(ids)
    n = len(ids)
    images = np.arange(n * 4, dtype=np.uint8).reshape(n, 1, 2, 2)
    labels = more.pop("labels", np.zeros(n, np.int64))
    return Records(ids, images, labels, np.ones(n, np.int8), source, ids_invented=invented, **more)


def test_rows_carry_every_column():
    half = records([5, 6, 7], groups=np.array(["p", "q", "p"]), class_names=("cat",), notes=("n",))
    for index in (np.array([2, 0]), np.array([True, False, True])):
        part = half.rows(index)
        assert sorted(part.ids) == [5, 7]
        assert part.groups.tolist() == ["p", "p"]
        assert (part.class_names, part.notes) == (("cat",), ("n",))
        np.testing.assert_array_equal(part.images, half.images[index])
    assert half.rows(slice(1, 2)).ids.tolist() == [6]


def test_groups_and_class_names_must_fit():
    with pytest.raises(MIAError, match="2 ids but 3 groups"):
        records([1, 2], groups=np.arange(3))
    with pytest.raises(MIAError, match="label 0 has no name"):
        records([1, 2], class_names=())


@pytest.mark.parametrize(
    ("public", "private"),
    [(4, 3), ([0, 1, 9], 3), (4, [1, 2]), (["0", "a", "7"], 3), (5, ["3", "x"]), ([2**62, 0], 3), ([7, 8], 3)],
)
def test_invented_ids_never_clash(public, private):
    before = records(public), records(private, source="b.npz")
    halves = separate_ids(*before)
    check_disjoint(*halves)
    for old, new in zip(before, halves, strict=True):
        if not old.ids_invented:
            np.testing.assert_array_equal(old.ids, new.ids)
    if isinstance(public, int) and isinstance(private, int):
        assert halves[1].ids.tolist() == [0, 1, 2]  # row numbers, as in a submission


def test_given_ids_may_not_clash():
    with pytest.raises(MIAError, match=r"1 ids occur in both a\.npz and b\.npz, first 2; drop the copies"):
        check_disjoint(*separate_ids(records([1, 2]), records([2, 3], source="b.npz")))


def test_named_classes_have_one_number_in_both_halves():
    public = records([1, 2, 3], labels=np.array([0, 1, -1]), class_names=("cat", "fox"))
    private = records([4, 5], labels=np.array([0, 1]), class_names=("dog", "fox"), source="b.npz")
    public, private = align_class_names(public, private)
    assert public.class_names == private.class_names == ("cat", "dog", "fox")
    assert (public.labels.tolist(), private.labels.tolist()) == ([0, 2, -1], [1, 2])
    unnamed = records([6])
    assert align_class_names(public, unnamed) == (public, unnamed)


def test_class_names_in_different_orders():
    with pytest.raises(MIAError, match="class 0 is fox and cat"):
        align_class_names(records([1], class_names=("fox", "cat")), records([2], class_names=("cat", "fox")))
