"""Features of the images from a network that has nothing to do with the target."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config import EmbeddingConfig
from mia_lightning.errors import MIAError
from mia_lightning.extraction import extract
from mia_lightning.hardware import Hardware
from mia_lightning.records import UNKNOWN, Records
from mia_lightning.targets import check_fits, load_target

log = logging.getLogger(__name__)


def embed(
    config: EmbeddingConfig, public: Records, private: Records | None, *, hardware: Hardware, store: Path
) -> NDArray[np.float32]:
    """Return penultimate features of all records, public first, (N, D); from the store where they are known.

    Raises:
        MIAError: a network that cannot be loaded, does not take the images, or shows no features.
    """
    assert config.architecture is not None, "asked for only where it is named"
    network = load_target(config.checkpoint, architecture=config.architecture, feature_layer=config.feature_layer)
    check_fits(network, public.images.shape[1:])
    log.info("embedding: %s", network.architecture)
    halves = extract(
        public=_unlabelled(public),
        private=None if private is None else _unlabelled(private),
        target=network,
        mean=config.mean,
        std=config.std,
        queries=1,
        gradients=False,
        hardware=replace(hardware, devices=1, num_nodes=1, strategy="auto"),  # other processes ended with the target
        store=store,
    )
    features = np.concatenate([half.features for half in halves if half is not None])
    if features.shape[1] == 0:
        raise MIAError(f"embedding: {network.architecture} shows no features; name --embedding.feature_layer")
    return features


def _unlabelled(records: Records) -> Records:
    """Return the records without labels: those of the target's classes mean nothing to another network."""
    return replace(records, labels=np.full(len(records), UNKNOWN))
