"""Heads on fixed features: the stacked problem is K separate ones, and its references attack as others do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from mia_lightning import MIAError, audit, load_config
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.stacked_heads import StackedHeads, fit
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData

N, D, C = 120, 8, 3
SIDE = 6


def linear(seed, classes=C):
    torch.manual_seed(seed)
    return nn.Linear(D, classes)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    features = torch.tensor(rng.normal(size=(2, N, D)), dtype=torch.float32)
    labels = rng.integers(0, C, N)
    material = TrainingData(features[0].numpy(), labels, (), (), C, queries=1, order=rng.permutation(N))
    return features, material, torch.tensor(rng.random((5, N)) < 0.5)


def cross_entropy(logits, labels):
    """Return the loss of classes, or with labels (B, C), and of a single logit, that of independent labels."""
    if logits.shape[1] > 1 and labels.ndim == 1:
        return F.cross_entropy(logits, labels, label_smoothing=0.1)
    smooth = labels.reshape(len(logits), -1) * 0.9 + 0.05
    return F.binary_cross_entropy_with_logits(logits, smooth, reduction="none").sum(dim=1).mean()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", ["classes", "labels", "one logit"])
def test_stacked_heads_equal_separate_fits(problem, optimizer, kind):
    features, material, keep = problem
    several, classes = np.random.default_rng(1).integers(0, 2, (N, C)), 1 if kind == "one logit" else C
    labels = {"classes": material.labels, "labels": several, "one logit": several[:, 0]}[kind]
    material = replace(material, labels=labels)
    recipe = ReferenceTraining(
        epochs=4, batch_size=12, optimizer=optimizer, schedule="constant", learning_rate=0.05, label_smoothing=0.1
    )
    heads = [linear(k, classes) for k in range(len(keep))]
    stack = StackedHeads(heads)
    fit(stack, features, material, keep, recipe, seed=3, device="cpu")
    size = round(12 / float(keep.float().mean()))
    for k, head in enumerate(heads):
        if optimizer == "sgd":
            step = torch.optim.SGD(head.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        else:
            step = torch.optim.AdamW(head.parameters(), 0.05, weight_decay=5e-4)
        for epoch in range(4):
            draw = torch.Generator().manual_seed(int(np.random.SeedSequence((3, epoch)).generate_state(1)[0]))
            order = torch.tensor(material.order)[torch.randperm(N, generator=draw)]
            view = (torch.rand(N, generator=draw) < 0.5).long()
            for start in range(0, N // size * size, size):
                rows, views = order[start : start + size], view[start : start + size]
                rows, views = rows[keep[k, rows]], views[keep[k, rows]]
                loss = cross_entropy(head(features[views, rows]), torch.tensor(material.labels)[rows])
                step.zero_grad()
                loss.backward()
                step.step()
        for name, tensor in stack.state_of(k).items():
            torch.testing.assert_close(tensor, getattr(head, name).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_several", [False, True])
def test_single_head_equals_the_built_in_training(problem, tmp_path, has_several):
    features, material, _ = problem
    if has_several:
        material = replace(material, labels=np.random.default_rng(1).integers(0, 2, (N, C)))
    recipe = ReferenceTraining(epochs=3, batch_size=16)
    stack = StackedHeads([linear(0)])
    everything = torch.ones(1, N, dtype=torch.bool)
    fit(stack, features[:1], material, everything, recipe, seed=1, device="cpu")
    alone = train_reference(
        linear(0), material, everything[0].numpy(), recipe, seed=1, checkpoint=tmp_path / "c", device="cpu"
    )
    for name, tensor in stack.state_of(0).items():
        torch.testing.assert_close(tensor, alone.state_dict()[name], rtol=1e-4, atol=1e-5)


class Net(nn.Module):
    """A convolutional backbone and a linear head."""

    def __init__(self, num_classes=4):
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3, padding=1)
        self.fc = nn.Linear(12 * SIDE * SIDE, num_classes)

    def forward(self, images):
        return self.fc(self.conv(images).relu().flatten(1))


@pytest.fixture(scope="module")
def fine_tuned():
    """Return a network whose head alone was trained, on the first half of the records."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((240, 1, SIDE, SIDE), dtype=np.float32), rng.integers(0, 4, 240)
    torch.manual_seed(0)
    model = Net()
    model.conv.requires_grad_(False)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        for rows in torch.randperm(120).split(20):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.tensor(images[rows])), torch.tensor(labels[rows])).backward()
            optimizer.step()
    return model.eval(), images, labels


RECIPE = {"epochs": 40, "batch_size": 20, "learning_rate": 0.05, "schedule": "constant", "weight_decay": 0.0}


def test_lira_by_heads_beats_the_targets_own_signal(fine_tuned):
    model, images, labels = fine_tuned
    sides = (images[:120], labels[:120]), (images[120:], labels[120:])
    options = {"evaluation": {"folds": 2}, "extraction": {"queries": 1}}
    result = audit(model, *sides, references={"count": 32, "training": RECIPE | {"flip": False}}, **options)
    assert all(parameter.requires_grad for parameter in model.fc.parameters())
    lira, alone = (result.attacks[name].public.auc for name in ("lira_threshold", "phi_threshold"))
    assert lira > alone + 0.03
    assert [check.status for check in result.result.fidelity] == ["passed"] * 3


def test_heads_of_the_command_line_are_those_of_the_network(fine_tuned, tmp_path):
    model, images, labels = fine_tuned
    torch.save(model.state_dict(), tmp_path / "model.pt")
    np.savez(tmp_path / "records.npz", images=images, labels=labels, membership=(np.arange(240) < 120).astype(int))

    def config(count):
        return load_config(
            output=str(tmp_path / "run"),
            cache_dir=str(tmp_path / "store"),
            data={"public": str(tmp_path / "records.npz"), "mean": [0.5], "std": [0.25]},
            target={"checkpoint": str(tmp_path / "model.pt"), "architecture": f"{__name__}:Net"},
            signals={"names": ["standard"]},
            extraction={"queries": 18},
            evaluation={"folds": 2},
            references={
                "count": count,
                "queries": 18,
                "training": {"class_path": "head", "epochs": 2, "batch_size": 20},
            },
        )

    first = audit(config(2))
    files = sorted((tmp_path / "store").rglob("references/*/*.safetensors"))
    written = [file.stat().st_mtime_ns for file in files]
    second = audit(config(4))
    assert [file.stat().st_mtime_ns for file in files] == written
    outputs = second.reference_outputs
    np.testing.assert_array_equal(outputs.references[:2], first.reference_outputs.references)
    material = TrainingData(images, labels, (0.5,), (0.25,), 4, queries=18)
    for k, file in enumerate(sorted((tmp_path / "store").rglob("references/*/*.safetensors"))):
        model.fc.load_state_dict(load_file(file))
        direct = compute_phi(model, material, device="cpu")
        np.testing.assert_allclose(outputs.references[k], direct.phi, atol=1e-4)
        assert second.references[k].accuracy_in == pytest.approx(direct.correct[outputs.keep[k]].mean())


def test_frozen_networks_that_do_not_end_with_their_head_are_trained_as_they_are():
    rng = np.random.default_rng(0)
    sides = [(rng.random((40, 1, SIDE, SIDE), dtype=np.float32), rng.integers(0, 2, 40)) for _ in range(2)]
    model = Net(num_classes=1)  # one logit, that of class 1
    model.conv.requires_grad_(False)
    references = {"count": 2, "training": {"epochs": 1, "batch_size": 20}}
    result = audit(model, *sides, references=references, evaluation={"folds": 2}, extraction={"queries": 1})
    assert [row.status for row in result.result.references] == ["trained"] * 2


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU()), {}, "not those of its last linear layer"),
        (nn.Sequential(nn.Conv2d(1, 4, SIDE), nn.Flatten()), {}, "needs a network whose last layer is linear"),
        (lambda batch: batch.reshape(len(batch), -1)[:, :4], {}, "needs a network whose last layer is linear"),
        (Net(), {"workers": 2}, "leave --references.workers at 0"),
        (Net(), {"architecture": "resnet18"}, "leave --references.architecture out"),
        (Net(), {"training": {"class_path": "head", "shift": 2}}, "leave --references.training.shift at 0"),
        (Net(), {"trainer": {"max_epochs": 2}}, "trains LightningModules only"),
        (Net(), {"training": {"class_path": "heads"}}, "built_in or head"),
    ],
)
def test_heads_that_cannot_be_trained_are_refused(model, options, words):
    rng = np.random.default_rng(0)
    sides = [(rng.random((40, 1, SIDE, SIDE), dtype=np.float32), rng.integers(0, 4, 40)) for _ in range(2)]
    references = {"count": 4, "training": {"class_path": "head"}} | options
    with pytest.raises(MIAError, match=words):
        audit(model, *sides, references=references, evaluation={"folds": 2})
