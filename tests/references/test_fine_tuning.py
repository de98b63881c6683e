"""References that start from the target's weights."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from mia_lightning import MIAError, audit, load_config
from mia_lightning.pipeline.requirements import check_requirements
from mia_lightning.references.config import ReferenceTraining

CLASSES, SIDE = 3, 6


class Network(nn.Module):
    """A small network of one hidden layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8), nn.ReLU())
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, images):
        return self.fc(self.body(images))


def references(network=None, **options):
    draw = np.random.default_rng(0)
    images, labels = draw.normal(size=(80, 3, SIDE, SIDE)).astype(np.float32), draw.integers(0, CLASSES, 80)
    torch.manual_seed(0)
    training = {"start": "target", "epochs": 1, "batch_size": 10, **options}
    attack = {"phi_threshold": {"class_path": "Threshold"}}
    signals = {"names": ["phi"]}
    difficulty = {"difficulty": {"class_path": "PerReferenceDifference"}}
    settings = {"count": 2, "queries": 1, "accuracy_tolerance": 1, "training": training, "scores": difficulty}
    result = audit(
        network or Network(), (images[:40], labels[:40]), (images[40:], labels[40:]), references=settings,
        attacks=attack, signals=signals, extraction={"queries": 1},
    ).result  # fmt: skip
    return result.reference_outputs


def test_without_a_step_that_matters_a_copy_is_the_target():
    outputs = references(learning_rate=1e-12)
    assert outputs.keep.sum(axis=0).tolist() == [1] * 80
    for phi in outputs.references:
        np.testing.assert_allclose(phi, outputs.target, atol=1e-5)


def test_copies_learn_their_half_and_the_target_stays():
    network = Network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    outputs = references(network, learning_rate=0.05, epochs=20, precision="32-true")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    gain = (outputs.references - outputs.target).mean(axis=2)
    assert gain[outputs.keep].mean() > gain[~outputs.keep].mean() + 0.5


def test_frozen_layers_are_fine_tuned_too():
    network = Network()
    network.body.requires_grad_(False)
    outputs = references(network, learning_rate=0.05, epochs=3)
    assert np.abs(outputs.references - outputs.target).mean() > 0.01


def test_random_start_keeps_the_names_of_stored_references():
    assert "start" not in ReferenceTraining().key_inputs()
    assert ReferenceTraining(start="target").key_inputs()["start"] == "target"


@pytest.mark.parametrize("class_path", ["head", "package.module:Net"])
def test_own_training_from_the_target_is_refused(class_path):
    with pytest.raises(ValueError, match=r"start target .*leave --references\.training\.class_path out"):
        ReferenceTraining(start="target", class_path=class_path)


def test_another_architecture_is_refused():
    with pytest.raises(MIAError, match=r"start target .*leave --references\.architecture out"):
        audit(
            Network(), (torch.rand(40, 3, SIDE, SIDE), torch.arange(40) % CLASSES),
            (torch.rand(40, 3, SIDE, SIDE), torch.arange(40) % CLASSES),
            references={"count": 2, "architecture": "resnet18", "training": {"start": "target", "batch_size": 10}},
        )  # fmt: skip


def test_scores_of_independent_references_are_refused():
    labels = torch.arange(40) % CLASSES
    sides = [(torch.rand(40, 3, SIDE, SIDE), labels) for _ in range(2)]
    scores = {"difficulty": {"class_path": "PerReferenceDifference"}, "lira": {"class_path": "LiRA"}}
    settings = {"count": 4, "scores": scores, "training": {"start": "target", "batch_size": 10}}
    with pytest.raises(MIAError, match=r"start target .*--references\.scores\.lira \(LiRA\)"):
        audit(Network(), *sides, references=settings)


def test_copies_are_no_targets_of_each_other():
    with pytest.raises(MIAError, match=r"--evaluation\.targets .*--references\.training\.start target"):
        check_requirements(load_config("fine_tuned", evaluation={"targets": "all"}))


def test_configuration_differs_from_small_references_in_training_alone():
    small, tuned = load_config("small_references"), load_config("fine_tuned")
    check_requirements(tuned)
    assert tuned.references.architecture is None
    assert tuned.attacks == small.attacks
    changed = {
        name
        for name, value in asdict(tuned.references.training).items()
        if value != getattr(small.references.training, name)
    }
    assert changed <= {"start", "epochs", "learning_rate", "batch_size"}
