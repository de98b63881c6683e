"""The demo's target: a small network, over-fitted on embedded images."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

MEAN, STD = 0.31, 0.37
"""Grey mean and standard deviation of scikit-learn's digits; configs/demo.yaml names the same."""

EPOCHS, BATCH = 60, 64


def digits_target() -> nn.Module:
    """Return a small convolutional network trained on the members of both digits halves until it knows them by heart.

    Takes about ten seconds on one core. The same weights come out each time on the same machine.
    """
    from mia_lightning.records.readers import read_records

    halves = [read_records(f"digits:{half}") for half in ("public", "private")]
    images = np.concatenate([half.images[half.membership == 1] for half in halves])
    labels = np.concatenate([half.labels[half.membership == 1] for half in halves])
    inputs = (torch.from_numpy(images).float() / 255 - MEAN) / STD
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _train(digits_network(), inputs, torch.from_numpy(labels)).eval()


def digits_network() -> nn.Module:
    """Return the demo target's network, untrained."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def _train(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(labels)), BATCH):
            loss = nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return network
