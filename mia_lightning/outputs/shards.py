"""Output shards that every process writes while it predicts, and one progress bar for all."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import BasePredictionWriter, Callback

from mia_lightning.errors import MIAError
from mia_lightning.records.records import Records
from mia_lightning.runtime.device_copies import HostCopies
from mia_lightning.runtime.memory_maps import Arrays
from mia_lightning.runtime.progress import RateCallback, progress_bar
from mia_lightning.runtime.store import CacheEntry

SHARD_BYTES = 32 << 20
"""Outputs that a process gathers before it writes a shard."""

SHARD_SECONDS = 60.0
"""Longest time between two shards of a process: a kill loses no more work."""

RATE_SECONDS = 2.0
"""Time between two reports of the rate; a shorter extraction reports none."""


class ShardWriter(BasePredictionWriter):
    """Writes each process's outputs as shards that carry their rows, so that a later run can resume from them.

    Args:
        splits: The records of each split and their place in the store, by the split's name.
    """

    def __init__(self, splits: Mapping[str, tuple[Records, CacheEntry]]) -> None:
        super().__init__(write_interval="batch")
        self.splits = splits
        self.buffers: dict[str, _Buffer] = {}
        self.copies: HostCopies[str] = HostCopies()
        self.since = monotonic()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the first shard."""
        self.since = monotonic()

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Gather the batches that have arrived on the host, so that the device never waits for it."""
        split = trainer.datamodule.loaded[dataloader_idx]  # type: ignore[attr-defined]
        for arrived in self.copies.add(split, prediction):
            self._gather(*arrived)

    def _gather(self, split: str, arrays: Arrays) -> None:
        """Add a batch to its split's buffer; write a shard if that is full or SHARD_SECONDS have passed."""
        _check_finite(arrays, self.splits[split][0])
        if split not in self.buffers:
            self._write()  # of the split before
            self.buffers = {split: _Buffer(arrays)}
        buffer = self.buffers[split]
        buffer.add(arrays)
        if buffer.is_full or monotonic() - self.since >= SHARD_SECONDS:
            self._write()

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the last shard."""
        for arrived in self.copies.rest():
            self._gather(*arrived)
        self._write()

    def _write(self) -> None:
        for split, buffer in self.buffers.items():
            if arrays := buffer.take():
                rows = arrays["index"]
                self.splits[split][1].save_shard(f"{rows.min():09d}-{rows.max():09d}-{len(rows)}", arrays)
        self.since = monotonic()


class _Buffer:
    """Outputs of many batches in one array each, which does not fragment memory as one array per batch would.

    Args:
        first: The first batch, which is at least as large as those that follow.
    """

    def __init__(self, first: Arrays) -> None:
        self.batch = len(first["index"])
        capacity = max(self.batch, SHARD_BYTES * self.batch // sum(array.nbytes for array in first.values()))
        self.arrays = {name: np.empty((capacity, *array.shape[1:]), array.dtype) for name, array in first.items()}
        self.count = 0

    def add(self, batch: Arrays) -> None:
        for name, array in batch.items():
            self.arrays[name][self.count : self.count + len(array)] = array
        self.count += len(batch["index"])

    @property
    def is_full(self) -> bool:
        return self.count + self.batch > len(self.arrays["index"])

    def take(self) -> Arrays:
        """Return the rows gathered since the last call, valid until the next `add`; {} if there are none."""
        count, self.count = self.count, 0
        return {name: array[:count] for name, array in self.arrays.items()} if count else {}


def _check_finite(arrays: Arrays, records: Records) -> None:
    finite = np.isfinite(arrays["logits"]).all(axis=(1, 2))
    if not finite.all():
        row = int(arrays["index"][int(np.argmin(finite))])
        raise MIAError(
            f"{records.source}: the target returns NaN or infinite logits for record {records.ids[row]}; "
            "check its weights and the normalization"
        )


class ProgressBar(Callback):
    """One bar over all records, in images per second, and reports of the records per second.

    Args:
        records: Number of records.
        queries: Views per record.
        on_rate: Receives the rate on the first process; None: nothing does.
    """

    def __init__(self, records: int, queries: int, on_rate: RateCallback | None = None) -> None:
        self.total, self.queries, self.on_rate = records * queries, queries, on_rate

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar on the first process; it counts for all of them."""
        hidden = None if trainer.is_global_zero else True
        self.bar = progress_bar(total=self.total, desc="extract", unit="image", unit_scale=True, disable=hidden)
        self.done, self.reported, self.since = 0, 0, monotonic()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance."""
        records = len(batch["index"]) * trainer.world_size
        self.bar.update(records * self.queries)
        self.done += records
        if self.on_rate is None or not trainer.is_global_zero:
            return
        if (seconds := monotonic() - self.since) >= RATE_SECONDS:
            self.on_rate(self.done, (self.done - self.reported) / seconds)
            self.reported, self.since = self.done, monotonic()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()
