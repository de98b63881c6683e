"""The reading check on small targets that know their members by heart: every wrong reading is named, no sound one."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.records.records import Records
from mia_lightning.targets import load_target
from mia_lightning.targets.image_scale import check_scale, gray_to_rgb
from mia_lightning.targets.readings import check_readings

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
MODULE = "mia_lightning.targets.transforms"


class SmallNet(nn.Module):
    """Random convolution and a linear head that is solved for; takes any side."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 5, stride=2)
        self.fc = nn.Linear(24 * 36, num_classes)

    def features(self, images):
        return nn.functional.adaptive_avg_pool2d(torch.relu(self.conv(images)), 6).flatten(1)

    def forward(self, images):
        return self.fc(self.features(images))


def records(count=400, classes=5, side=32, seed=0, contrast=1.0):
    rng = np.random.default_rng(seed)
    labels, membership = rng.integers(0, classes, count), (rng.random(count) < 0.5).astype(np.int8)
    colors = np.random.default_rng(7).uniform(60, 190, (classes, 3))
    coarse = rng.normal(0, 45, (count, 3, 8, 8)).repeat(-(-side // 8), 2).repeat(-(-side // 8), 3)[..., :side, :side]
    images = (
        (125 + contrast * (colors[labels] - 125))[:, :, None, None] + coarse + rng.normal(0, 12, (count, 3, side, side))
    )
    images = np.clip(images, 0, 255).astype(np.uint8)
    return Records(ids=np.arange(count), images=images, labels=labels, membership=membership, source="r")


def normalized(images, mean=MEAN, std=STD):
    return (torch.from_numpy(images).float() / 255 - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(
        1, -1, 1, 1
    )


@torch.no_grad()
def fitted(inputs, labels, classes=5, ridge=1e-3):
    """Return a network whose head solves for the labels, by ridge regression on the random features."""
    torch.manual_seed(0)
    network = SmallNet(classes)
    network.conv.weight.mul_(2)
    network.conv.bias.zero_()
    solve_head(network.fc, network.features(inputs), labels, classes, ridge)
    return network.eval()


@torch.no_grad()
def solve_head(layer, features, labels, classes, ridge):
    """Solve for a linear layer's weights by ridge regression on the features (N, F) of the records."""
    features = features.double()
    features = torch.cat([features, torch.ones(len(features), 1).double()], 1)
    wanted = nn.functional.one_hot(torch.as_tensor(labels), classes).double()
    kernel = features @ features.T + ridge * len(features) * torch.eye(len(features)).double()
    head = 8 * features.T @ torch.linalg.solve(kernel, wanted)
    layer.weight.copy_(head[:-1].T)
    layer.bias.copy_(head[-1])


def target_of(network, path, **options):
    torch.save(network.state_dict(), path)
    return load_target(str(path), architecture="tests.targets.test_readings:SmallNet", **options)


@pytest.fixture(scope="module")
def data():
    return records()


def members_of(data):
    rows = data.membership == 1
    return data.images[rows], data.labels[rows]


def test_sound_reading_passes(data, tmp_path):
    images, labels = members_of(data)
    check = check_readings(target_of(fitted(normalized(images), labels), tmp_path / "t.pt"), data, MEAN, STD)
    assert check.status == "pass", check.sentence
    assert check.members.accuracy > 0.95


def test_images_that_are_stored_normalized(data, tmp_path):
    images, labels = members_of(data)
    stored = dataclasses.replace(data, images=normalized(data.images).numpy())
    target = target_of(fitted(normalized(images), labels), tmp_path / "t.pt")
    check = check_readings(target, stored, (0.0,) * 3, (1.0,) * 3)
    assert check.status == "pass", check.sentence
    check = check_readings(target, stored, MEAN, STD)  # normalized twice
    assert check.status == "warn"
    assert "with no normalization" in check.sentence


def test_single_class_proves_no_other_reading(data, tmp_path):
    images, labels = members_of(data)
    target = target_of(fitted(normalized(images), labels), tmp_path / "t.pt")
    check = check_readings(target, dataclasses.replace(data, labels=np.zeros_like(data.labels)), MEAN, STD)
    assert check.status == "chance"
    assert "all sampled records have one label" in check.sentence


def resized(images, side):
    return nn.functional.interpolate(images, size=side, mode="bilinear", antialias=True)


NONE, GIVEN = ((0.0,) * 3, (1.0,) * 3), ((0.36, 0.32, 0.4), (0.21, 0.2, 0.22))
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRANSPOSE, REVERSE = f"--data.transform {MODULE}:transpose", f"--data.transform {MODULE}:reverse_channels"

WRONG = {
    "none": (lambda x: normalized(x, *NONE), {}, "--data.mean [0, 0, 0] --data.std [1, 1, 1]"),
    "own": (lambda x: normalized(x, *statistics(x)), {"configured": NONE}, "--data.mean [0.392"),
    "given": (lambda x: normalized(x, *NONE), {"configured": GIVEN}, "--data.mean [0, 0, 0]"),
    "published": (lambda x: normalized(x, *IMAGENET), {"configured": NONE}, "--data.mean [0.4"),
    "half": (lambda x: normalized(x, (0.5,) * 3, (0.5,) * 3), {"configured": NONE}, "--data.mean [0."),
    "0..255": (lambda x: torch.from_numpy(x).float(), {}, "--data.mean [0, 0, 0] --data.std [0.003922"),
    "64": (lambda x: resized(normalized(x), 64), {"contrast": 0.0}, "--data.resize 64"),
    "64, members all correct": (lambda x: resized(normalized(x), 64), {}, "--data.resize"),
    "96": (lambda x: resized(normalized(x), 96), {"contrast": 0.0}, "--data.resize"),
    "128": (lambda x: resized(normalized(x), 128), {"contrast": 0.0}, "--data.resize"),
    "64 and none": (lambda x: resized(normalized(x, *NONE), 64), {}, "--data.resize 64"),
    "28 and 0..255": (lambda x: resized(torch.from_numpy(x).float(), 28), {"contrast": 0.0}, "--data.resize 28"),
    "bgr": (lambda x: normalized(x).flip(1), {}, REVERSE),
    "bgr and none": (lambda x: normalized(x, *NONE).flip(1), {}, REVERSE),
    "transpose": (lambda x: normalized(x).transpose(2, 3), {"contrast": 0.0}, TRANSPOSE),
}
"""Inputs of the training; contrast of the classes' colors, without which a network depends more on the reading; what is
configured where it is not the default; and what the sentence must name."""


def statistics(images):
    return tuple(tuple((f(images, axis=(0, 2, 3)) / 255).tolist()) for f in (np.mean, np.std))


@pytest.mark.parametrize("reading", WRONG)
def test_wrong_reading_names_the_option(reading, tmp_path):
    inputs, options, option = WRONG[reading]
    data = records(contrast=options.get("contrast", 1.0))
    images, labels = members_of(data)
    target = target_of(fitted(inputs(images), labels, ridge=1e-5), tmp_path / "t.pt")
    check = check_readings(target, data, *options.get("configured", (MEAN, STD)))
    assert check.status == "warn", check.sentence
    assert option in check.sentence


@pytest.mark.parametrize("reading", ["64", "64 and none", "bgr", "0..255"])
def test_following_the_advice_passes(reading, tmp_path):
    inputs, options, _ = WRONG[reading]
    data = records(contrast=options.get("contrast", 1.0))
    images, labels = members_of(data)
    network = fitted(inputs(images), labels, ridge=1e-5)
    words = check_readings(target_of(network, tmp_path / "t.pt"), data, MEAN, STD).sentence.partition("; add ")[2]
    advised = dict(re.findall(r"--data\.(\w+) (\[.*?\]|\S+)", words))
    mean, std = (json.loads(advised.get(name, str(list(value)))) for name, value in (("mean", MEAN), ("std", STD)))
    form = {"resize": int(advised["resize"])} if "resize" in advised else {}
    form |= {"transform": advised["transform"]} if "transform" in advised else {}
    check = check_readings(target_of(network, tmp_path / "t.pt", **form), data, mean, std)
    assert check.status == "pass", check.sentence
    assert check.members.accuracy == 1


def test_wrong_first_layers(tmp_path):
    from torchvision.models import resnet18

    from mia_lightning.targets.architectures import set_stem

    torch.manual_seed(0)
    data = records(100, side=8, contrast=0.0)
    network = resnet18(num_classes=5)
    set_stem(network, "cifar")
    head, network.fc = network.fc, nn.Identity()
    images, labels = members_of(data)
    with torch.no_grad():
        network.train()
        network(normalized(data.images))  # running statistics of these images
        solve_head(head, network.eval()(normalized(images)), labels, 5, 1e-5)
    network.fc = head
    torch.save(network.state_dict(), tmp_path / "r.pt")
    target = load_target(str(tmp_path / "r.pt"), architecture="resnet18", stem="imagenet")
    check = check_readings(target, data, MEAN, STD)
    assert check.status == "warn", check.sentence
    assert "--target.stem cifar" in check.sentence


def test_other_set_of_weights(data, tmp_path):
    images, labels = members_of(data)
    torch.manual_seed(3)
    untrained, trained = SmallNet(), fitted(normalized(images), labels)
    torch.save({"model": untrained.state_dict(), "model_ema": trained.state_dict()}, tmp_path / "t.pt")
    target = load_target(str(tmp_path / "t.pt"), architecture="tests.targets.test_readings:SmallNet")
    assert target.other_weights == ("model_ema",)
    check = check_readings(target, data, MEAN, STD, weight_sets=lambda: {"model_ema": trained})
    assert check.status == "warn", check.sentence
    assert check.sentence.endswith("add --target.weights model_ema")
    check = check_readings(target, data, MEAN, STD, weight_sets=lambda: {"model_ema": untrained})
    assert check.status != "warn", check.sentence


@pytest.mark.parametrize(
    ("order", "expected"), [([4, 0, 1, 2, 3], "[4, 0, 1, 2, 3]"), ([2, 0, 4, 1, 3], "[2, 0, 4, 1, 3]")]
)
def test_class_order(order, expected, data, tmp_path):
    images, labels = members_of(data)
    network = fitted(normalized(images), np.asarray(order)[labels])
    check = check_readings(target_of(network, tmp_path / "t.pt"), data, MEAN, STD)
    assert check.status == "warn"
    assert f"--target.class_order {expected}" in check.sentence
    mended = target_of(network, tmp_path / "t.pt", class_order=tuple(order))
    assert check_readings(mended, data, MEAN, STD).status == "pass"


@pytest.mark.parametrize("option", [{"resize": 64}, {"transform": f"{MODULE}:reverse_channels"}])
def test_option_restores_the_outputs(option, data, tmp_path):
    images, labels = members_of(data)
    inputs = resized(normalized(images), 64) if "resize" in option else normalized(images).flip(1)
    network = fitted(inputs, labels)
    target = target_of(network, tmp_path / "t.pt", **option)
    with torch.inference_mode():
        torch.testing.assert_close(target.network(normalized(images)), network(inputs))
    assert target.digest != target_of(network, tmp_path / "t.pt").digest
    assert check_readings(target, data, MEAN, STD).members.accuracy > 0.95


def test_constant_prediction_is_near_chance(data, tmp_path):
    network = SmallNet()
    nn.init.zeros_(network.fc.weight)
    check = check_readings(target_of(network, tmp_path / "t.pt"), data, MEAN, STD)
    assert check.status == "chance"
    assert "as expected by chance" in check.sentence
    assert "no evidence of safety" in check.sentence


@pytest.mark.parametrize(("count", "classes", "ridge"), [(60, 5, 10.0), (400, 100, 1.0), (400, 2, 100.0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_warning_on_sound_weak_targets(count, classes, ridge, seed, tmp_path):
    data = records(count, classes, seed=seed)
    images, labels = members_of(data)
    target = target_of(fitted(normalized(images), labels, classes, ridge), tmp_path / "t.pt")
    check = check_readings(target, data, MEAN, STD)
    assert check.status == "pass", check.sentence


def test_cost(data, tmp_path):
    images, labels = members_of(data)
    network = fitted(normalized(images, (0.0,) * 3, (1.0,) * 3), labels, ridge=1e-5)
    check = check_readings(target_of(network, tmp_path / "t.pt"), data, MEAN, STD, records=100_000)
    assert check.forward_passes <= 0.1 * 18 * 100_000
    assert check.forward_passes <= 8000


def test_too_few_labeled_members(data, tmp_path):
    images, labels = members_of(data)
    target = target_of(fitted(normalized(images), labels), tmp_path / "t.pt")
    unlabeled = dataclasses.replace(data, labels=np.full(len(data), -1))
    assert check_readings(target, unlabeled, MEAN, STD) is None


class TestScale:
    def test_mean_on_the_scale_of_bytes(self, data):
        with pytest.raises(MIAError, match=r"--data.mean \[0.4914, 0.482, 0.4467\]"):
            check_scale(data, None, (125.3, 122.9, 113.9), (63.0, 62.1, 66.7))

    def test_halves_on_different_scales(self, data):
        floats = dataclasses.replace(data, images=data.images.astype(np.float32))
        with pytest.raises(MIAError, match=r"scale \[0, 1\], but those of r on 0..255"):
            check_scale(data, floats, None, None)
        check_scale(data, dataclasses.replace(data, images=data.images.astype(np.float32) / 255), None, None)

    def test_float_images_of_bytes(self, data):
        floats = dataclasses.replace(data, images=data.images.astype(np.float32))
        with pytest.raises(MIAError, match="store the images as uint8"):
            check_scale(floats, None, MEAN, STD)

    def test_nan(self, data):
        with pytest.raises(MIAError, match="finite"):
            check_scale(data, None, (float("nan"),) * 3, STD)

    def test_gray_to_rgb(self, data):
        gray = dataclasses.replace(data, images=data.images[:, :1])
        assert np.array_equal(gray_to_rgb(gray).images[:, 2], data.images[:, 0])
        with pytest.raises(MIAError, match="3 channels already"):
            gray_to_rgb(data)
