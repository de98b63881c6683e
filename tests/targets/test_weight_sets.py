"""Checkpoints in other forms: several sets of weights, other names, objects beside the tensors, kinds of outputs."""

import datetime
import functools
import math
from collections import OrderedDict, defaultdict, deque

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import load_target
from mia_lightning.targets.base import TargetForm
from mia_lightning.targets.determinism import nondeterminism, saturation
from mia_lightning.targets.probing import probed

HERE = "tests.targets.test_weight_sets"


class Net(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))


class LogTwo(Net):
    base = 2

    def forward(self, images):
        return super().forward(images).log_softmax(1) / math.log(self.base)


class LogTen(LogTwo):
    base = 10


class Softmax(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


class LogSoftmax(Net):
    def forward(self, images):
        return super().forward(images).log_softmax(1)


class ClassNumber(Net):
    def forward(self, images):
        return super().forward(images).argmax(1).float()


class TopClass(Net):
    def forward(self, images):
        logits = super().forward(images)
        return torch.where(logits == logits.max(dim=1, keepdim=True).values, logits, 0.0)


class AsDict(Net):
    def forward(self, images):
        return {"logits": super().forward(images), "features": images.mean(dim=(2, 3))}


class AsTuple(Net):
    def forward(self, images):
        return super().forward(images), images


class OneLogit(Net):
    def __init__(self):
        super().__init__(1)


class Squeezed(OneLogit):
    def forward(self, images):
        return super().forward(images)[:, 0]


class Sigmoid(OneLogit):
    def forward(self, images):
        return super().forward(images).sigmoid()


class Dropout(Net):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.3)


class BatchStatistics(Net):
    def forward(self, images):
        return super().forward(images - images.mean(dim=0))


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Net()

    def forward(self, images):
        return self.inner(images)


class LitNet(L.LightningModule):
    def __init__(self, width, num_classes=10):
        super().__init__()
        self.save_hyperparameters()
        self.model = nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(self.model(images))


@pytest.fixture
def images():
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def network_of(seed=0, cls=Net):
    torch.manual_seed(seed)
    return cls().eval()


def load(path, payload, cls="Net", **options):
    torch.save(payload, path)
    return load_target(str(path), architecture=f"{HERE}:{cls}", **options)


def same(target, network, images):
    with torch.inference_mode():
        torch.testing.assert_close(target.network(images), network(images))


class TestSets:
    @pytest.fixture
    def payload(self):
        plain, averaged = network_of(0).state_dict(), network_of(1).state_dict()
        return {"epoch": 3, "state_dict": plain, "state_dict_ema": averaged}

    def test_plain_set_is_taken_and_all_are_named(self, payload, images, tmp_path):
        target = load(tmp_path / "c.pt", payload)
        same(target, network_of(0), images)
        assert "state_dict, state_dict_ema" in target.notes[0]

    def test_option_selects(self, payload, images, tmp_path):
        same(load(tmp_path / "c.pt", payload, weights="state_dict_ema"), network_of(1), images)
        with pytest.raises(MIAError, match="choose one of: state_dict, state_dict_ema"):
            load(tmp_path / "c.pt", payload, weights="nothing")

    def test_teacher_and_student_by_prefix(self, payload, images, tmp_path):
        both = {f"teacher.{k}": v for k, v in payload["state_dict_ema"].items()}
        both |= {f"student.{k}": v for k, v in payload["state_dict"].items()}
        same(load(tmp_path / "c.pt", both), network_of(0), images)
        same(load(tmp_path / "c.pt", both, weights="teacher"), network_of(1), images)

    @pytest.mark.parametrize(
        "names", [("target", "online"), ("model_avg", "model"), ("shadow_model", "target_model"), ("pretrained", "net")]
    )
    def test_plain_set_has_precedence_in_any_order(self, names, images, tmp_path):
        sets = {name: network_of(seed).state_dict() for name, seed in zip(names, (1, 0), strict=True)}
        same(load(tmp_path / "c.pt", sets), network_of(0), images)

    def test_set_with_the_number_of_classes(self, images, tmp_path):
        sets = {"a": Net(7).state_dict(), "b": network_of(0).state_dict()}
        same(load(tmp_path / "c.pt", sets, num_classes=5), network_of(0), images)

    @pytest.mark.parametrize("form", [lambda weights: (weights, 3), lambda weights: {"networks": [weights]}])
    def test_weights_in_a_list(self, form, images, tmp_path):
        same(load(tmp_path / "c.pt", form(network_of(0).state_dict())), network_of(0), images)

    def test_equal_copies_are_one_set(self, payload, tmp_path):
        payload["state_dict_ema"] = payload["state_dict"]
        assert load(tmp_path / "c.pt", payload).notes == ()


PREFIXES = ["module.", "_module.", "_orig_mod.", "network.", "backbone.", "1.", "_orig_mod._module.", "a.b.c."]
ROOTS = ["state_dict", "weights", "params", "network", "ema", "target_model", "model_state", "model"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix(prefix, images, tmp_path):
    weights = {prefix + name: tensor for name, tensor in network_of().state_dict().items()}
    same(load(tmp_path / "c.pt", weights), network_of(), images)


@pytest.mark.parametrize("root", ROOTS)
def test_root(root, images, tmp_path):
    same(load(tmp_path / "c.pt", {root: network_of().state_dict(), "epoch": 7}), network_of(), images)


@pytest.mark.parametrize(
    "extra", [{"n_averaged": torch.tensor(5)}, {"criterion.weight": torch.ones(5)}, {"normalize.mean": torch.zeros(3)}]
)
def test_extra_names_are_left_out_and_named(extra, images, tmp_path):
    target = load(tmp_path / "c.pt", network_of().state_dict() | extra)
    same(target, network_of(), images)
    assert next(iter(extra)) in " ".join(target.notes)


def test_names_outside_of_the_prefix_are_named(images, tmp_path):
    weights = {f"model.{name}": tensor for name, tensor in network_of().state_dict().items()}
    target = load(tmp_path / "c.pt", weights | {"temperature": torch.ones(1), "n_averaged": torch.tensor(2)})
    same(target, network_of(), images)
    assert target.notes == ("c.pt: left out temperature, outside of 'model'",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"a,b\n1,2\n", "is a text file"), ("a: 1".encode("utf-16"), "is a text file"), (bytes(5000), "zeros only")],
)
def test_content_that_no_reader_takes_is_named(content, sentence, tmp_path):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(MIAError, match=sentence):
        load_target(str(tmp_path / "c.pt"), architecture=f"{HERE}:Net")


def test_unknown_layer_is_refused(tmp_path):
    with pytest.raises(MIAError, match=r"unexpected: block\.weight"):
        load(tmp_path / "c.pt", network_of().state_dict() | {"block.weight": torch.ones(4, 4)})


@pytest.mark.parametrize(("prefix", "head"), [("", "linear"), ("", "fc.1"), ("model.", "classifier")])
def test_resnet_of_other_names(prefix, head, tmp_path):
    from torchvision.models import resnet18

    network = resnet18(num_classes=3)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    state = {
        prefix + name.replace("fc.", f"{head}.").replace("downsample", "shortcut"): tensor
        for name, tensor in network.state_dict().items()
    }
    torch.save(state, tmp_path / "c.pt")
    target = load_target(str(tmp_path / "c.pt"), image_shape=(3, 16, 16))
    same(target, network.eval(), torch.rand(2, 3, 16, 16))
    assert any(f"{prefix}{head} is read as torchvision's fc" in note for note in target.notes)


@pytest.mark.parametrize(("others", "noted"), [((2, 3), True), ((3, 3), False)])
def test_note_of_tuple_with_other_values(others, noted):
    class Parts(nn.Module):
        def forward(self, x):
            return tuple(x.flatten(1)[:, :width] for width in others)

    notes = probed(Parts(), TargetForm(), [torch.randn(4, 3, 8, 8)], output="auto").notes
    assert any("a tuple, with 2, 3 values per record; the first is used" in note for note in notes) == noted


def test_wrapper_module_loads_wrapped_checkpoint(images, tmp_path):
    same(load(tmp_path / "c.pt", network_of().state_dict(), "Wrapper"), network_of(), images)


class Custom:
    """An object of a training script."""


BESIDE = {
    "array": np.arange(5.0),
    "generator": np.random.default_rng(0).bit_generator.state,
    "legacy_generator": np.random.RandomState(0).get_state(),
    "partial": functools.partial(max, 1),
    "date": datetime.datetime(2026, 1, 1),
    "delta": datetime.timedelta(1),
    "containers": defaultdict(list, a=[1]),
    "deque": deque([1, 2]),
    "object": Custom(),
    "loss": nn.CrossEntropyLoss(),
    "slice": slice(1, 2),
    "error": ValueError("diverged"),
}


@pytest.mark.parametrize(
    ("name", "zipped"),
    [(name, zipped) for name in BESIDE for zipped in (True, False) if zipped or name != "loss"],  # torch's old form
)  # stores the source of modules, which its safe loader refuses
def test_object_next_to_tensors(name, zipped, images, tmp_path):
    payload = {"state_dict": network_of().state_dict(), name: BESIDE[name]}
    torch.save(payload, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    same(load_target(str(tmp_path / "c.pt"), architecture=f"{HERE}:Net"), network_of(), images)


def test_lightning_module_from_hyper_parameters(images, tmp_path):
    module = LitNet(6, num_classes=4).eval()
    payload = {
        "state_dict": module.state_dict(),
        "hyper_parameters": {"width": 6, "num_classes": 4, "transform": functools.partial(max, 1)},
        "pytorch-lightning_version": L.__version__,
    }
    target = load(tmp_path / "c.ckpt", payload, "LitNet")
    same(target, module, images)
    assert (target.num_classes, target.feature_layer) == (4, "head")


class TestOutputs:
    @pytest.mark.parametrize("cls", ["Softmax", "LogSoftmax", "AsDict", "AsTuple"])
    def test_logits_up_to_a_constant(self, cls, images, tmp_path):
        target = load(tmp_path / "c.pt", network_of().state_dict(), cls)
        with torch.inference_mode():
            expected, logits = network_of()(images).log_softmax(1), target.network(images)
        torch.testing.assert_close(logits.log_softmax(1), expected, rtol=1e-4, atol=1e-5)
        assert logits.dtype == torch.float32
        assert any("probabilities" in note for note in target.notes) == cls.endswith("Softmax")

    @pytest.mark.parametrize("cls", ["OneLogit", "Squeezed", "Sigmoid"])
    def test_one_value_for_two_classes(self, cls, images, tmp_path):
        single = network_of(cls=OneLogit)
        target = load(tmp_path / "c.pt", single.state_dict(), cls)
        with torch.inference_mode():
            logits = target.network(images)
            torch.testing.assert_close(logits[:, 1] - logits[:, 0], single(images)[:, 0], rtol=1e-4, atol=1e-5)
        assert target.num_classes == 2
        assert target.notes

    @pytest.mark.parametrize("wrapped", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
    def test_arrays_of_numpy(self, wrapped, images, tmp_path):
        network = network_of()
        state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        target = load(tmp_path / "c.pt", wrapped(state))
        with torch.inference_mode():
            torch.testing.assert_close(target.network(images), network(images))

    @pytest.mark.parametrize(("cls", "kind"), [("LogTwo", "log2_probabilities"), ("LogTen", "log10_probabilities")])
    def test_log_probabilities_of_another_base(self, cls, kind, images, tmp_path):
        path, state = tmp_path / "c.pt", network_of().state_dict()
        target = load(path, state, cls)
        with torch.inference_mode():
            torch.testing.assert_close(target.network(images), network_of()(images).log_softmax(1))
        assert any(f"base {2 if cls == 'LogTwo' else 10}" in note for note in target.notes)
        assert load(path, state, cls, output=kind).form == target.form
        with pytest.raises(MIAError, match=f"--target.output {kind} does"):
            load(path, state, cls, output="log_probabilities")

    def test_contradiction_is_refused(self, tmp_path):
        with pytest.raises(MIAError, match=r"--target\.output probabilities does not fit"):
            load(tmp_path / "c.pt", network_of().state_dict(), output="probabilities")

    def test_saturation(self, images, tmp_path):
        network = network_of()
        network.fc.weight.data *= 1e6
        target = load(tmp_path / "c.pt", network.state_dict(), "Softmax")
        assert "one-hot labels" in saturation(target.network, images)
        assert saturation(load(tmp_path / "c.pt", network_of().state_dict(), "Softmax").network, images) is None

    def test_top_class_only(self, images, tmp_path):
        target = load(tmp_path / "c.pt", network_of().state_dict(), "TopClass")
        assert "only the predicted class has a confidence" in saturation(target.network, images)
        assert saturation(network_of(), images) is None

    def test_class_numbers_are_refused(self, tmp_path):
        with pytest.raises(MIAError, match="returns whole float32 values, class numbers rather than logits"):
            load(tmp_path / "c.pt", network_of().state_dict(), "ClassNumber")

    @pytest.mark.parametrize(("cls", "word"), [("Dropout", "dropout"), ("BatchStatistics", "batch")])
    def test_nondeterminism(self, cls, word, images, tmp_path):
        target = load(tmp_path / "c.pt", network_of().state_dict(), cls)
        assert word in nondeterminism(target.network, images)
        assert nondeterminism(network_of(), images) is None


@pytest.mark.parametrize("order", [(0, 1), (0, 0, 1, 2, 3), (5, 0, 1, 2, 3), (-1, 0, 1, 2, 3)])
def test_impossible_order_of_classes(order, tmp_path):
    with pytest.raises(MIAError, match=r"--target\.class_order must contain each of 0 to 4 once"):
        load(tmp_path / "c.pt", network_of().state_dict(), class_order=order)


def test_num_classes(tmp_path):
    weights = OrderedDict(network_of().state_dict())
    assert load(tmp_path / "c.pt", weights, num_classes=5).num_classes == 5
    with pytest.raises(MIAError, match=r"has 5 classes, but --target\.num_classes is 7"):
        load(tmp_path / "c.pt", weights, num_classes=7)


def test_a_module_of_another_name_is_read_and_noted(tmp_path, images):
    state = network_of().state_dict()
    last = list(state)[-1].rpartition(".")[0]
    target = load(tmp_path / "c.pt", {f"model.{name.replace(last, 'odd_head')}": state[name] for name in state})
    same(target, network_of(), images)
    assert target.notes[-1] == f"c.pt: its module 'odd_head' is read as {last!r}"


@pytest.mark.parametrize(
    ("ends", "call"),
    [
        (("parametrizations.weight.original0", "parametrizations.weight.original1"), "remove_parametrizations"),
        (("weight_orig", "weight_mask"), "prune.remove"),
        (("lora_A", "lora_B"), "merge_and_unload"),
    ],
)
def test_weights_that_a_library_split_name_the_call(ends, call, tmp_path):
    state = network_of().state_dict()
    last = list(state)[-1].rpartition(".")[0]
    matrix = state.pop(f"{last}.weight")
    with pytest.raises(MIAError, match=rf"before saving, call .*{call}"):
        load(tmp_path / "c.pt", state | {f"{last}.{end}": matrix for end in ends})
