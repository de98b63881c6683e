"""Records that all references are trained on and queried with, and their way to the device."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mia_lightning.records.lazy_images import LazyImages

Images = NDArray[np.uint8] | NDArray[np.float32]


class ImageParts:
    """Images of several arrays in a row, each of which may be a memory map; nothing is copied but what is indexed."""

    def __init__(self, parts: tuple[Images, ...]) -> None:
        self.parts = parts
        self.dtype: np.dtype[Any] = parts[0].dtype
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.shape: tuple[int, ...] = (int(self.starts[-1]), *parts[0].shape[1:])

    @property
    def content_digest(self) -> str | None:
        """Digest of images that stay in their files, None for arrays."""
        digests = [getattr(part, "content_digest", None) for part in self.parts]
        return None if None in digests else " ".join(map(str, digests))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Images:
        """Return a copy of some images, (n, C, H, W)."""
        index = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        images = np.empty((len(index), *self.shape[1:]), self.dtype)
        for part, start, end in zip(self.parts, self.starts[:-1], self.starts[1:], strict=True):
            here = (index >= start) & (index < end)
            images[here] = part[index[here] - start]
        return images


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Records that all references are trained on and queried with."""

    images: Images | ImageParts
    """(N, ...) inputs as `Records.images`, public records first. May be memory-mapped."""

    labels: NDArray[np.int64]
    """(N,) class indices."""

    mean: tuple[float, ...]
    """Per channel, of images in [0, 1]; empty where records are passed on as they are stored."""

    std: tuple[float, ...]
    """Per channel, of images in [0, 1]."""

    num_classes: int
    queries: int
    """Number of views per record, see `mia_lightning.outputs.views`."""

    temperature: float = 1.0
    """Divisor of all logits before phi is computed."""

    order: NDArray[np.intp] | None = None
    """(N,) order of the records by content (`splits.content_order`), the order of training; None = as stored."""


class MappedImages:
    """Images that stay where they are: an index returns its rows as a tensor on the CPU, by a copy of these alone."""

    device = torch.device("cpu")

    def __init__(self, images: ImageParts) -> None:
        self.images = images
        self.shape = images.shape
        self.dtype = dtype_of(images)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return torch.from_numpy(self.images[rows if isinstance(rows, slice) else rows.numpy()])


def on_device(material: TrainingData, device: torch.device) -> tuple[Tensor | MappedImages, Tensor]:
    """Return images and labels for training on a device.

    On a CPU images in memory are shared without a copy, and mapped images or several arrays are read batch by batch, so
    that memory does not grow with their number. Elsewhere all images are copied to the device, a block at a time.
    """
    images, labels = material.images, torch.from_numpy(material.labels).to(device)
    if device.type == "cpu":
        if isinstance(images, ImageParts):
            return MappedImages(images), labels
        if isinstance(images, np.memmap | LazyImages):
            return MappedImages(ImageParts((images,))), labels
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # they are only read
            return torch.from_numpy(np.require(images, requirements=("C", "A"))), labels
    resident = torch.empty(images.shape, dtype=dtype_of(images), device=device)
    for start in range(0, len(images), 4096):
        block = np.array(images[start : start + 4096])  # a copy: PyTorch wants writable memory
        resident[start : start + len(block)] = torch.from_numpy(block).to(device)
    return resident, labels


def dtype_of(images: Images | ImageParts) -> torch.dtype:
    """Return torch's name of the arrays' dtype."""
    return torch.from_numpy(np.empty(0, images.dtype)).dtype


class Normalize:
    """Turn stored images into the target's inputs, on their device; without mean and std they are the inputs."""

    def __init__(self, material: TrainingData, images: Tensor | MappedImages) -> None:
        self.is_identity = not material.mean
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (material.mean, material.std))
        self.scale, self.shift = 1 / (scale * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W) float32, or records of another kind as they are."""
        if self.is_identity:
            return images
        return torch.addcmul(self.shift, images.float(), self.scale)
