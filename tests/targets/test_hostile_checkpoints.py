"""Checkpoints with odd names, types and attributes: each is read, or refused in one sentence."""

import functools
from collections import OrderedDict

import pytest
import torch
from helpers import hostile_pickles as pickles

from mia_lightning.errors import MIAError
from mia_lightning.targets import load_target
from tests.targets.test_weight_sets import Net, load, network_of, same

FORMS = {"zip": pickles.zipped, "old": functools.partial(pickles.legacy, keys=())}


def refusal(path, payload):
    with pytest.raises(MIAError) as caught:
        load(path, payload)
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 1200
    return sentence


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def weights():
    return OrderedDict(network_of().state_dict())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a\0b.C\0", "a.C\0", "a\x1b[2J.C", "a.C\u202e"])
def test_class_name_with_control_characters(name, form, tmp_path):
    path = FORMS[form](tmp_path / "c.pt", pickles.named(name) + b")\x81}b")
    with pytest.raises(MIAError, match=r"^c\.pt: ") as caught:
        load_target(str(path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["fc.weight", "beside"])
@pytest.mark.parametrize("name", ["bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2"])
def test_type_without_arithmetic(name, key, weights, tmp_path):
    weights[key] = torch.empty(5, 4, dtype=getattr(torch, name))
    assert f"tensor '{key}' is {name}; save the network's weights as float32" in refusal(tmp_path / "c.pt", weights)


@pytest.mark.parametrize("name", ["int8", "uint8", "int64", "bool", "complex64", "uint16"])
def test_weights_that_are_no_floats(name, weights, tmp_path):
    weights["fc.weight"] = torch.ones(5, 4).to(getattr(torch, name))
    assert f"tensor 'fc.weight' is {name}, expected floating-point" in refusal(tmp_path / "c.pt", weights)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2"])
def test_other_floats_keep_their_values(name, weights, images, tmp_path):
    weights = OrderedDict((key, tensor.to(getattr(torch, name))) for key, tensor in weights.items())
    network = Net().eval()
    network.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    same(load(tmp_path / "c.pt", weights), network, images)


def test_quantized_tensor(weights, tmp_path):
    weights["conv.weight"] = torch.quantize_per_tensor(torch.zeros(4, 3, 3, 3), 1.0, 0, torch.qint8)
    assert "_rebuild_qtensor" in refusal(tmp_path / "c.pt", weights)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["items", "get", "keys", "values", "__iter__", "__class__", "__len__"])
def test_attribute_named_like_a_method(method, form, tmp_path):
    shadowed = pickles.mapping(**{"fc.weight": pickles.number(1)})
    body = pickles.empty() + pickles.mapping(**{method: pickles.number(5)}) + b"b"
    for payload in (body, pickles.mapping(state_dict=body, hyper_parameters=body), shadowed):
        with pytest.raises(MIAError, match="expected a state dict"):
            load_target(str(FORMS[form](tmp_path / "c.pt", payload)))


def test_shadowed_methods_of_weights(weights, images, tmp_path):
    for method in ("get", "keys", "values"):
        weights.__dict__[method] = 5
    same(load(tmp_path / "c.pt", {"state_dict": weights, "hyper_parameters": weights}), network_of(), images)
    same(load(tmp_path / "c.pt", weights), network_of(), images)


@pytest.mark.parametrize("name", ["k\n\x1b[31m" * 5000, "\0", "\ud800", "a" * 10**6])
def test_names_of_tensors(name, weights, tmp_path):
    weights[name] = torch.zeros(5, 4)
    assert "unexpected" in refusal(tmp_path / "c.pt", weights)
    target = load(tmp_path / "c.pt", {name: network_of(0).state_dict(), "b": network_of(1).state_dict()})
    assert all(note.isprintable() and len(note) < 1200 for note in target.notes)


def test_no_classes(weights, tmp_path):
    weights |= {"fc.weight": torch.zeros(0, 4), "fc.bias": torch.zeros(0)}
    assert "returns shape (8, 0)" in refusal(tmp_path / "c.pt", weights)
