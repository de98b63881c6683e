"""Extraction: what the target says of every record, by Lightning's predict loop, once per content."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.outputs.fuse import prepare_for_inference
from mia_lightning.outputs.lightning_module import InferenceModule, is_out_of_memory
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.outputs.shards import ProgressBar, ShardWriter
from mia_lightning.records.normalization import normalization
from mia_lightning.records.records import Records
from mia_lightning.runtime.hardware import Hardware, is_first_process, is_started_from_outside
from mia_lightning.runtime.library_noise import quiet_lightning
from mia_lightning.runtime.locks import Lock
from mia_lightning.runtime.memory_maps import Arrays
from mia_lightning.runtime.processes import launch_processes
from mia_lightning.runtime.store import CacheEntry, array_digest, key_of
from mia_lightning.runtime.trainers import new_trainer
from mia_lightning.targets.base import Target
from mia_lightning.targets.features import FeatureTap

log = logging.getLogger(__name__)

CODE = (
    "outputs.extraction",
    "outputs.lightning_module",
    "outputs.fuse",
    "outputs.views",
    "outputs.datamodule",
    "records.normalization",
    "targets.features",
)
"""Modules whose source determines the numbers, and so the key."""


@dataclass(frozen=True, eq=False)
class _Half:
    """One half of the records and its place in the store."""

    name: str
    records: Records
    entry: CacheEntry
    cache_key_inputs: dict[str, Any]


def extract(
    *,
    public: Records,
    private: Records | None,
    target: Target,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    queries: int,
    gradients: bool,
    hardware: Hardware,
    store: Path,
) -> tuple[Outputs, Outputs | None]:
    """Return the target's outputs on both halves, from the store where they are known, else by predicting.

    On several devices, every process but the first ends here (SystemExit with code 0).

    Args:
        public: Records of known membership.
        private: Records to be scored, if any.
        target: From `load_target`.
        mean: Per channel; None = that of the public images.
        std: Likewise.
        queries: 1, 2, 18 or 50.
        gradients: Whether to take input gradients.
        hardware: Devices, precision, batch size.
        store: Folder of the store.

    Raises:
        MIAError: a label outside the target's classes, NaN or infinite logits, fewer records than processes, or a store
            that cannot be written.
    """
    normal = normalization(public, mean, std)
    if mean is None:
        shown = [", ".join(f"{value:.4f}" for value in values) for values in normal]
        log.info("normalizing with the public images' own mean (%s) and std (%s)", *shown)
    named = [(name, half) for name, half in (("public", public), ("private", private)) if half is not None]
    halves = []
    for name, records in named:
        check_labels(records, target)
        cache_key_inputs = _ingredients(records, target, normal, queries, gradients, hardware)
        halves.append(_Half(name, records, CacheEntry(store, key_of(cache_key_inputs)), cache_key_inputs))
    arrays = [_stored(half) for half in halves]
    if all(known is not None for known in arrays) and not is_first_process():
        raise SystemExit(0)
    missing = [half for half, known in zip(halves, arrays, strict=True) if known is None]
    with _locked(missing) as waited:
        if waited:  # another run may have done all of it
            arrays = [known or half.entry.load() for half, known in zip(halves, arrays, strict=True)]
            missing = [half for half, known in zip(halves, arrays, strict=True) if known is None]
        if missing:
            _predict(missing, target, normal, queries, gradients, hardware)
            arrays = [known or _finished(half, hardware) for half, known in zip(halves, arrays, strict=True)]
    outputs = [Outputs(**known) for known in arrays if known is not None]
    return outputs[0], outputs[1] if private is not None else None


@contextmanager
def _locked(halves: list[_Half]) -> Iterator[bool]:
    """Keep other runs from making the same entries meanwhile; yield whether this one had to wait for another."""
    waited = False
    with ExitStack() as held:
        for half in sorted(halves if is_first_process() else [], key=lambda half: half.entry.key):  # never crosswise
            lock = half.entry.lock()
            if not lock.acquire():
                _wait(lock, half)
                waited = True
            held.callback(lock.release)
        yield waited


def _wait(lock: Lock, half: _Half) -> None:
    if is_started_from_outside():  # the other processes of this run would not know that there is nothing left to do
        raise MIAError(
            f"another run ({lock.holder}) is extracting {half.records.source}; start this one when it has ended"
        )
    log.info("%s: another run (%s) is extracting the same; waiting for it", half.name, lock.holder)
    lock.acquire(wait=True)


def check_labels(records: Records, target: Target) -> None:
    """Raise MIAError where a label is none of the target's classes."""
    if (largest := int(records.labels.max())) >= target.num_classes:
        row = int(np.argmax(records.labels))
        raise MIAError(
            f"{records.source}: record {records.ids[row]} has label {largest}, but the target has "
            f"{target.num_classes} classes (0 to {target.num_classes - 1}); is this the target's data?"
        )


def _ingredients(
    records: Records,
    target: Target,
    normal: tuple[tuple[float, ...], tuple[float, ...]],
    queries: int,
    gradients: bool,
    hardware: Hardware,
) -> dict[str, Any]:
    return {
        "target": target.digest,
        "feature_layer": target.feature_layer,
        "images": array_digest(records.images),
        "labels": array_digest(records.labels),
        "mean": normal[0],
        "std": normal[1],
        "queries": queries,
        "gradients": gradients,
        "precision": hardware.precision,
        "rewritten": hardware.fuse,
        "code": code_digest(),
        "torch": torch.__version__,
    }


@cache
def code_digest() -> str:
    """Return the sha256 (hex) of the source of the modules that determine the numbers."""
    digest = sha256()
    for name in CODE:
        path = import_module(f"mia_lightning.{name}").__file__
        assert path is not None
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _stored(half: _Half) -> Arrays | None:
    arrays = half.entry.load()
    if arrays is not None:
        log.info("%s: reused the stored outputs %s", half.name, half.entry.key[:12])
    elif half.entry.exists:
        log.warning("%s: the stored outputs %s are damaged and made again", half.name, half.entry.key[:12])
    return arrays


def _predict(
    halves: list[_Half],
    target: Target,
    normal: tuple[tuple[float, ...], tuple[float, ...]],
    queries: int,
    gradients: bool,
    hardware: Hardware,
) -> None:
    remaining = [_remaining(half) for half in halves]
    total = sum(map(len, remaining))
    if total == 0:
        return
    with quiet_lightning():
        trainer = _trainer(halves, queries, gradients, hardware, total)
    for half in halves:
        if len(half.records) < trainer.world_size:
            raise MIAError(
                f"{half.records.source}: {len(half.records)} records are fewer than the {trainer.world_size} "
                "processes; lower --hardware.devices"
            )
    kept = [number for number, rows in enumerate(remaining) if len(rows)]
    batch_size = min(
        hardware.batch_size or (256 if _on_cpu(trainer) else 4096), max(len(half.records) for half in halves)
    )
    data = MembershipDataModule(
        halves[kept[0]].records,
        halves[kept[1]].records if len(kept) > 1 else None,
        mean=normal[0],
        std=normal[1],
        batch_size=batch_size,
        remaining=[remaining[number] for number in kept],
    )
    network = _network(target, halves[0].records, hardware)
    module = InferenceModule(network, data.normalize, queries=queries, gradients=gradients, batch_size=batch_size)
    started = perf_counter()
    with launch_processes(trainer), _lack_of_memory_in_words(), quiet_lightning():
        trainer.predict(module, data, return_predictions=False)
    seconds = perf_counter() - started
    log.info(
        "extracted %s records x %d queries in %.1f s (%s images/s)",
        f"{total:,}",
        queries,
        seconds,
        f"{total * queries / seconds:,.0f}",
    )


def _remaining(half: _Half) -> np.ndarray[Any, np.dtype[np.int64]]:
    left = np.ones(len(half.records), bool)
    for shard in half.entry.load_shards():
        left[shard["index"]] = False
    rows = np.flatnonzero(left)
    if len(rows) < len(left):
        log.info(
            "%s: %s of %s records were done by an earlier try",
            half.name,
            f"{len(half.records) - len(rows):,}",
            f"{len(half.records):,}",
        )
    return rows


def _network(target: Target, records: Records, hardware: Hardware) -> nn.Module:
    if not hardware.fuse:
        return FeatureTap(target.network, target.feature_layer)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(8, *records.images.shape[1:], generator=generator)
    if target.feature_layer is None:  # a module that tells its features by a method of its own would lose it
        return FeatureTap(target.network, None)
    return FeatureTap(prepare_for_inference(target.network, sample), target.feature_layer)


def _trainer(halves: list[_Half], queries: int, gradients: bool, hardware: Hardware, total: int) -> L.Trainer:
    return new_trainer(
        hardware,
        inference_mode=not gradients,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module deals the records out
        callbacks=[ShardWriter([(half.records, half.entry) for half in halves]), ProgressBar(total, queries)],
    )


def _on_cpu(trainer: L.Trainer) -> bool:
    return trainer.strategy.root_device.type == "cpu"


@contextmanager
def _lack_of_memory_in_words() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MIAError(
            f"memory does not hold one batch of images ({str(error).splitlines()[0][:200]}); lower "
            "--hardware.batch_size"
        ) from error


def _finished(half: _Half, hardware: Hardware) -> Arrays:
    try:
        return half.entry.finish(len(half.records), half.cache_key_inputs, half.records.source)
    except RuntimeError as error:
        if hardware.num_nodes == 1:
            raise
        raise MIAError(f"{error}; name an --cache_dir that all nodes see") from error
