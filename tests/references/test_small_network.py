"""Small networks as references: any image, any target, only what they add to the configuration without references."""

import numpy as np
import pytest
import torch

from mia_lightning import load_config
from mia_lightning.pipeline.requirements import check_requirements
from mia_lightning.references.columns import reference_columns
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.small_network import SmallNetwork
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (4, 40, 24)])
def test_logits_of_any_image(shape):
    network = SmallNetwork(7).eval()
    images = torch.rand(2, *shape)
    logits = network(images)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(network(images[:1]), logits[:1])


def test_gray_is_read_as_equal_channels():
    network, gray = SmallNetwork(3).eval(), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(network(gray), network(gray.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_trains_in_few_steps(epochs, tmp_path):
    """Two steps an epoch; with two epochs exactly one of them is warm-up, over whose length the schedule divides."""
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8)).astype(np.uint8)
    data = TrainingData(images, np.arange(16) % 3, (0.5,) * 3, (0.25,) * 3, 3, 2)
    recipe = ReferenceTraining(epochs=epochs, batch_size=4)
    keep = np.arange(16) < 8
    network = SmallNetwork(3)
    train_reference(network, data, keep, recipe, seed=0, checkpoint=tmp_path / "small.ckpt", device="cpu")
    assert np.isfinite(compute_phi(network, data, device="cpu").phi).all()


def test_configuration_adds_difficulty_alone():
    plain, small = load_config("no_reference"), load_config("small_references")
    check_requirements(small)
    assert small.attacks.keys() - plain.attacks.keys() == {"difficulty_threshold"}
    assert small.extraction == plain.extraction
    assert small.attacks["lightgbm"] == plain.attacks["lightgbm"]
    assert set(small.attacks["mlp"].columns) - set(plain.attacks["mlp"].columns) == {"difficulty*"}


def test_difficulty_of_a_pair_is_one_in_and_one_out():
    draw = np.random.default_rng(0)
    target, references = draw.normal(size=(60, 2)), draw.normal(size=(2, 60, 2))
    half = draw.permutation(60) < 30
    keep = np.stack([half, ~half])
    outputs = ReferenceOutputs(
        target=target.astype(np.float32),
        references=references.astype(np.float32),
        keep=keep,
        labels=np.zeros(60, np.int64),
        num_classes=2,
        drawn=np.ones_like(keep),
    )
    columns = reference_columns(load_config("small_references").references.scores, outputs)
    assert set(columns) == {"difficulty", "difficulty_in_0", "difficulty_out_0"}
    out = np.where(half, references[1].mean(axis=1), references[0].mean(axis=1))
    np.testing.assert_allclose(columns["difficulty_out_0"], target.mean(axis=1) - out, atol=1e-5)
