"""What all references are trained on and asked about, on its way to the device."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What all references are trained on and asked about."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """(N, C, H, W) public records first; uint8 in 0..255, or float32 as stored."""

    labels: NDArray[np.int64]
    """(N,) class indices."""

    mean: tuple[float, ...]
    """Per channel, of images in [0, 1]."""

    std: tuple[float, ...]
    """Likewise."""

    num_classes: int
    queries: int
    """See `mia_lightning.outputs.views`."""

    temperature: float = 1.0
    """What logits are divided by before phi is taken."""


def on_device(material: TrainingData, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels on the device; on a CPU without a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # they are only read
        images = np.require(material.images, requirements=("C", "A"))  # a memory map may lie in the file in another way
        return torch.from_numpy(images).to(device), torch.from_numpy(material.labels).to(device)


class Normalize:
    """Turn stored images into the target's inputs, on their device."""

    def __init__(self, material: TrainingData, images: Tensor) -> None:
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (material.mean, material.std))
        self.scale, self.shift = 1 / (scale * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W) float32."""
        return torch.addcmul(self.shift, images.float(), self.scale)
