"""Features of another network as a column: what it reads, and that a run finds it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from mia_lightning import audit, load_config
from mia_lightning.config import EmbeddingConfig
from mia_lightning.embedding import embed
from mia_lightning.errors import MIAError
from mia_lightning.hardware import Hardware
from mia_lightning.records import Records

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CPU = Hardware(accelerator="cpu")


def records(count, seed, label):
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    unknown = np.full(count, -1, np.int8)
    return Records(np.arange(count) + 1000 * seed, images, np.full(count, label), unknown, f"half {seed}")


def test_features_are_the_networks_own_whatever_the_labels(tmp_path):
    torch.manual_seed(0)
    network = resnet18(num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "other.pt")
    config = EmbeddingConfig("resnet18", str(tmp_path / "other.pt"), mean=MEAN, std=STD)
    halves = records(9, seed=1, label=7), records(5, seed=2, label=2)  # 7 is no class of the other network
    found = embed(config, *halves, hardware=CPU, store=tmp_path / "store")
    network.fc = nn.Identity()
    pixels = torch.from_numpy(np.concatenate([half.images for half in halves])).float() / 255
    with torch.no_grad():
        expected = network((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
    assert found.shape == (14, 512)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_a_run_reads_the_embedding(tmp_path):
    config = load_config(
        "configs/demo.yaml",
        output=str(tmp_path / "run"),
        embedding={"architecture": "mia_lightning.demo:digits_network", "feature_layer": "7"},
        attacks={
            "quantiles": {"class_path": "QuantileRegression", "init_args": {"column": "phi", "epochs": 3}},
            "amortised": {"class_path": "AmortisedLiRA", "init_args": {"column": "phi", "epochs": 3}},
        },
    )
    config.attacks = {name: config.attacks[name] for name in ("quantiles", "amortised")}
    result = audit(config)
    assert {name: len(attack.public_scores) for name, attack in result.attacks.items()} == {
        "quantiles": 899,
        "amortised": 899,
    }
    without = replace(config, embedding=EmbeddingConfig())
    with pytest.raises(MIAError, match="'quantiles' reads 'embedding', neither a signal"):
        audit(without)


def test_a_checkpoint_without_architecture_is_refused():
    with pytest.raises(MIAError, match=r"embedding\.checkpoint needs embedding\.architecture"):
        load_config("configs/demo.yaml", embedding={"checkpoint": "weights.pt"})
