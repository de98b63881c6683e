"""References and checkpoints read back after their files were damaged, altered or replaced by links."""

import json
import os
from dataclasses import asdict
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.exchange import save_reference_outputs
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.store import ReferenceRecord, ReferenceStore
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData

KEEP = np.random.default_rng(1).random((3, 50)) < 0.5
PHI = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
RECORD = ReferenceRecord(1, "trained", 0.9, 0.5, 2.5)
ELSEWHERE = b"of another program"


def new_store(tmp_path):
    return ReferenceStore(tmp_path / "store", training={"a": 1}, inference={"q": 2}, records=50, queries=2)


@pytest.fixture
def store(tmp_path):
    store = new_store(tmp_path)
    store.open(KEEP, weights_bytes=10)
    store.finish(RECORD, PHI)
    store.save_weights(1, network().state_dict())
    (tmp_path / "elsewhere").write_bytes(ELSEWHERE)
    return store


def test_description_of_an_earlier_version_is_read(store):
    path = store.rows / "0001.json"
    values = json.loads(path.read_text())
    assert values.pop("losses") == []
    path.write_text(json.dumps(values))
    assert store.row(1).accuracy_in == 0.9


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4))


def replace_by(kind, path):
    """Put something other than a regular file of our own at a path."""
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(elsewhere_of(path))
    elif kind == "dangling link":
        path.symlink_to(path.with_name("nowhere"))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 4)


def elsewhere_of(path):
    return next(parent for parent in path.parents if (parent / "elsewhere").exists()) / "elsewhere"


KINDS = ["link", "dangling link", "fifo", "folder", "empty", "binary", "missing"]


def is_untouched(tmp_path):
    return (tmp_path / "elsewhere").read_bytes() == ELSEWHERE and not list(tmp_path.rglob("nowhere"))


WRONG_VALUES = {
    "text for number": {"accuracy_in": "0.9"},
    "nan": {"accuracy_in": float("nan")},
    "list": {"seconds": [1.0]},
    "null": {"sha256": None},
    "another number": {"number": 2},
    "another accuracy": {"accuracy_out": 0.6},
    "another status": {"status": "diverged"},
    "unknown status": {"status": "lost"},
    "unknown field": {"acuracy": 1},
    "deep": {"reason": json.loads("[" * 200 + "]" * 200)},
}


@pytest.mark.parametrize("change", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_altered_description(store, change):
    path = store.rows / "0001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert store.row(1) is None
    assert store.has_description(1)
    store.finish(RECORD, PHI)
    assert store.row(1).accuracy_in == 0.9


TEXTS = {"empty": b"", "list": b"[]", "deep": b"[" * 100_000, "cut": b'{"number": 1', "binary": bytes(range(256))}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_foreign_json_description(store, text):
    (store.rows / "0001.json").write_bytes(text)
    assert store.row(1) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["description", "phi", "keep", "key_inputs", "weights", "checkpoint"])
def test_other_file_of_the_store(tmp_path, store, name, kind):
    """Whatever has the name of a file of the store, it is replaced, or one sentence names it."""
    path = {
        "description": store.rows / "0001.json",
        "phi": store.phi,
        "keep": store.folder / "keep.npy",
        "key_inputs": store.folder / "key_inputs.json",
        "weights": store.weights(1),
        "checkpoint": store.checkpoint(1),
    }[name]
    replace_by(kind, path)
    state, refusal = network().state_dict(), ""
    try:
        store = new_store(tmp_path)
        store.open(KEEP, weights_bytes=10)
        assert (store.row(1) is None) == (name in ("description", "phi"))
        assert (store.load_weights(1, state) is None) == (name == "weights")
        store.save_weights(1, state)
        store.finish(RECORD, PHI)
    except MIAError as error:
        refusal = str(error)
    if refusal:
        assert kind == "folder"
        assert path.name in refusal or "into the store" in refusal
    else:
        assert store.row(1) is not None
        assert store.load_weights(1, state) is not None
        np.testing.assert_array_equal(store.matrix(3)[1], PHI)
        np.testing.assert_array_equal(np.load(store.folder / "keep.npy"), KEEP)
        assert not any(found.is_symlink() for found in store.folder.rglob("*"))
    assert is_untouched(tmp_path)


@pytest.mark.parametrize("name", ["references", "key", "rows"])
def test_folder_that_is_a_link(tmp_path, store, name):
    folder = {"references": store.folder.parent, "key": store.folder, "rows": store.rows}[name]
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "moved").rglob("*")}
    with pytest.raises(MIAError, match="is a symbolic link"):
        new_store(tmp_path).open(KEEP, weights_bytes=10)
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "moved").rglob("*")} == before


def test_phi_that_is_not_finite(store):
    """Even with a description that fits."""
    store.finish(RECORD, np.full_like(PHI, np.nan))
    assert store.row(1) is None


def test_phi_that_is_cut(tmp_path, store):
    store.phi.write_bytes(store.phi.read_bytes()[:500])
    new_store(tmp_path).open(KEEP, weights_bytes=10)
    assert store.row(1) is None
    assert store.matrix(3).shape == (3, 50, 2)


KEEPS = {
    "other dtype": KEEP.astype(np.int64),
    "other width": KEEP[:, :-1],
    "one dimension": KEEP[0],
    "fewer rows": KEEP[:1],
    "other values": ~KEEP,
    "objects": np.array([None, "x"], object),
}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_altered_keep(tmp_path, store, keep):
    np.save(store.folder / "keep.npy", keep)
    new_store(tmp_path).open(KEEP, weights_bytes=10)
    np.testing.assert_array_equal(np.load(store.folder / "keep.npy"), KEEP)


def digest(state):
    """The documented digest of weights: name, dtype, shape and values, by name."""
    parts = (f"{n} {t.dtype} {tuple(t.shape)}\n".encode() + t.numpy().tobytes() for n, t in sorted(state.items()))
    return sha256(b"".join(parts)).hexdigest()


GOOD = network().state_dict()
WEIGHTS = {
    "another shape": GOOD | {"3.bias": torch.zeros(5)},
    "another dtype": GOOD | {"3.bias": GOOD["3.bias"].double()},
    "a missing tensor": {name: tensor for name, tensor in GOOD.items() if name != "3.bias"},
    "one more tensor": GOOD | {"4.bias": torch.zeros(5)},
    "bfloat16": {name: tensor.bfloat16() for name, tensor in GOOD.items()},
    "none": {},
}


@pytest.mark.parametrize("state", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_of_another_network(store, caplog, state):
    """Weights that do not fit the network are trained again, with or without a checksum that fits."""
    recorded = "" if any(tensor.dtype == torch.bfloat16 for tensor in state.values()) else digest(state)
    save_file(state, store.weights(1), metadata={"sha256": recorded})
    assert store.load_weights(1, GOOD) is None
    assert "weights of reference 1 are damaged" in caplog.text
    save_file(GOOD, store.weights(1), metadata={"sha256": digest(GOOD)})
    assert store.load_weights(1, GOOD) is not None


def train(path, on_epoch=None, **recipe):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    data = TrainingData(images, draw.integers(0, 4, 60), (0.5,) * 3, (0.25,) * 3, 4, 1)
    options = {"seed": 5, "checkpoint": path, "device": "cpu", "on_epoch": on_epoch}
    training = ReferenceTraining(epochs=3, batch_size=20, **recipe)
    return train_reference(network(), data, np.arange(60) < 40, training, **options).state_dict()


def altered(state, keys, value):
    *path, last = keys
    for key in path:
        state = state[key]
    state[last] = value


CHECKPOINTS = {
    "another shape": (["network", "3.bias"], torch.zeros(5)),
    "another dtype": (["network", "3.bias"], torch.zeros(4, dtype=torch.float64)),
    "a list for a tensor": (["network", "3.bias"], [0.0] * 4),
    "a list for a network": (["network"], []),
    "text for epoch": (["epoch"], "1"),
    "epoch out of range": (["epoch"], 99),
    "negative epoch": (["epoch"], -1),
    "text for a step": (["schedule", "last_epoch"], "1"),
    "nan for a rate": (["optimizer", "param_groups", 0, "lr"], float("nan")),
    "no group": (["optimizer", "param_groups"], []),
    "another moment": (["optimizer", "state", 0, "momentum_buffer"], torch.zeros(2)),
    "text for a moment": (["optimizer", "state", 0, "momentum_buffer"], "x"),
    "unknown moment": (["optimizer", "state", 0, "exp_avg"], torch.zeros(4, 3, 3, 3)),
    "moment of no parameter": (["optimizer", "state", 77], {}),
    "list of moments": (["optimizer", "state"], []),
    "unknown key": (["extra"], 1),
}


@pytest.mark.parametrize(("keys", "value"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_altered_checkpoint(tmp_path, caplog, keys, value):
    """A checkpoint with a checksum that fits and contents that do not: training starts from the beginning."""
    path = tmp_path / "0001.checkpoint"
    expected = train(path)
    state = torch.load(BytesIO(path.read_bytes()[32:]), weights_only=True)
    altered(state, keys, value)
    torch.save(state, buffer := BytesIO())
    path.write_bytes(sha256(buffer.getvalue()).digest() + buffer.getvalue())
    again = train(path)
    assert "0001.checkpoint is damaged" in caplog.text
    assert all(torch.equal(again[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "empty", "binary"])
def test_other_file_for_a_checkpoint(tmp_path, kind):
    (tmp_path / "elsewhere").write_bytes(ELSEWHERE)
    expected = train(tmp_path / "0001.checkpoint")
    replace_by(kind, tmp_path / "0001.checkpoint")
    again = train(tmp_path / "0001.checkpoint")
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert is_untouched(tmp_path)


@pytest.mark.parametrize("recipe", [{}, {"momentum": 0.0}, {"optimizer": "adamw", "schedule": "cosine"}], ids=str)
def test_intact_checkpoint_is_used(tmp_path, caplog, recipe):
    path = tmp_path / "0001.checkpoint"
    expected = train(path, **recipe)
    epochs = []
    again = train(path, on_epoch=lambda epoch, loss: epochs.append(epoch), **recipe)
    assert epochs == [3]
    assert "damaged" not in caplog.text
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_export_replaces_a_link(tmp_path):
    (tmp_path / "elsewhere").write_bytes(ELSEWHERE)
    (tmp_path / "phi.npz").symlink_to(tmp_path / "elsewhere")
    outputs = ReferenceOutputs(PHI, np.stack([PHI] * 3), KEEP, np.zeros(50, np.int64), 4)
    save_reference_outputs(tmp_path / "phi.npz", outputs)
    assert is_untouched(tmp_path)
    with np.load(tmp_path / "phi.npz") as stored:
        np.testing.assert_array_equal(stored["keep"], KEEP)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "phi.npz"]


def test_description_comes_back(store):
    assert asdict(store.row(1)) | {"sha256": ""} == asdict(RECORD)
