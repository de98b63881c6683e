"""Lightning data module: whole batches of images by position, to be normalized on the device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.records.multi_hot import label_array
from mia_lightning.records.normalization import normalization
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.device_copies import DeviceCopies

Batch = dict[str, Tensor]


class _Rows(Dataset[Batch]):
    """Images and labels of selected records, loaded a batch at a time by one indexing operation."""

    def __init__(self, records: Records, rows: NDArray[np.int64]) -> None:
        self.records, self.rows, self.labels = records, rows, label_array(records)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Batch:
        return self.__getitems__([item])

    def __getitems__(self, items: list[int]) -> Batch:
        rows = self.rows[items]
        images: Any = self.records.images
        return {
            "index": torch.from_numpy(rows),  # an indexed array is a copy, also of a memory map
            "images": images.batch(rows) if isinstance(images, LazyImages) else torch.from_numpy(images[rows]),
            "labels": torch.from_numpy(self.labels[rows]),
        }


def _identity(batch: Any) -> Any:
    return batch


class MembershipDataModule(L.LightningDataModule):
    """Public and private records as sequential loaders of whole batches.

    Args:
        records: Both splits; the public images' statistics normalize if none are given.
        mean: Per channel, of images in [0, 1]; None = that of the public images.
        std: Per channel, of images in [0, 1]; None = that of the public images.
        batch_size: Records per batch.
        workers: Processes that decode images that stay in their files; -1 = one per CPU core.
        rows: By the name of a split, the rows that all processes together load of it; None = all rows of both.

    Raises:
        MIAError: mean or std do not have one value per channel.
    """

    def __init__(
        self,
        records: Splits[Records],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = 256,
        workers: int = -1,
        rows: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a resumed run may have fewer rows than devices
        self.records = dict(records.items())
        self.rows = rows or {name: np.arange(len(split)) for name, split in self.records.items()}
        self.loaded = [name for name in self.records if len(self.rows.get(name, ())) > 0]
        self.batch_size, self.workers = batch_size, len(os.sched_getaffinity(0)) if workers < 0 else workers
        self.mean, self.std = normalization(records.public, mean, std)
        self.copies: dict[torch.device, DeviceCopies] = {}
        self.constants: dict[torch.device, list[Tensor]] = {}

    def public_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the public records."""
        return self._loader("public")

    def private_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the private records."""
        return self._loader("private")

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """Return one loader per split with rows to load, in the order of `loaded`."""
        return [self._loader(name) for name in self.loaded]

    def _loader(self, split: str) -> DataLoader[Batch]:
        # Loading is one indexing operation, which a worker process would only slow down. Each process takes a stretch
        # of neighbors, which a file larger than memory delivers faster than every n-th record.
        world, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        rows = _Rows(self.records[split], np.array_split(self.rows[split], world)[rank])
        workers = self.workers if isinstance(self.records[split].images, LazyImages) else 0
        return DataLoader(rows, batch_size=self.batch_size, collate_fn=_identity, num_workers=workers)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return a batch with its images on the device.

        On CUDA they are copied from pinned memory during the computation with the batch before: every image is read
        once, so that images that are copied beforehand would only delay the first batch. The index stays on the host.
        """
        if device.type != "cuda":
            moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
            return moved
        if device not in self.copies:
            self.copies[device] = DeviceCopies(device)
        labels = batch["labels"].pin_memory().to(device, non_blocking=True)
        return batch | {"images": self.copies[device](batch["images"]), "labels": labels}

    def normalize(self, images: Tensor) -> Tensor:
        """Return the target's inputs: (B, C, H, W) float32, of which uint8 is scaled from 0..255 to [0, 1]; records of
        another kind, and images with a transform of their own, as they are.
        """
        if not self.mean:
            return images
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        if scaled.device not in self.constants:  # a copy of a few numbers per batch would hold up the host
            values = (torch.tensor(v, device=scaled.device) for v in (self.mean, self.std))
            self.constants[scaled.device] = [value.view(1, -1, 1, 1) for value in values]
        mean, std = self.constants[scaled.device]
        # Explicit strides: those of one channel are ambiguous, and the kernel that convolution takes depends on them.
        return torch.empty_like(scaled, memory_format=torch.channels_last).copy_((scaled - mean) / std)
