"""The Lightning data module: whole batches of images by position, to be normalized on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mia_lightning.records.normalization import normalization
from mia_lightning.records.records import Records

Batch = dict[str, Tensor]


class _Rows(Dataset[Batch]):
    """Images and labels of chosen records, fetched a batch at a time by one indexing operation."""

    def __init__(self, records: Records, rows: NDArray[np.int64]) -> None:
        self.records, self.rows = records, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Batch:
        return self.__getitems__([item])

    def __getitems__(self, items: list[int]) -> Batch:
        rows = self.rows[items]
        return {
            "index": torch.from_numpy(rows),
            "images": torch.from_numpy(self.records.images[rows]),  # a copy, also of a memory map
            "labels": torch.from_numpy(self.records.labels[rows]),
        }


def _as_it_is(batch: Any) -> Any:
    return batch


class MembershipDataModule(L.LightningDataModule):
    """Public and private records as sequential loaders of whole batches.

    Args:
        public: Records whose statistics normalize where none are given.
        private: Records to be scored, if any.
        mean: Per channel, of images in [0, 1]; None = that of the public images.
        std: Likewise.
        batch_size: Records per batch.
        remaining: Rows that all processes together serve of each half; None = all of both.

    Raises:
        MIAError: mean or std do not have one value per channel.
    """

    def __init__(
        self,
        public: Records,
        private: Records | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = 256,
        remaining: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a kill may leave less than one for each
        self.halves = [half for half in (public, private) if half is not None]
        self.remaining = remaining or [np.arange(len(half)) for half in self.halves]
        self.batch_size = batch_size
        self.mean, self.std = normalization(public, mean, std)

    def public_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the public records."""
        return self._loader(0)

    def private_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the private records."""
        return self._loader(1)

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """Return one loader per half."""
        return [self._loader(half) for half in range(len(self.halves))]

    def _loader(self, half: int) -> DataLoader[Batch]:
        # Fetching is one indexing operation, which a worker process would only slow down. Each process takes a stretch
        # of neighbors, since a file that does not fit into memory is read faster so than by every n-th record.
        world, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        rows = _Rows(self.halves[half], np.array_split(self.remaining[half], world)[rank])
        return DataLoader(rows, batch_size=self.batch_size, collate_fn=_as_it_is)

    def normalize(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W) float32 inputs of the target: uint8 is taken as 0..255, float32 as it is."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        mean, std = (torch.tensor(v, device=scaled.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        # Written into strides of our own: with one channel many are right, and which came would choose the kernel.
        return torch.empty_like(scaled, memory_format=torch.channels_last).copy_((scaled - mean) / std)
