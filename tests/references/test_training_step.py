"""The recorded training step: one network for all references, equal to training each by itself."""

import numpy as np
import pytest
import torch

from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.training_step import DeviceSession

RNG = np.random.default_rng(0)
DATA = TrainingData(
    RNG.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8), RNG.integers(0, 3, 40), (0.5,) * 3, (0.25,) * 3, 3, 2
)


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(256, 3)
    )


def trained(folder, seed, recipe, session=None):
    keep = np.arange(40) % 2 == seed
    options = {"seed": seed, "checkpoint": folder / str(seed), "device": "cpu", "session": session}
    return train_reference(network(seed), DATA, keep, recipe, **options)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_references_of_a_recorded_step_equal_those_trained_alone(tmp_path, optimizer):
    recipe = ReferenceTraining(epochs=2, batch_size=8, optimizer=optimizer, learning_rate=0.01, shift=1)
    recordings = []

    def record(run):
        run()  # a warm-up, which changes running statistics
        recordings.append(run)
        return run

    session = DeviceSession(DATA, record=record)
    for seed in (0, 1):
        reference = trained(tmp_path, seed, recipe, session)
        (tmp_path / str(seed)).unlink()
        alone = trained(tmp_path, seed, recipe)
        for name, tensor in alone.state_dict().items():
            assert torch.equal(reference.state_dict()[name], tensor), name
        phi = [
            compute_phi(reference, DATA, device="cpu", session=session).phi,
            compute_phi(alone, DATA, device="cpu").phi,
        ]
        np.testing.assert_array_equal(*phi)
    assert len(recordings) == 1


def test_a_step_that_cannot_be_recorded_is_run_operation_by_operation(tmp_path, caplog):
    def record(run):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    caplog.set_level("INFO")
    recipe = ReferenceTraining(epochs=1, batch_size=8)
    session = DeviceSession(DATA, record=record)
    reference, alone = trained(tmp_path, 0, recipe, session), trained(tmp_path, 0, recipe)
    assert "is not recorded as a CUDA graph: RuntimeError: operation not permitted" in caplog.text
    assert all(map(torch.equal, reference.state_dict().values(), alone.state_dict().values()))
