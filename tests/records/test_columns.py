"""Columns in every common form, through the function that all readers of arrays use."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.datasets import make_images
from PIL import Image

from mia_lightning.errors import MIAError
from mia_lightning.records.columns import make_records
from mia_lightning.records.readers import read_records

IMAGES = make_images(4, (3, 4, 4))


def made(**columns):
    return make_records("a.npz", IMAGES, **columns)


@pytest.mark.parametrize(
    ("labels", "expected", "note"),
    [
        (np.array([[3], [0], [1], [2]], np.uint8), [3, 0, 1, 2], None),
        ([[3], [0], [1], [2]], [3, 0, 1, 2], None),
        (np.eye(5)[[3, 0, 1, 2]], [3, 0, 1, 2], "one-hot with 5 classes"),
        (np.eye(5, dtype=bool)[[3, 0, 1, 2]].tolist(), [3, 0, 1, 2], "one-hot"),
        (np.array([3.0, np.nan, 1, 2]), [3, -1, 1, 2], None),
        (np.array(["3", "0", "1", "2"]), [3, 0, 1, 2], None),
        ([None, 0, 1, 2], [-1, 0, 1, 2], None),
        (["dog", "cat", "", "cat"], [1, 0, -1, 0], "2 names, numbered in alphabetical order"),
    ],
)
def test_labels(labels, expected, note):
    records = made(labels=labels)
    assert records.labels.tolist() == expected
    assert bool(records.notes) == (note is not None)
    assert note is None or note in records.notes[0]


def test_probabilities_are_not_labels():
    with pytest.raises(MIAError, match="not one-hot; give one class per record"):
        made(labels=np.full((4, 5), 0.2))


@pytest.mark.parametrize(
    "membership",
    [
        np.array([1, 0, 0, 1]),
        np.array([[1], [0], [0], [1]]),
        np.array([True, False, False, True]),
        np.array([1.0, 0, 0, 1]),
        ["member", "non-member", "out", "in"],
        np.array(["train", "test", "test", "train"]),
        np.array([b"yes", b"no", b"no", b"yes"]),
        [1, -1, -1, 1],
        np.array([1, -1, -1, 1], np.int8),
        np.array([1.0, -1, -1, 1]),
    ],
)
def test_membership(membership):
    records = made(membership=membership)
    assert records.membership.tolist() == [1, 0, 0, 1]
    signed = "-1" in str(membership)
    assert [("only +1 and -1" in note) for note in records.notes] == [True] * signed


def test_minus_one_is_unknown_unless_signed():
    assert made(membership=[1, 0, -1, None]).membership.tolist() == [1, 0, -1, -1]
    assert made(membership=[1, -1, None, float("nan")]).membership.tolist() == [1, 0, -1, -1]
    assert made(membership=[-1, -1, -1, -1]).membership.tolist() == [-1] * 4


def test_class_names():
    for names in (["cat", "dog"], np.array(["cat", "dog"]), {0: "cat", 1: "dog"}, {"cat": 0, "dog": 1}):
        assert made(labels=[0, 1, 0, 1], class_names=names).class_names == ("cat", "dog")
    records = made(labels=["dog", "cat", "dog", "dog"], class_names=["dog", "cat"])
    assert (records.labels.tolist(), records.class_names) == ([0, 1, 0, 0], ("dog", "cat"))
    for bad in (5, ["a", "a"], [1, 2]):
        with pytest.raises(MIAError, match="class"):
            made(class_names=bad)


def test_groups():
    assert made(groups=[3, 3, 4, 5]).groups.tolist() == [3, 3, 4, 5]
    assert made(groups=np.array(["p", "p", "q", ""])).groups.tolist() == ["p", "p", "q", "record 3"]
    assert made(groups=np.array([1.0, 1, np.nan, 2])).groups.tolist() == ["1", "1", "record 2", "2"]


def test_integers_of_eight_bits_are_bytes():
    images = (IMAGES * 255).astype(np.int64)
    records = make_records("a", images)
    assert records.images.dtype == np.uint8
    np.testing.assert_array_equal(records.images, images)
    assert "int64 in 0..255" in records.notes[0]


def _saved(path, columns):
    np.savez(path.with_suffix(".npz"), **columns)
    tensors = {name: value if value.dtype.kind == "U" else torch.from_numpy(value) for name, value in columns.items()}
    torch.save({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in tensors.items()}, path.with_suffix(".pt"))
    return [str(path.with_suffix(suffix)) for suffix in (".npz", ".pt")]


@pytest.mark.parametrize("names", [("x", "y", "is_member"), ("data", "targets", "members"), ("img", "label", "seen")])
def test_names_of_columns_in_every_reader(tmp_path, names):
    columns = dict(zip(names, (IMAGES, np.array([0, 1, 2, 3]), np.array([1, 0, 1, 0])), strict=True))
    for source in _saved(tmp_path / "a", columns | {"person": np.array(["p", "p", "q", "q"]), "extra": np.arange(4)}):
        records = read_records(source)
        assert records.labels.tolist() == [0, 1, 2, 3]
        assert records.membership.tolist() == [1, 0, 1, 0]
        assert records.groups.tolist() == ["p", "p", "q", "q"]
        assert records.ids_invented
        assert "columns not used: extra" in records.notes[0]


def test_mapping_in_every_reader(tmp_path):
    columns = {"a": IMAGES, "b": np.arange(4), "c": np.array(["yes", "no", "no", "yes"]), "d": np.arange(10, 14)}
    mapping = {"a": "image", "b": "label", "c": "membership", "d": "id"}
    for source in _saved(tmp_path / "a", columns):
        records = read_records(source, columns=mapping)
        assert records.ids.tolist() == [10, 11, 12, 13]
        assert records.membership.tolist() == [1, 0, 0, 1]
        assert records.notes == ()


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".csv", "/images"])
def test_split_is_membership_in_every_reader(tmp_path, suffix):
    def read(split):
        frame = pd.DataFrame({"id": [10.0, 11.0, 12.0, 13.0], "label": [0, 1, 2, 3], "split": split})
        columns = {name: frame[name].to_numpy() for name in ("id", "label")} | {"split": np.array(split).astype(str)}
        if suffix == ".csv":
            frame.assign(age=1.5).to_csv(tmp_path / "a.csv", index=False)
        elif suffix == "/images":
            (tmp_path / "images").mkdir(exist_ok=True)
            frame.to_csv(tmp_path / "images" / "t.csv", index=False)
            for number in range(4):
                Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / f"{10 + number}.png")
        else:
            _saved(tmp_path / "a", columns | {"images": IMAGES})
        return read_records(str(tmp_path / (suffix[1:] if suffix == "/images" else f"a{suffix}")))

    records = read(["train", "val", "Train", "test"])
    assert records.ids.tolist() == [10, 11, 12, 13]
    assert records.membership.tolist() == [1, 0, 1, 0]
    assert any("membership is read from split" in note for note in records.notes)
    for split in ([1, 0, 1, 0], ["public", "private", "public", "public"]):  # which number means training is unknown
        records = read(split)
        assert records.membership.tolist() == [-1] * 4
        assert any("column not used: split" in note for note in records.notes)


def test_ids_that_differ_only_in_blanks(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, ids=np.array(["a", "a ", "b", "c"]))
    with pytest.raises(MIAError, match="id 'a ' differs from another only in blanks"):
        read_records(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y_test": None}, "has labels y_train but none for x_test; give both or none"),
        ({"y_test": np.array(["cat"])}, "the labels y_train and y_test differ"),
        ({"x_test": np.zeros((1, 3, 4, 4), np.uint8)}, "images x_train are float32 and x_test uint8; store both on"),
        ({"x_test": IMAGES[3:, :, :2]}, "the images x_train and x_test differ"),
    ],
)
def test_train_and_test_arrays_of_different_form(tmp_path, change, sentence):
    arrays = {"x_train": IMAGES[:3], "y_train": np.array([1, 2, 3]), "x_test": IMAGES[3:], "y_test": np.array([0])}
    np.savez(tmp_path / "a.npz", **{name: value for name, value in (arrays | change).items() if value is not None})
    with pytest.raises(MIAError, match=sentence):
        read_records(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "names", ["train_images train_labels test_images test_labels", "x_train y_train x_test y_test"]
)
def test_train_and_test_arrays(tmp_path, names):
    arrays = (IMAGES[:3], np.array([[1], [2], [3]]), IMAGES[3:], np.array([[0]]))
    np.savez(tmp_path / "a.npz", **dict(zip(names.split(), arrays, strict=True)), val_images=IMAGES)
    records = read_records(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(records.images, IMAGES)
    assert (records.labels.tolist(), records.membership.tolist()) == ([1, 2, 3, 0], [1, 1, 1, 0])
    assert "not used: val_images" in records.notes[1]


def test_processed_torchvision_tuple(tmp_path):
    images, labels = torch.randint(0, 255, (5, 28, 28), dtype=torch.uint8), torch.arange(5)
    for extra in ((), ("MNIST",)):
        torch.save((images, labels, *extra), tmp_path / "training.pt")
        records = read_records(str(tmp_path / "training.pt"))
        np.testing.assert_array_equal(records.images[:, 0], images.numpy())
        assert (records.labels.tolist(), records.membership.tolist()) == ([0, 1, 2, 3, 4], [-1] * 5)
        assert "read as images, labels" in records.notes[0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float64"])
def test_floating_dtypes(tmp_path, dtype):
    images = torch.from_numpy(IMAGES).to(getattr(torch, dtype))
    torch.save({"images": images}, tmp_path / "a.pt")
    np.testing.assert_array_equal(read_records(str(tmp_path / "a.pt")).images, images.float().numpy())


@pytest.mark.parametrize("dtype", ["complex64", "uint16", "bits8", "quint8", "bool"])
@pytest.mark.parametrize("column", ["images", "ids", "labels", "membership", "groups"])
def test_exotic_dtypes_are_one_sentence(tmp_path, dtype, column):
    good = {"images": torch.zeros(2, 1, 4, 4), "ids": torch.arange(2)}
    shape = good["images"].shape if column == "images" else (2,)
    if dtype == "quint8":
        odd = torch.quantize_per_tensor(torch.zeros(shape), 0.1, 0, torch.quint8)
    else:
        odd = torch.empty(shape, dtype=torch.uint8 if dtype == "bits8" else getattr(torch, dtype)).zero_()
        odd = odd.view(torch.bits8) if dtype == "bits8" else odd
    torch.save(good | {column: odd}, tmp_path / "a.pt")
    try:
        assert len(read_records(str(tmp_path / "a.pt"))) == 2
    except MIAError as error:
        assert str(error).startswith("a.pt: ")  # noqa: PT017 (both outcomes are right)


@pytest.mark.parametrize("ids", [np.array([2**63 + 1, 7], np.uint64), [2**64 - 1, 7]])
def test_ids_beyond_63_bits_stay_as_they_are(ids):
    records = make_records("t", np.zeros((2, 3)), ids=ids)
    assert records.ids.tolist() == [str(ids[0]), "7"]
    with pytest.raises(MIAError, match=r"ids are floats above 2\*\*53, so they may be rounded"):
        make_records("t", np.zeros((2, 3)), ids=[2.0**53 + 2, 1.0])


@pytest.mark.parametrize("labels", [np.array([-1, 1, 1]), np.array([-1.0, 1, 1]), np.array([-1, 1, 1])[:, None]])
def test_labels_of_minus_one_and_one_are_two_classes(labels):
    records = make_records("t", np.zeros((3, 2)), labels=labels)
    assert (records.labels.tolist(), records.class_names) == ([0, 1, 1], ("-1", "1"))
    assert make_records("t", np.zeros((3, 2)), labels=[-1, 1, 0]).labels.tolist() == [-1, 1, 0]
    assert make_records("t", np.zeros((3, 2)), labels=[-1, 1, None]).labels.tolist() == [0, 1, -1]
