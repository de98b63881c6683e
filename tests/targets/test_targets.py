"""A checkpoint in any usual form becomes the same network, and nothing in the file is ever run."""

import argparse
import copy
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.hostile_worker import read_here
from safetensors.torch import save_file
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import architecture_names, check_fits, load_target
from mia_lightning.targets.base import TargetForm
from mia_lightning.targets.features import FeatureTap, probe
from mia_lightning.targets.in_memory import target_from

torchvision = pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def resnet():
    return random_statistics(torchvision.models.resnet18(num_classes=7))


def random_statistics(network):
    """Batch norms as after training: a network that ignored its buffers would answer otherwise."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return network.eval().requires_grad_(False)


def prefixed(weights, *prefixes):
    return OrderedDict(("".join(prefixes) + name, tensor) for name, tensor in weights.items())


def same_outputs(target, network, images):
    with torch.inference_mode():
        torch.testing.assert_close(target.network(images), network(images), rtol=0, atol=0)


def refusal(path, **options):
    with pytest.raises(MIAError) as caught:
        load_target(str(path), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


class Touch:
    """Unpickled by an ordinary loader, this creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


# ---- formats, wrappers, prefixes


WRAPS = {
    "plain": lambda w: w,
    "state_dict": lambda w: {"state_dict": w, "epoch": 3, "best": 0.5},
    "model": lambda w: {"model": w, "optimizer": {"param_groups": []}},
    "model_state_dict": lambda w: {"model_state_dict": w},
    "net": lambda w: {"net": w, "acc": 91.0},
    "nested": lambda w: {"state_dict": {"model": w}},
    "ddp": lambda w: prefixed(w, "module."),
    "compiled_ddp": lambda w: {"model": prefixed(w, "module.", "_orig_mod.")},
    "ddp_compiled_model": lambda w: prefixed(w, "_orig_mod.", "module.", "model."),
    "net_prefix": lambda w: prefixed(w, "net."),
    "regionally_compiled": lambda w: {k.replace("model.", "model._orig_mod."): v for k, v in w.items()},
    "scripts_own_extras": lambda w: {
        "state_dict": w,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")),
        "best": np.float64(0.91),
    },
}


def test_resnet_of_plain_state_dict(resnet, images, tmp_path):
    torch.save(prefixed(resnet.state_dict(), "module."), tmp_path / "t.pt")
    target = load_target(str(tmp_path / "t.pt"))
    same_outputs(target, resnet, images)
    assert (target.architecture, target.num_classes, target.feature_layer) == ("resnet18", 7, "fc")


@pytest.mark.parametrize("wrap", WRAPS)
def test_wrappers_and_prefixes_load_the_same_network(wrap, images, custom):
    network = random_statistics(_import_custom().Net(num_classes=5))  # its own trunk is called `model`
    torch.save(WRAPS[wrap](network.state_dict()), "t.pt")
    torch.save(network.state_dict(), "plain.pt")
    target = load_target("t.pt", architecture="my_nets:Net")
    same_outputs(target, network, images)
    assert (target.num_classes, target.feature_layer) == (5, "head")
    assert target.digest == load_target("plain.pt", architecture="my_nets:Net").digest


def test_target_is_in_eval_mode_float32(resnet, tmp_path):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in resnet.state_dict().items()}, tmp_path / "t.pt")
    before = torch.random.get_rng_state()
    network = load_target(str(tmp_path / "t.pt")).network
    assert not any(module.training for module in network.modules())
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in network.parameters())
    assert torch.equal(before, torch.random.get_rng_state())


def test_legacy_and_safetensors_by_content(resnet, images, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "legacy", _use_new_zipfile_serialization=False)
    save_file(resnet.state_dict(), tmp_path / "safe.bin")  # safetensors sorts the names
    targets = [load_target(str(tmp_path / name)) for name in ("legacy", "safe.bin")]
    for target in targets:
        same_outputs(target, resnet, images)
    assert targets[0].digest == targets[1].digest


def test_checkpoint_of_a_real_lightning_trainer(images, tmp_path):
    import lightning as L

    class Classifier(L.LightningModule):
        def __init__(self, lr=0.01, widths=(1, 2), where=pathlib.Path("data")):
            super().__init__()
            self.save_hyperparameters()
            self.model = torchvision.models.resnet18(num_classes=7)
            self.loss = nn.CrossEntropyLoss(weight=torch.ones(7))
            self.register_buffer("confusion", torch.zeros(7, 7))

        def training_step(self, batch, index):
            return self.loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1])}

    module = Classifier()
    data = torch.utils.data.TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8) % 7)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    target = load_target(str(tmp_path / "last.ckpt"))
    same_outputs(target, module.model.eval(), images)


# ---- architectures


def test_cifar_stem_and_channels_from_weights(tmp_path):
    network = torchvision.models.resnet18(num_classes=9)
    network.conv1 = nn.Conv2d(1, 64, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    torch.save(random_statistics(network).state_dict(), tmp_path / "t.pt")
    target = load_target(str(tmp_path / "t.pt"))
    same_outputs(target, network, torch.randn(2, 1, 28, 28))
    assert (target.architecture, target.num_classes) == ("resnet18 (CIFAR stem, 1 channel)", 9)


@pytest.mark.parametrize("name", ["resnet50", "wide_resnet50_2", "resnext50_32x4d", "resnet34"])
def test_resnet_architectures_are_detected(name):
    from mia_lightning.targets.architectures import detect

    with torch.device("meta"):
        assert detect(torchvision.models.get_model(name).state_dict()) == name


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_gray_stem_and_safetensors(name, tmp_path):
    network = torchvision.models.get_model(name, num_classes=6)
    path = {"mobilenet_v3_small": "features.0", "squeezenet1_1": "features", "shufflenet_v2_x0_5": "conv1"}[name]
    parent = network.get_submodule(path)
    old = parent[0]
    parent[0] = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    random_statistics(network)
    save_file(network.state_dict(), tmp_path / "t.safetensors")
    target = load_target(str(tmp_path / "t.safetensors"), architecture=name)
    same_outputs(target, network, torch.randn(2, 1, 32, 32))
    assert (target.num_classes, target.architecture) == (6, f"{name} (1 channel)")


CUSTOM = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3, width=4):
        super().__init__()
        self.head = nn.Linear(width, num_classes)   # registered first, called last
        self.model = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.head(self.model(x))

def fixed():
    return Net(num_classes=5)

def no_module(num_classes):
    return "weights"

def needs(depth):
    return Net()
"""


@pytest.fixture
def custom(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(CUSTOM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    sys.modules.pop("my_nets", None)
    yield tmp_path
    sys.modules.pop("my_nets", None)


def test_custom_class_from_the_current_folder(custom, images):
    torch.save({}, "empty.pt")
    source = random_statistics(_import_custom().Net(num_classes=5))
    torch.save(source.state_dict(), "t.pt")
    for name in ("Net", "fixed"):
        target = load_target("t.pt", architecture=f"my_nets:{name}")
        same_outputs(target, source, images)
        assert (target.num_classes, target.feature_layer) == (5, "head")
    assert "calling it failed: TypeError" in refusal("t.pt", architecture="my_nets:needs")
    assert "returned str" in refusal("t.pt", architecture="my_nets:no_module")
    assert "did you mean 'Net'" in refusal("t.pt", architecture="my_nets:Nett")
    assert "importing 'no_such_nets' failed" in refusal("t.pt", architecture="no_such_nets:Net")
    assert "--target.num_classes is 4" in refusal("t.pt", architecture="my_nets:Net", num_classes=4)


def _import_custom():
    namespace = {"__name__": "source"}
    exec(CUSTOM, namespace)
    return SimpleNamespace(**namespace)


def test_editing_a_custom_class_changes_the_digest(custom):
    torch.save(_import_custom().Net(num_classes=5).state_dict(), "t.pt")
    first = load_target("t.pt", architecture="my_nets:Net").digest
    (custom / "other_nets.py").write_text(CUSTOM.replace("nn.ReLU()", "nn.ReLU6()"))
    assert load_target("t.pt", architecture="other_nets:Net").digest != first


def test_unknown_names(resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "t.pt")
    assert "did you mean 'resnet18'" in refusal(tmp_path / "t.pt", architecture="resnet81")
    assert "closest names are fc" in refusal(tmp_path / "t.pt", feature_layer="fcc")
    assert "has 7 classes" in refusal(tmp_path / "t.pt", num_classes=8)
    assert "resnet18" in architecture_names()
    torch.save({"a.weight": torch.ones(2, 2)}, tmp_path / "other.pt")
    assert "give --target.architecture" in refusal(tmp_path / "other.pt")


def test_mismatch_names_keys_and_architecture(resnet, tmp_path):
    torch.save({"state_dict": prefixed(resnet.state_dict(), "module.")}, tmp_path / "t.pt")
    message = refusal(tmp_path / "t.pt", architecture="resnet50")
    assert "missing: layer1.0.conv3.weight" in message
    assert "layer1.0.conv1.weight (expected (64, 64, 1, 1), found (64, 64, 3, 3))" in message
    assert message.endswith("try --target.architecture resnet18")
    extra = resnet.state_dict() | {"aux.weight": torch.ones(2, 2)}
    extra.pop("bn1.bias")
    torch.save(extra, tmp_path / "t.pt")
    message = refusal(tmp_path / "t.pt")
    assert "missing: bn1.bias" in message
    assert "unexpected: aux.weight" in message


# ---- features


@pytest.mark.parametrize(
    ("name", "penultimate"),
    [
        ("resnet18", lambda m, x: nn.Sequential(*list(m.children())[:-1])(x)),
        ("mobilenet_v3_small", lambda m, x: m.classifier[:3](m.avgpool(m.features(x)).flatten(1))),
        ("squeezenet1_1", lambda m, x: m.features(x).mean((2, 3))),
    ],
)
def test_features_are_the_input_of_the_classifier(name, penultimate):
    network = random_statistics(torchvision.models.get_model(name, num_classes=6))
    images = torch.randn(2, 3, 64, 64)
    _, layer = probe(network, images)
    hooks = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in network.modules())
    with torch.inference_mode():
        logits, features = FeatureTap(network, layer).eval()(images)
        torch.testing.assert_close(features, penultimate(network, images).flatten(1))
        torch.testing.assert_close(logits, network(images))
    after = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in network.modules())
    assert hooks == after == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"feature_layer": "2"}, "--target.feature_layer '2' does not exist; the closest names are"),
        ({"form": TargetForm(class_order=(0, 1, 3))}, "--target.class_order must contain each of 0 to 2 once"),
    ],
)
def test_options_of_a_network_in_memory_are_checked(options, sentence):
    with pytest.raises(MIAError, match=sentence):
        target_from(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), [torch.randn(8, 1, 2, 2)], **options)


def test_tap_under_autograd_copies_pickle_and_a_trace(resnet, images):
    tap = FeatureTap(resnet, "fc")
    logits, features = tap(images)
    traced = FeatureTap(torch.fx.symbolic_trace(resnet), "fc")
    for other in (copy.deepcopy(tap), pickle.loads(pickle.dumps(tap)), traced):  # noqa: S301
        torch.testing.assert_close(other(images)[1], features)
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(tap(inputs)[1].sum(), inputs)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(resnet.fc(features), logits)
    with pytest.raises(MIAError, match="not a submodule"):
        FeatureTap(resnet, "nowhere")


def test_timm_convention_and_networks_without_features(images):
    class Timm(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head, self.passes = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), 0

        def forward_features(self, x):
            self.passes += 1
            return self.stem(x)

        def forward_head(self, x, pre_logits=False):
            x = x.mean((2, 3))
            return x if pre_logits else self.head(x)

        def forward(self, x):
            return self.forward_head(self.forward_features(x))

    network = Timm()
    logits, features = FeatureTap(network, None)(images)
    assert network.passes == 1
    torch.testing.assert_close(network.head(features), logits)
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert probe(bare, images)[1] is None
    assert FeatureTap(bare, None)(images)[1].shape == (3, 0)


# ---- bad files


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_checkpoint_is_not_executed(zipped, resnet, tmp_path):
    canary = tmp_path / "canary"
    torch.save(
        {"state_dict": resnet.state_dict(), "extra": Touch(canary)},
        tmp_path / "t.pt",
        _use_new_zipfile_serialization=zipped,
    )
    assert "system" in refusal(tmp_path / "t.pt")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(Touch(canary)))
    assert "would run posix.system" in refusal(tmp_path / "bare.pkl")
    assert not canary.exists()


def test_pickled_module_and_records_are_distinguished(resnet, tmp_path):
    torch.save(resnet, tmp_path / "module.pt")
    message = refusal(tmp_path / "module.pt")
    assert "contains a pickled module" in message
    assert "torchvision.models.resnet.ResNet" in message
    assert "save model.state_dict() instead" in message
    torch.save(MembershipDataset(), tmp_path / "pub.pt")
    assert "contains records" in refusal(tmp_path / "pub.pt")
    save_file({"images": torch.zeros(2, 3, 4, 4), "labels": torch.zeros(2)}, tmp_path / "pub.safetensors")
    assert "contains records" in refusal(tmp_path / "pub.safetensors")


class MembershipDataset(torch.utils.data.Dataset):
    pass


def test_missing_truncated_and_odd_files(resnet, tmp_path):
    assert "no such file" in refusal(tmp_path / "nowhere.pt")
    save_file(resnet.state_dict(), tmp_path / "whole.safetensors")
    torch.save(resnet.state_dict(), tmp_path / "whole.pt")
    torch.save(resnet.state_dict(), tmp_path / "whole_legacy.pt", _use_new_zipfile_serialization=False)
    for whole in list(tmp_path.glob("whole*")):
        whole.write_bytes(whole.read_bytes()[:100_000])
        assert "truncated" in refusal(whole)
    (tmp_path / "empty.pt").write_bytes(b"")
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "contains a list" in refusal(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    assert "contains no tensor" in refusal(tmp_path / "epoch.pt")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert "TorchScript" in refusal(tmp_path / "script.pt")


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_weights_that_are_not_finite_are_named(value, word, resnet, tmp_path):
    weights = copy.deepcopy(resnet.state_dict())
    weights["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(prefixed(weights, "module."), tmp_path / "t.pt")
    message = refusal(tmp_path / "t.pt")
    assert "'layer2.0.conv1.weight'" in message
    assert word in message


def test_check_fits(resnet, custom):
    torch.save(resnet.state_dict(), "t.pt")
    target = load_target("t.pt")
    check_fits(target, (3, 32, 32))
    with pytest.raises(MIAError, match=r"images have 1 channels.*takes 3"):
        check_fits(target, (1, 32, 32))
    resnet_with = copy.deepcopy(target.network)
    resnet_with.fc.bias.fill_(float("inf"))
    with pytest.raises(MIAError, match="infinite logits"):
        check_fits(_with(target, network=resnet_with), (3, 32, 32))
    with pytest.raises(MIAError, match=r"expected \(2, 9\)"):
        check_fits(_with(target, num_classes=9), (3, 32, 32))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 7))
    with pytest.raises(MIAError, match="cannot take images of shape 3x32x32"):
        check_fits(_with(target, network=flat), (3, 32, 32))


def _with(target, **changes):
    from dataclasses import replace

    return replace(target, **changes)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, mia_lightning.targets; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- exported programs


@pytest.fixture
def here(monkeypatch):
    """Programs are read in this process, as a child does it; test_first_query starts the child."""
    monkeypatch.setattr("mia_lightning.targets.first_query.read_in_child", read_here)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    class Views(nn.Module):
        """Reshapes with the batch size, so that expressions of it stand in the program."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

        def forward(self, x):
            x = torch.relu(self.norm(self.conv(x)))
            x = x.view(x.shape[0] * 2, 4, 32, 32).mean((2, 3))
            return self.head(x.view(x.shape[0] // 2, 8))

    network = random_statistics(Views())
    path = tmp_path_factory.mktemp("pt2") / "program.pt2"
    save_program(network, path)
    return network, path


def save_program(network, path, dynamic=True):
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    torch.export.save(torch.export.export(network, (torch.randn(4, 3, 32, 32),), dynamic_shapes=shapes), path)


def test_an_exported_program_round_trips(exported, images, here):
    network, path = exported
    target = load_target(str(path))
    assert (target.num_classes, target.architecture, target.feature_layer) == (4, "torch.export", None)
    check_fits(target, (3, 32, 32))
    tap = FeatureTap(target.network, None).eval()
    for batch in (images, images[:1], images.repeat(4, 1, 1, 1)):
        logits, features = tap(batch)
        torch.testing.assert_close(logits, network(batch))
        torch.testing.assert_close(network.head(features), logits)
    torch.testing.assert_close(pickle.loads(pickle.dumps(copy.deepcopy(tap)))(images)[0], network(images))  # noqa: S301
    with pytest.raises(MIAError, match=r"exported for images of shape 3x32x32, but the images are 3x28x28"):
        check_fits(target, (3, 28, 28))
    assert "remove --target.feature_layer" in refusal(path, feature_layer="head")


def test_fixed_batch_or_training_programs_are_refused(exported, tmp_path, here):
    network, path = exported
    save_program(network, tmp_path / "static.pt2", dynamic=False)
    assert "batches of exactly 4" in refusal(tmp_path / "static.pt2")
    save_program(copy.deepcopy(network).train(), tmp_path / "train.pt2")
    assert "model.eval()" in refusal(tmp_path / "train.pt2")
    (tmp_path / "cut.pt2").write_bytes(path.read_bytes()[:-200])
    assert "truncated" in refusal(tmp_path / "cut.pt2")


def rewrite(path, out, changes):
    """Copy a program with some records changed by a function of their bytes."""
    with zipfile.ZipFile(path) as source:
        records = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    from torch.export.pt2_archive import PT2ArchiveWriter

    with PT2ArchiveWriter(str(out)) as writer:
        for name, data in records.items():
            if not name.startswith((".data", "byteorder")):
                writer.write_bytes(name, changes[name](data) if name in changes else data)


def in_json(change):
    def apply(data):
        tree = json.loads(data)
        change(tree)
        return json.dumps(tree).encode()

    return apply


def test_a_malicious_program_executes_nothing(exported, tmp_path, monkeypatch):
    _, path = exported
    canary = tmp_path / "canary"
    code = f"__import__('pathlib').Path('{canary}').touch()"
    payload = io.BytesIO()
    torch.save(Touch(canary), payload)

    def node(tree, **change):
        tree["graph_module"]["graph"]["nodes"][0].update(change)

    def sympify(tree):
        for value in tree["graph_module"]["graph"]["sym_int_values"].values():
            value["as_expr"]["expr_str"] = code

    def pickled(tree):
        next(iter(tree["config"].values()))["use_pickle"] = True

    model, weights = "models/model.json", "data/weights/model_weights_config.json"
    attacks = {
        "sample": {"data/sample_inputs/model.pt": lambda _: payload.getvalue()},
        "guards": {model: in_json(lambda tree: tree.update(guards_code=[code]))},
        "expression": {model: in_json(sympify)},
        "name": {model: in_json(lambda tree: node(tree, name=code))},
        "target": {model: in_json(lambda tree: node(tree, target="torch.os.system"))},
        "weight": {weights: in_json(pickled), "data/weights/weight_0": lambda _: payload.getvalue()},
    }
    for name, changes in attacks.items():
        rewrite(path, tmp_path / f"{name}.pt2", changes)
    monkeypatch.setattr("mia_lightning.targets.first_query.CODE", "import os; os.abort()")
    for refused in ("expression", "name", "target", "weight"):  # before a child starts
        assert "refused" in refusal(tmp_path / f"{refused}.pt2")
    monkeypatch.setattr("mia_lightning.targets.first_query.read_in_child", read_here)
    for harmless in ("sample", "guards"):  # never read, so the rest of the program is good
        assert load_target(str(tmp_path / f"{harmless}.pt2")).num_classes == 4
    assert not canary.exists()
