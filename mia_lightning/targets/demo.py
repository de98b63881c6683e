"""Target of the demo: a small network over-fitted on scikit-learn's digits."""

import logging
from time import perf_counter

import numpy as np
import torch
from torch import nn

log = logging.getLogger(__name__)

MEAN, STD = 0.31, 0.37
"""Gray mean and standard deviation of scikit-learn's digits, as in configs/demo.yaml."""

EPOCHS, BATCH = 60, 64

SILENCE = 3.0
"""Seconds without a line of progress."""


def digits_target() -> nn.Module:
    """Return a small convolutional network over-fitted on the members of both digits splits.

    Takes about ten seconds on one core; deterministic on one machine.
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
    """Return the network of the demo's target, untrained."""
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
    log.info("training the demo's target: %d epochs, about ten seconds on an idle core", EPOCHS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    reported = perf_counter()
    for epoch in range(EPOCHS):
        if perf_counter() - reported > SILENCE:
            log.info("training the demo's target: epoch %d of %d", epoch, EPOCHS)
            reported = perf_counter()
        for batch in torch.split(torch.randperm(len(labels)), BATCH):
            loss = nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return network
