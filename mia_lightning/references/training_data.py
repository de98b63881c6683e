"""Records that all references are trained on and queried with, and their way to the device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.runtime.device_copies import DeviceCopies, fits
from mia_lightning.runtime.memory_maps import MappedArray, mapped_array

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
            in_part = (index >= start) & (index < end)
            images[in_part] = part[index[in_part] - start]
        return images

    def by_file(self) -> ImageParts:
        """Return these images for workers on this machine, which map those in a file again instead of copying them."""
        return _Unopened(self.parts)


class _Unopened(ImageParts):
    """Images that are opened when they are unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (tuple(mapped_array(part) or part for part in self.parts),)


def _opened(parts: tuple[Any, ...]) -> ImageParts:
    return ImageParts(tuple(part.open() if isinstance(part, MappedArray) else part for part in parts))


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Records that all references are trained on and queried with."""

    images: Images | ImageParts
    """(N, ...) inputs as `Records.images`, public records first. May be memory-mapped."""

    labels: NDArray[np.int64]
    """(N,) class indices, or (N, C) of 0 and 1 for multi-label targets."""

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

    views: str | None = None
    """The user's function of views, as `--extraction.views`."""

    def by_file(self) -> TrainingData:
        """Return these records for workers on this machine: images in a file are mapped there, not copied."""
        images = self.images if isinstance(self.images, ImageParts) else ImageParts((self.images,))
        is_mapped = any(mapped_array(part) is not None for part in images.parts)
        return replace(self, images=images.by_file()) if is_mapped else self


class MappedImages:
    """Images that stay where they are: an index returns its rows as a tensor on a device, by a copy of these alone."""

    def __init__(self, images: ImageParts, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        self.images, self.device = images, device
        self.shape = images.shape
        self.dtype = dtype_of(images)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.on_host(rows).to(self.device)

    def on_host(self, rows: slice | Tensor) -> Tensor:
        """Return rows as a tensor on the CPU."""
        return torch.from_numpy(self.images[rows if isinstance(rows, slice) else rows.cpu().numpy()])


Resident = tuple[Tensor | MappedImages, Tensor]
"""Images and labels on their device, from `on_device`."""


def image_batches(images: Tensor | MappedImages, rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield full batches of images, (size, ...), on their device.

    Args:
        images: From `on_device`. Those that are not on their CUDA device are copied there during the computation with
            the batch before.
        rows: (n,) on the CPU; the last n % size are left out.
        size: Images per batch.
    """
    parts = [slice(start, start + size) for start in range(0, len(rows) - size + 1, size)]
    if isinstance(images, MappedImages) and images.device.type == "cuda":
        copies = DeviceCopies(images.device)
        for part in parts:
            yield copies(images.on_host(rows[part]))
    else:
        rows = rows.to(images.device)
        for part in parts:
            yield images[rows[part]]


def on_device(material: TrainingData, device: torch.device) -> Resident:
    """Return images and labels for training on a device.

    On a CPU images in memory are shared without a copy, and mapped images or several arrays are read batch by batch, so
    that memory does not grow with their number. On CUDA all images are copied to the device, a block at a time, if they
    fit in half of its free memory; otherwise they are read and copied batch by batch.
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
    size = math.prod(images.shape) * np.dtype(images.dtype).itemsize
    if device.type == "cuda" and not fits(size, device):
        return MappedImages(images if isinstance(images, ImageParts) else ImageParts((images,)), device), labels
    resident = torch.empty(images.shape, dtype=dtype_of(images), device=device)
    for start in range(0, len(images), 4096):
        block = np.array(images[start : start + 4096])  # a copy: PyTorch wants writable memory
        resident[start : start + len(block)] = torch.from_numpy(block).to(device, non_blocking=True)
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


class ReferenceDataset(Dataset[tuple[Tensor, Tensor]]):
    """Records IN one reference's training set, as the inputs of its network with their labels.

    An index returns (C, H, W) and its label, a tensor of indices a batch (B, C, H, W) and its labels (B,).

    Args:
        material: All records.
        keep: (N,) True for the records to train on.
        device: Device of the batches.
        inputs: Applied to normalized batches (B, C, H, W).
        class_order: Label of each class in the network's outputs; default: unchanged.
        transform: The user's own, in place of normalization: from a stored image to the network's input (C, H, W).
    """

    def __init__(
        self,
        material: TrainingData,
        keep: NDArray[np.bool_],
        device: torch.device,
        *,
        inputs: Callable[[Tensor], Tensor] | None = None,
        class_order: tuple[int, ...] | None = None,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        self.device, self.transform, self.inputs = device, transform, inputs
        self.images, self.labels = on_device(material, torch.device("cpu") if transform else device)
        self.normalize = Normalize(material, self.images)
        if class_order is not None:
            indices = torch.tensor(class_order, device=self.labels.device)
            is_multi_label = self.labels.ndim == 2  # column j is that of output class_order[j]
            self.labels = self.labels[:, indices.argsort()] if is_multi_label else indices[self.labels]
        self.labels = self.labels.float() if self.labels.ndim == 2 else self.labels  # as binary cross-entropy takes it
        order = np.arange(len(keep)) if material.order is None else material.order
        where = torch.device("cpu") if isinstance(self.images, MappedImages) else self.images.device
        self.rows = torch.from_numpy(order[keep[order]]).to(where)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(index, Tensor):
            images, labels = self[torch.tensor([range(len(self))[index]])]
            return images[0], labels[0]
        rows = self.rows[index.to(self.rows.device, non_blocking=True)]
        images = self.images[rows]
        rows = rows.to(self.labels.device, non_blocking=True)
        if self.transform is not None:
            images = torch.stack([self.transform(_as_stored(image)) for image in images])
        else:
            images = self.normalize(images)
            images = images if self.inputs is None else self.inputs(images)
        return images.to(self.device), self.labels[rows].to(self.device)

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return several records; a DataLoader calls this once per batch."""
        return list(zip(*self[torch.tensor(indices)], strict=True))


def _as_stored(image: Tensor) -> Any:
    """Return an image (C, H, W) as a PIL image, or unchanged where it cannot be one."""
    if image.dtype != torch.uint8 or image.shape[0] not in (1, 3):
        return image
    from PIL import Image

    array = image.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0).copy())
