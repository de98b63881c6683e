"""State dicts of plain `pickle.dump`: read without an unpickler, and nothing in them is run."""

import contextlib
import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from helpers import hostile_pickles as pickles
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import load_target
from mia_lightning.targets.plain_pickles import read_plain_pickle
from tests.targets.test_weight_sets import HERE, network_of, same


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def loaded(path, payload, protocol=4):
    path.write_bytes(payload if isinstance(payload, bytes) else pickle.dumps(payload, protocol))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_target(str(path), architecture=f"{HERE}:Net", image_shape=(3, 16, 16))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_protocols(protocol, images, tmp_path):
    same(loaded(tmp_path / "c.pkl", network_of().state_dict(), protocol), network_of(), images)


def test_what_lies_beside(images, tmp_path):
    beside = {"epoch": 3, "array": np.arange(3), "shapes": [(1, 2)], 7: None, (1, 2): 0.5, "set": {1, 2}}
    payload = beside | {"state_dict": network_of().state_dict(), "loss": nn.CrossEntropyLoss()}
    same(loaded(tmp_path / "c.pkl", payload), network_of(), images)
    parameters = {name: nn.Parameter(tensor) for name, tensor in network_of().state_dict().items()}
    same(loaded(tmp_path / "c.pkl", parameters), network_of(), images)


def test_views_and_types(tmp_path):
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    tensors = {"t": base.T, "row": base[2], "half": base[1:3, 2:4].half(), "int": torch.tensor(3), "none": base[:0]}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(tensors))
    for name, tensor in read_plain_pickle(tmp_path / "c.pkl").items():
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_run(protocol, tmp_path):
    canary = tmp_path / "canary"
    for bomb in pickles.executing(canary).values():
        for payload in (bomb, {"a": bomb}):
            with pytest.raises(MIAError, match=r"^c\.pkl: "):
                loaded(tmp_path / "c.pkl", payload, protocol)
        with contextlib.suppress(MIAError):  # a stand-in, next to weights
            loaded(tmp_path / "c.pkl", network_of().state_dict() | {"x": bomb}, protocol)
    assert not canary.exists()


def test_storage_of_code(tmp_path):
    canary = tmp_path / "canary"
    torch.save(pickles.Calls(os.system, f"touch {canary}"), tmp_path / "evil", _use_new_zipfile_serialization=False)
    torch.save(pickles.Calls(os.system, f"touch {canary}"), tmp_path / "zip")
    for name in ("evil", "zip"):
        call = pickles.Calls(torch.storage._load_from_bytes, (tmp_path / name).read_bytes())
        with pytest.raises(MIAError):
            loaded(tmp_path / "c.pkl", {"a": call})
    assert not canary.exists()


def test_tensor_beyond_its_storage(tmp_path):
    storage = torch.zeros(4).storage()
    for shape, stride, offset in [
        ((10**9,), (1,), 0),
        ((2, 2), (9, 1), 0),
        ((2,), (1,), -1),
        ((2,), (-1,), 3),
        ((2,), (1,), 3),
    ]:
        call = pickles.Calls(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, {})
        with pytest.raises(MIAError, match="truncated or not a state dict"):
            loaded(tmp_path / "c.pkl", {"a": call})


def test_hostile_bodies(tmp_path):
    for name, body in pickles.bodies(tmp_path / "canary").items():
        if len(body) > 600_000:  # the same nesting, further
            continue
        with pytest.raises(MIAError):
            loaded(tmp_path / "c.pkl", pickles.PROTOCOL + body + b".")
        assert not (tmp_path / "canary").exists(), name


def test_damage(tmp_path):
    whole = pickle.dumps(network_of().state_dict())
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole[: rng.integers(20, len(whole))] if rng.random() < 0.5 else whole)
        data[rng.integers(10, min(len(data), 400))] = rng.integers(256)
        (tmp_path / "c.pkl").write_bytes(data)
        try:
            read_plain_pickle(tmp_path / "c.pkl")
        except MIAError:
            continue


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("form", ["{}", "module.{}", "params/{}"])
def test_npz_of_a_state_dict(form, save, images, tmp_path):
    arrays = {form.format(name): tensor.numpy() for name, tensor in network_of().state_dict().items()}
    save(tmp_path / "w.npz", **arrays)
    same(
        load_target(str(tmp_path / "w.npz"), architecture=f"{HERE}:Net", image_shape=(3, 16, 16)), network_of(), images
    )


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"arr_0": np.ones(3), "arr_1": np.ones(3)}, "arrays without names, expected a checkpoint"),
        (
            {"images": np.ones((2, 3, 4, 4)), "labels": np.ones(2)},
            r"npz archive of records \(images, labels\), expected a checkpoint",
        ),
        ({"conv.weight": np.array(["a"])}, "array 'conv.weight' is <U1; save numbers alone"),
        ({"conv.weight": np.array([{}])}, "refused, an array holds pickled Python objects"),
    ],
)
def test_npz_that_holds_no_weights(arrays, sentence, tmp_path):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(MIAError, match=sentence):
        load_target(str(tmp_path / "w.npz"), architecture=f"{HERE}:Net")


@pytest.mark.parametrize("key", [None, "model"])
def test_a_pickled_module_names_the_line_that_saves_its_weights(key, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = network_of()
    torch.save(model if key is None else {key: model}, "m.pt")
    with pytest.raises(MIAError, match="in the program that trained it: ") as caught:
        load_target("m.pt", architecture=f"{HERE}:Net", image_shape=(3, 16, 16))
    exec(str(caught.value).rpartition("trained it: ")[2], {"torch": torch, "model": model})
    same(load_target("weights.pt", architecture=f"{HERE}:Net", image_shape=(3, 16, 16)), network_of(), images)
