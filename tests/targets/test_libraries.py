"""timm names and Hugging Face folders, compared with the libraries on weights made here."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mia_lightning.config.command_line import load_config
from mia_lightning.errors import MIAError
from mia_lightning.references.networks import network_of
from mia_lightning.targets import check_fits, load_target
from mia_lightning.targets.architectures import untrained

NAME = "test_resnet"
"""A network of timm with a few thousand parameters."""


@pytest.fixture(scope="module")
def network():
    import timm

    torch.manual_seed(0)
    return timm.create_model(NAME, pretrained=False, num_classes=5).eval()


def images(side, channels=3):
    return torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(1))


FORMS = {
    "plain": lambda state: state,
    "state_dict_ema": lambda state: {"state_dict": {k: v + 1 for k, v in state.items()}, "state_dict_ema": state},
    "opacus": lambda state: {f"_module.{k}": v for k, v in state.items()},
    "compiled": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "parallel": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("form", FORMS)
def test_timm_checkpoint_of_each_form(form, network, tmp_path):
    torch.save(FORMS[form](network.state_dict()), tmp_path / "t.pt")
    weights = "state_dict_ema" if form == "state_dict_ema" else None
    target = load_target(str(tmp_path / "t.pt"), architecture=f"timm:{NAME}", weights=weights, image_shape=(3, 32, 32))
    check_fits(target, (3, 32, 32))
    with torch.inference_mode():
        torch.testing.assert_close(target.network(images(32)), network(images(32)))
    assert target.num_classes == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(dtype, network, tmp_path):
    import timm

    state = {name: tensor.to(dtype) for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    save_file(state, tmp_path / "t.safetensors")
    target = load_target(str(tmp_path / "t.safetensors"), architecture=f"timm:{NAME}", image_shape=(3, 32, 32))
    expected = timm.create_model(NAME, num_classes=5).eval()
    expected.load_state_dict(state, strict=False)
    with torch.inference_mode():
        torch.testing.assert_close(target.network(images(32)), expected(images(32)))


def test_references_of_timm_are_untrained(network):
    first, second = (untrained(f"timm:{NAME}", 5, network.state_dict(), seed=seed) for seed in (1, 2))
    assert first.state_dict().keys() == network.state_dict().keys()
    assert not torch.equal(first.conv1[0].weight, second.conv1[0].weight)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm:resnet_18", "--target.architecture 'timm:resnet_18' does not exist; did you mean 'resnet18'"),
        (f"timm:{NAME}", "--target.checkpoint is not given"),
    ],
)
def test_odd_names_are_one_sentence(name, sentence, network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "t.pt")
    with pytest.raises(MIAError, match=sentence):
        load_target(None if "not given" in sentence else str(tmp_path / "t.pt"), architecture=name)


CALLS = []


def trained():
    CALLS.append(1)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))


def test_trained_architecture_has_no_references():
    del CALLS[:]
    target = load_target(None, architecture=f"{__name__}:trained", image_shape=(3, 2, 2))
    config = load_config(references={"count": 2}).references
    with pytest.raises(MIAError, match="trained returns the target as it was trained; name a class or function"):
        network_of(config, target)(0)
    assert len(CALLS) == 1


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=4)).eval()
    folder = tmp_path_factory.mktemp("vit")
    model.save_pretrained(folder)
    return model, folder


def test_hugging_face_folder(vit):
    model, folder = vit
    target = load_target(str(folder), image_shape=(3, 16, 16))
    check_fits(target, (3, 16, 16))
    with torch.inference_mode():
        torch.testing.assert_close(target.network(images(16)), model(images(16)).logits)
    assert target.architecture == "transformers:ViTForImageClassification"
    assert target.feature_layer is not None
    reference = untrained(
        target.architecture, 4, {}, seed=1, form=target.form, hyper_parameters=target.hyper_parameters
    )
    assert reference(images(16)).shape == (4, 4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": None}, "its config.json is not that of a model of transformers"),
        ({"model_type": "bert"}, "cannot load it for image classification"),
        ({"auto_map": {"AutoConfig": "own.Config"}}, "refused, it names code or adapters of its own"),
        ({"num_hidden_layers": 2}, r"model.safetensors lacks vit.*of another network"),
    ],
)
def test_odd_folders_are_one_sentence(change, sentence, vit, tmp_path):
    config = json.loads((vit[1] / "config.json").read_text()) | change
    config = {name: value for name, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((vit[1] / "model.safetensors").read_bytes())
    with pytest.raises(MIAError, match=sentence):
        load_target(str(tmp_path), image_shape=(3, 16, 16))


def test_folder_without_safetensors(vit, tmp_path):
    (tmp_path / "config.json").write_bytes((vit[1] / "config.json").read_bytes())
    np.save(tmp_path / "pytorch_model.npy", np.zeros(1))
    with pytest.raises(MIAError, match=r"has a config.json but no model.safetensors; save it again"):
        load_target(str(tmp_path))
