"""Labels of multi-label records: read, checked, aligned between the halves."""

import numpy as np
import pandas as pd
import pytest
import torch

from mia_lightning.errors import MIAError
from mia_lightning.records.columns import make_records
from mia_lightning.records.halves import align_multi_hot
from mia_lightning.records.in_memory import read_side
from mia_lightning.records.multi_hot import label_array
from mia_lightning.records.readers import read_records

LABELS = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]])


def made(labels, source="a.npz"):
    return make_records(source, np.zeros((len(labels), 2)), labels=labels)


@pytest.mark.parametrize("form", [np.int64, np.float32, bool, list])
def test_matrix_of_zeros_and_ones(form):
    records = made(LABELS.tolist() if form is list else LABELS.astype(form))
    assert records.multi_hot.tolist() == LABELS.tolist()
    assert records.labels.tolist() == [0, 0, 0]
    assert records.rows(np.array([2])).multi_hot.tolist() == [[0, 1, 0]]
    assert "multi-label, 3 per record of which 1 are 1 on average" in records.notes[0]


def test_one_hot_is_one_class_and_says_so():
    records = made(np.eye(3))
    assert records.multi_hot is None
    assert "read as class numbers, not as 3 independent labels" in records.notes[0]


@pytest.mark.parametrize("suffix", [".csv", ".pt", ".npz"])
def test_files(tmp_path, suffix):
    path, membership = tmp_path / f"r{suffix}", np.array([1, 0, 1])
    columns = None
    if suffix == ".csv":
        path.write_text("x,cat,dog,owl,membership\n0.5,1,1,0,1\n1.5,0,0,0,0\n2,0,1,0,1\n")
        columns = dict.fromkeys(("cat", "dog", "owl"), "label")
    elif suffix == ".pt":
        tensors = {"inputs": torch.rand(3, 2), "labels": torch.tensor(LABELS), "membership": torch.tensor(membership)}
        torch.save(tensors, path)
    else:
        np.savez(path, inputs=np.zeros((3, 2)), labels=LABELS, membership=membership)
    records = read_records(str(path), columns=columns)
    assert records.multi_hot.tolist() == LABELS.tolist()
    assert records.images.shape[1] == (1 if suffix == ".csv" else 2)
    if suffix == ".csv":
        with pytest.raises(MIAError, match=r"label 0 of record 0 is 0.5, not one-hot; give one class per record, or 0"):
            read_records(str(path), columns={"x": "label", "cat": "label"})
        with pytest.raises(MIAError, match="has no column 'cow'"):
            read_records(str(path), columns={"cow": "label", "cat": "label"})


def test_several_columns_in_memory():
    frame = pd.DataFrame({"x": [0.5, 1.5, 2], "cat": LABELS[:, 0], "dog": LABELS[:, 1], "owl": LABELS[:, 2]})
    names = ["cat", "dog", "owl"]
    side = read_side(frame, "members", label=names)
    assert side.labels.tolist() == LABELS.tolist()
    assert side.columns == ("x",)
    items = [{"image": np.zeros(2), **dict(zip(names, row, strict=True))} for row in LABELS]
    assert read_side(items, "members", label=names).labels.tolist() == LABELS.tolist()
    with pytest.raises(MIAError, match="members has no column 'cow', which label= names"):
        read_side(frame, "members", label=["cat", "cow"])


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
def test_other_values_are_one_sentence(value):
    labels = LABELS.astype(float)
    labels[1, 2] = value
    with pytest.raises(MIAError, match=r"label 2 of record 1 is .*; give one class per record, or 0 or 1 for each of"):
        made(labels)


def test_halves_have_one_form():
    several, one_hot, unlabeled = made(LABELS), made(np.eye(3)[[2, 0]], "b.npz"), made([None, None], "c.npz")
    _, aligned = align_multi_hot(several, one_hot)
    assert aligned.multi_hot.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert not aligned.notes
    _, aligned = align_multi_hot(several, unlabeled)
    assert label_array(aligned).tolist() == [[-1, -1, -1]] * 2
    with pytest.raises(MIAError, match="has one class per record, but the other records 3 labels of 0 or 1"):
        align_multi_hot(several, made([0, 1], "d.npz"))
    with pytest.raises(MIAError, match="e have 2 and 3 labels per record"):
        align_multi_hot(several, made(LABELS[:, :2], "e"))
    with pytest.raises(MIAError, match="labels"):
        make_records("f.npz", np.zeros((3, 2)), labels=LABELS[:2])
