"""What the rest of the system knows of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Target:
    """A trained classifier in eval mode.

    `network(images)` takes normalized float images (B, C, H, W) and returns logits (B, classes).
    `feature_layer` names the submodule whose *input* is the penultimate feature vector ("fc" of a ResNet), or is None
    where the module tells its features in another way (`forward_features`, a traced program) or not at all.
    """

    network: nn.Module
    num_classes: int
    feature_layer: str | None
    """Name of the submodule whose input is the penultimate feature vector; None: see `FeatureTap`."""

    architecture: str
    """As resolved: "resnet18", "resnet18 (CIFAR stem)", "package.module:Class", "torch.export"."""

    digest: str
    """sha256 (hex) of everything that determines the function: weights bytes and architecture."""
