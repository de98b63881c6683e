"""Training of one reference by a LightningModule under Lightning's Trainer."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from mia_lightning.errors import MIAError
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.random_state import epoch_seed, own_random_state, seed_everything
from mia_lightning.references.trainer_options import new_trainer
from mia_lightning.references.training import DivergedError, Epoch, with_small_convolutions
from mia_lightning.references.training_data import ReferenceDataset
from mia_lightning.references.user_training import user_error
from mia_lightning.runtime.atomic import write_atomically
from mia_lightning.runtime.library_noise import quiet_lightning
from mia_lightning.runtime.own_files import read_bytes

log = logging.getLogger(__name__)


def fit_module(
    module: nn.Module,
    dataset: ReferenceDataset,
    recipe: ReferenceTraining,
    trainer: Mapping[str, Any],
    *,
    seed: int,
    checkpoint: Path | None,
    device: str,
    on_epoch: Epoch | None = None,
    is_trial: bool = False,
) -> None:
    """Train a LightningModule in place; see `fitting.fit_reference`.

    Nothing is written but the checkpoint; what callbacks write goes into a scratch folder. The order of records and
    all global random states follow from the seed and the number of the epoch alone, so that a resumed training gives
    the same weights as an uninterrupted one.

    Args:
        module: The untrained LightningModule.
        dataset: Its records.
        recipe: From `resolved_training`.
        trainer: Options of Lightning's Trainer.
        seed: Drives everything random.
        checkpoint: File of the last finished epoch.
        device: "cpu" or "cuda".
        on_epoch: Callback invoked after each epoch.
        is_trial: Whether to end after the first batch.

    Raises:
        DivergedError: a loss that is not finite.
        MIAError: an error in the user's code or options, in one sentence.
    """
    epochs, batch_size = recipe.counts()
    with tempfile.TemporaryDirectory(prefix="mia-reference-") as scratch, own_random_state(), quiet_lightning():
        progress = _Progress(seed, checkpoint, Path(scratch), epochs, on_epoch)
        fitting = new_trainer(recipe, trainer, scratch, device, [_FirstBatch()] if is_trial else [progress])
        resumed = None if checkpoint is None else _resumable(checkpoint, Path(scratch))
        with suppress(Exception):  # of the user's code, which training raises again
            with_small_convolutions(module, dataset[0][0].shape)
            _use_channels_last(module, dataset[torch.arange(2)][0].cpu())
        seed_everything(seed, epochs)
        data = ReferenceDataModule(dataset, batch_size, seed)
        try:
            fitting.fit(cast(L.LightningModule, module.train()), datamodule=data, ckpt_path=resumed, weights_only=True)
        except _FirstBatchDone:
            pass
        except (DivergedError, MIAError):
            raise
        except Exception as error:
            advice = "a batch is (images, labels): float32 (B, C, H, W) and int64 (B,)"
            raise user_error(str(recipe.class_path), error, advice) from error
        finally:
            cast(L.LightningModule, module).trainer = None


def _use_channels_last(module: nn.Module, images: Tensor) -> None:
    """Store the weights of convolutions channels last, as the built-in training does, where forward then works."""
    module.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            module.eval()(images)
    except Exception:  # such as a view of activations as (B, -1)
        module.to(memory_format=torch.contiguous_format)


class ReferenceDataModule(L.LightningDataModule):
    """The records IN one reference's training set, shuffled by seed and epoch alone."""

    def __init__(self, dataset: ReferenceDataset, batch_size: int, seed: int) -> None:
        super().__init__()
        self.dataset, self.order = dataset, BatchOrder(len(dataset), batch_size, seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches (images, labels)."""
        return DataLoader(
            self.dataset,
            batch_size=None,
            sampler=self.order,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # the global one is not advanced
        )


def _as_it_is(batch: Any) -> Any:
    return batch


class BatchOrder(Sampler[Tensor]):
    """Numbers of the records of each batch; Lightning sets the epoch."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        draw = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=draw)
        yield from order[: len(self) * self.batch_size].view(-1, self.batch_size)


class _Progress(Checkpoint):
    """Seeds each epoch, checks its loss and saves it; last of the callbacks, as Lightning's own checkpoints are."""

    def __init__(self, seed: int, checkpoint: Path | None, scratch: Path, epochs: int, on_epoch: Epoch | None) -> None:
        self.seed, self.checkpoint, self.scratch = seed, checkpoint, scratch
        self.epochs, self.on_epoch = epochs, on_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed_everything(self.seed, trainer.current_epoch)
        self.total, self.steps = torch.zeros((), device=pl_module.device), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self.total, self.steps = self.total + loss.detach().float().mean(), self.steps + 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        mean = float(self.total) / max(self.steps, 1)
        if not np.isfinite(mean):
            raise DivergedError(f"its loss became {mean} in epoch {epoch}")
        if self.checkpoint is not None and epoch < self.epochs:
            file = self.scratch / "epoch.ckpt"
            trainer.save_checkpoint(file)
            payload = file.read_bytes()
            write_atomically(self.checkpoint, sha256(payload).digest() + payload)
        if self.on_epoch is not None:
            self.on_epoch(epoch, mean)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for name in [name for name in checkpoint if "hyper_parameters" in name or "hparams" in name]:
            del checkpoint[name]  # of any type, and in the configuration already


class _FirstBatchDone(Exception):
    """End of a trial."""


class _FirstBatch(Checkpoint):
    """Ends training after one batch."""

    def on_train_batch_end(self, *_: Any) -> None:
        raise _FirstBatchDone


def _resumable(checkpoint: Path, scratch: Path) -> Path | None:
    """Return a checkpoint of Lightning's in the scratch folder; None where there is none, or it is damaged."""
    try:
        payload = read_bytes(checkpoint)
    except FileNotFoundError:
        return None
    except MIAError as error:
        log.warning("%s is damaged (%s); its reference starts from the beginning", checkpoint.name, error)
        return None
    file = scratch / "resumed.ckpt"
    file.write_bytes(payload[32:])
    try:
        if sha256(payload[32:]).digest() != payload[:32]:
            raise ValueError("wrong checksum")
        if not {"epoch", "state_dict", "loops"} <= set(torch.load(file, weights_only=True, map_location="cpu")):
            raise ValueError("other contents")
    except Exception as error:  # damaged pickles raise many things
        reason = str(error).splitlines()[0][:100]
        log.warning("%s is damaged (%s); its reference starts from the beginning", checkpoint.name, reason)
        return None
    return file
