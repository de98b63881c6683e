"""References by the user's own training: LightningModules, functions, mistakes."""

import os
import random
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import own_training
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.records.records import Records
from mia_lightning.references import lightning_training
from mia_lightning.references.checks import check_references
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.fitting import fit_reference
from mia_lightning.references.networks import network_of
from mia_lightning.references.training import DivergedError, SmallConvolution
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.user_training import code_digest, resolved_training, training_inputs, untrainable_module
from mia_lightning.runtime.interruption import Interrupted, interruptible
from mia_lightning.targets import load_target
from mia_lightning.targets.base import Target, TargetForm

HERE = "helpers.own_training"
N = 80


def material(seed=0):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)
    return TrainingData(images, draw.integers(0, 4, N), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 4, 1)


def target(name="Lit", epochs=None, form=None, hyper_parameters=None):
    torch.manual_seed(5)
    network = getattr(own_training, name)()
    form, saved = form or TargetForm(), hyper_parameters or {}
    return Target(network, 4, None, f"{HERE}:{name}", "d", form=form, hyper_parameters=saved, epochs=epochs)


def config(name="Lit", trainer=None, **training):
    training = {"class_path": f"{HERE}:{name}", "batch_size": 16, "epochs": 3} | training
    return ReferencesConfig(count=2, training=ReferenceTraining(**training), trainer=trainer or {})


def fitted(tmp_path, config, of=None, seed=1, on_epoch=None, keep=None):
    of = of or target()
    network = network_of(config, of)(seed)
    keep = np.arange(N) % 2 == 0 if keep is None else keep
    training = resolved_training(config, of)
    return fit_reference(
        network,
        material(),
        keep,
        training,
        config.trainer,
        seed=seed,
        checkpoint=tmp_path / "c",
        device="cpu",
        on_epoch=on_epoch,
    )


def check(config, of=None):
    records = Records(np.arange(N), material().images, material().labels, (np.arange(N) % 2).astype(np.int8), "public")
    check_references(config, target=of or target(), public=records, private=None, extraction_queries=1, seed=0)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(("killed_after", "number"), [(1, signal.SIGUSR1), (2, signal.SIGTERM)])
def test_resumed_module_equals_uninterrupted(tmp_path, monkeypatch, killed_after, number):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    config_ = config(trainer={"gradient_clip_val": 1.0})
    straight = fitted(tmp_path / "a", config_)

    def kill(epoch, loss):
        assert np.isfinite(loss)
        if epoch == killed_after:
            signal.raise_signal(number)

    with pytest.raises(Interrupted), interruptible():
        fitted(tmp_path / "b", config_, on_epoch=kill)
    epochs = []
    torch.manual_seed(99)  # global states of the second process are others
    resumed = fitted(tmp_path / "b", config_, on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == list(range(killed_after + 1, 4))
    assert same(straight, resumed)
    assert not same(straight, fitted(tmp_path / "b" / "new", config_, seed=2))
    assert os.listdir() == []


def test_global_random_states_stay(tmp_path):
    of = target()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    fitted(tmp_path, config(epochs=1), of=of)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[2] == random.getstate()


def test_damaged_checkpoint_starts_from_the_beginning(tmp_path, caplog):
    (tmp_path / "c").write_bytes(b"damaged" * 20)
    epochs = []
    fitted(tmp_path, config(), on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == [1, 2, 3]
    assert "starts from the beginning" in caplog.text


def test_callbacks_and_transform(tmp_path):
    callbacks = [{"class_path": f"{HERE}.Counter", "init_args": {"limit": 100}}]
    biased = fitted(tmp_path / "a", config(epochs=1, trainer={"callbacks": callbacks}))
    assert (biased.network[-1].bias > 90).all()
    plain = fitted(tmp_path / "b", config(epochs=1))
    augmented = fitted(tmp_path / "c", config(epochs=1, transform=f"{HERE}:augment"))
    assert not same(plain, augmented)
    assert same(augmented, fitted(tmp_path / "d", config(epochs=1, transform=f"{HERE}:augment")))


def test_module_gets_the_inputs_of_the_network(tmp_path):
    """Its training step sees resized images and the network's own order of classes."""
    form = TargetForm(resize=8, class_order=(1, 2, 3, 0))
    seen = []

    class Spy(own_training.Lit):
        def training_step(self, batch, batch_idx):
            seen.append(batch)
            return super().training_step(batch, batch_idx)

    own_training.Spy = Spy
    try:
        fitted(tmp_path, config("Spy", epochs=1), of=target("Spy", form=form))
    finally:
        del own_training.Spy
    images, labels = (torch.cat(part) for part in zip(*seen, strict=True))
    assert images.shape == (32, 3, 8, 8)
    stored = material()
    order = np.array(form.class_order)
    allowed = {order[label] for label in stored.labels[::2]}
    assert set(labels.tolist()) <= allowed
    mean = (stored.images[::2] / 255 - np.array(stored.mean)[:, None, None]) / np.array(stored.std)[:, None, None]
    rows = [np.abs(mean - image.numpy()).max(axis=(1, 2, 3)).argmin() for image in images]
    assert len(set(rows)) == 32
    np.testing.assert_array_equal(order[stored.labels[::2][rows]], labels)


def test_small_convolutions_of_a_module_change_its_speed_alone(tmp_path, monkeypatch):
    class Pooled(own_training.Lit):
        def __init__(self, num_classes=4):
            super().__init__(num_classes)
            convolution = nn.Conv2d(3, 8, 3, padding=1)
            self.network = nn.Sequential(nn.AvgPool2d(8), convolution, nn.Flatten(), nn.Linear(8, num_classes))

    monkeypatch.setattr(own_training, "Pooled", Pooled, raising=False)
    (tmp_path / "b").mkdir()
    fast = fitted(tmp_path, config("Pooled"), of=target("Pooled"))
    assert sum(isinstance(module, SmallConvolution) for module in fast.modules()) == 1
    monkeypatch.setattr(lightning_training, "with_small_convolutions", lambda module, shape: module)
    plain = fitted(tmp_path / "b", config("Pooled"), of=target("Pooled"))
    assert not any(isinstance(module, SmallConvolution) for module in plain.modules())
    torch.testing.assert_close(fast.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("views", [False, True])
def test_convolutions_of_a_module_are_channels_last_where_its_forward_allows_it(tmp_path, monkeypatch, views):
    class Views(own_training.Lit):
        def __init__(self, num_classes=4):
            super().__init__(num_classes)
            self.convolution, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, num_classes)

        def forward(self, images):
            maps = self.convolution(images)
            return self.fc(maps.view(len(maps), -1) if views else maps.flatten(1))

    monkeypatch.setattr(own_training, "Views", Views, raising=False)
    trained = fitted(tmp_path, config("Views", epochs=1), of=target("Views"))
    assert trained.convolution.weight.is_contiguous() == views


def test_function(tmp_path):
    losses = []
    of = replace(target(), architecture="helpers.own_training:Lit")
    config_ = config("train", init_args={"epochs": 2})
    first = fitted(tmp_path, config_, of=of, on_epoch=lambda *epoch: losses.append(epoch))
    assert [epoch for epoch, _ in losses] == [1, 2]
    torch.manual_seed(7)
    assert same(first, fitted(tmp_path, config_, of=of))
    assert not same(first, fitted(tmp_path, config("train", init_args={"lr": 0.1}), of=of))


def test_module_takes_the_targets_network(tmp_path):
    of = Target(nn.Sequential(), 4, None, "resnet18 (CIFAR stem)", "d")
    network = network_of(config("Around"), of)(0)
    assert network.network.fc.out_features == 4
    check(config("Around", init_args={"lr": 0.01}), of=of)


def test_target_module_is_the_default(tmp_path):
    """`--target.architecture Lit --target.checkpoint model.ckpt --references.count 16` is all there is to type."""
    import lightning as L

    module = own_training.Lit(width=4, batch_size=20)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False, logger=True
    )
    data = torch.utils.data.TensorDataset(torch.randn(40, 3, 8, 8), torch.arange(40) % 4)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=20))
    for name, epochs in (("after.ckpt", 2),):
        trainer.save_checkpoint(tmp_path / name)
        loaded = load_target(str(tmp_path / name), architecture=f"{HERE}:Lit")
        training = resolved_training(ReferencesConfig(count=2), loaded)
        assert training.class_path == f"{HERE}:Lit"
        assert training.counts() == (epochs, 20)
    saved = next((tmp_path / "lightning_logs").rglob("*.ckpt"))  # by ModelCheckpoint, within an epoch's end
    assert load_target(str(saved), architecture=f"{HERE}:Lit").epochs in (1, 2)
    network = network_of(ReferencesConfig(count=2), loaded)(0)
    assert network.hparams.width == 4
    built_in = ReferencesConfig(count=2, training=ReferenceTraining(class_path="built_in"))
    assert resolved_training(built_in, loaded).is_built_in


def test_module_that_cannot_train(tmp_path):
    of = target("NoStep")
    assert resolved_training(ReferencesConfig(count=2), of).is_built_in
    assert "helpers.own_training:NoStep has no training_step" in untrainable_module(ReferencesConfig(count=2), of)
    assert untrainable_module(ReferencesConfig(count=2), target()) is None


def test_loss_that_is_not_finite(tmp_path):
    with pytest.raises(DivergedError, match="loss became nan in epoch 1"):
        fitted(tmp_path, config("Diverging"), of=target("Diverging"))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("NoStep", {}, r"has no training_step; add the method that returns the loss"),
        ("NoOptimizer", {}, r"has no configure_optimizers; add the method that returns the optimizer"),
        ("OfDictionary", {}, r"TypeError: .*\(own_training.py, line \d+\); a batch is \(images, labels\)"),
        ("Features", {}, r"its forward returns \(2, 32\) for 2 images; it must return logits \(2, 4\)"),
        ("NotLightning", {}, r"is not a LightningModule; give one, or a function train\("),
        ("train_of_two", {}, r"it is called as train\(network, dataset, seed, on_epoch, \*\*init_args\)"),
        ("Lit", {"init_args": {"learning_rate": 1}}, r"has no argument 'learning_rate'; "),
        ("Lit", {"init_args": {"width": "x"}}, r"class_path helpers.own_training:Lit: calling it failed: TypeError"),
        ("Lit", {"trainer": {"max_epoch": 3}}, r"--references.trainer.max_epoch: .* no such option; did you mean"),
        ("Lit", {"trainer": {"devices": 2}}, r"--references.trainer.devices is set by the run; use --references.gpus"),
        ("Lit", {"trainer": {"precision": "7"}}, r"--references.trainer: .*change or remove the option"),
        ("Lit", {"trainer": {"max_epochs": 3}}, r"both given; give one"),
        ("Lit", {"trainer": {"max_epochs": -1}, "epochs": None}, r"max_epochs must be at least 1, got -1"),
        ("Lit", {"trainer": {"callbacks": [3]}}, r"callbacks: expected a list of \{class_path"),
        ("Lit", {"trainer": {"callbacks": [f"{HERE}.train"]}}, r"callbacks helpers.own_training.train: calling it fai"),
        ("Lit", {"trainer": {"callbacks": [f"{HERE}.NotLightning"]}}, r"is not a Callback"),
        ("Lot", {}, r"has no class or function 'Lot'"),
        ("Lit", {"batch_size": 64}, r"lower --references.training.batch_size"),
        ("Lit", {"class_path": "Lit"}, r"must be written as package.module:NAME, built_in or head"),
        ("Lit", {"transform": f"{HERE}:network"}, r"class_path helpers.own_training:Lit: "),
    ],
)
def test_mistakes(name, options, sentence):
    with pytest.raises(MIAError, match=sentence) as raised:
        check(config(name, **options))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("train_nothing", "returned NoneType; return the trained network"),
        ("train_other", "other weights than the network"),
        ("train_wrong", r"AttributeError: .*own_training.py, line \d+\); the dataset returns \(image, label\)"),
        ("Late", r"KeyError: .*no such weight"),
    ],
)
def test_mistakes_that_training_shows(tmp_path, name, sentence):
    of = target("Late" if name == "Late" else "Lit")
    check(config(name), of=of)
    with pytest.raises(MIAError, match=sentence):
        fitted(tmp_path, config(name), of=of)


def test_trainer_without_module():
    of = Target(nn.Sequential(), 4, None, "resnet18 (CIFAR stem)", "d")
    with pytest.raises(MIAError, match=r"--references.trainer.max_epochs is an option of Lightning's Trainer"):
        check(ReferencesConfig(count=2, trainer={"max_epochs": 3}), of=of)
    with pytest.raises(ValueError, match="init_args belongs to training of your own"):
        ReferenceTraining(init_args={"lr": 1})


def test_digest_of_code_follows_imports(tmp_path, monkeypatch):
    package = tmp_path / "mine_digest"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text("SCALE = 1\n")
    (package / "unrelated.py").write_text("X = 1\n")
    (package / "model.py").write_text("from .losses import SCALE\nimport torch\nclass Lit: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    importlib.import_module("mine_digest.model")
    before = code_digest("mine_digest.model:Lit")
    (package / "unrelated.py").write_text("X = 2\n")
    assert code_digest("mine_digest.model:Lit") == before
    (package / "losses.py").write_text("SCALE = 2\n")
    assert code_digest("mine_digest.model:Lit") != before


def test_key_of_the_store():
    """What changes the weights changes the key; a recipe of before keeps its key."""
    base = training_inputs(config().training, {})
    assert training_inputs(config(init_args={"lr": 0.1}).training, {}) != base
    assert training_inputs(config().training, {"precision": "bf16-mixed"}) != base
    assert training_inputs(config(learning_rate=0.3).training, {}) == base  # not used
    built_in = training_inputs(ReferenceTraining(), {})["training"]
    assert "class_path" not in built_in
    assert (built_in["epochs"], built_in["batch_size"]) == (20, 256)


def test_run_with_own_training(tmp_path, monkeypatch):
    """From the command line to the references' accuracy; a second run trains nothing, another rate trains again."""
    from mia_lightning import audit
    from mia_lightning.config.command_line import parse_arguments

    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "7")
    monkeypatch.setattr("mia_lightning.targets.demo.EPOCHS", 3)
    words = (
        "--config demo --config fast.yaml --references.count 2 --extraction.queries 1 "
        "--references.architecture mia_lightning.targets.demo:digits_network "
        f"--references.training.class_path {HERE}:DigitsLit --references.training.init_args.lr 2e-1 "
        "--references.training.batch_size 128 --references.trainer.max_epochs 1"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast.yaml").write_text(
        "attacks: {mlp: null, lightgbm: null, fusion: null, gaussian: null, class_p_value: null}\n"
        "submission: {attack: null}\nsignals: {names: [phi, loss]}\noutput: run\n"
    )
    parsed = parse_arguments(words.split())
    assert parsed.references.training.init_args == {"lr": 0.2}
    assert parsed.references.trainer == {"max_epochs": 1}
    result = audit(parsed)
    assert [row.status for row in result.references] == ["trained"] * 2
    assert result.references[0].accuracy_in > 0.2
    again = audit(parsed)
    assert again.references == result.references
    assert set(os.listdir()) == {"fast.yaml", ".store"}


def test_search_over_arguments_of_the_module():
    from mia_lightning.config.command_line import load_config
    from mia_lightning.search.space import Space

    training = {"class_path": f"{HERE}:Lit", "epochs": 3}
    run = load_config("demo", references={"count": 2, "training": training})
    names = ("references.training.init_args.lr", "references.trainer.gradient_clip_val", "references.training.epochs")
    described = {
        names[0]: {"dist": "loguniform", "low": 1e-3, "high": 1e-1},
        names[1]: {"dist": "choice", "values": [0.5, None]},
        names[2]: {"dist": "int", "low": 1, "high": 4},
    }
    space = Space(run, described, roots=("references.training", "references.trainer"))
    references = space.apply({names[0]: 0.01, names[1]: 0, names[2]: 2}).references
    assert references.training.init_args == {"lr": 0.01}
    assert references.trainer == {"gradient_clip_val": 0.5}
    assert references.training.epochs == 2
    assert run.references.training.init_args == {}
