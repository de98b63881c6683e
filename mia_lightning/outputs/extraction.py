"""Extraction of a target's outputs on all records by Lightning's predict loop, once per content."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.outputs.fuse import prepare_for_inference
from mia_lightning.outputs.lightning_module import InferenceModule, is_out_of_memory
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.outputs.request import ExtractionRequest
from mia_lightning.outputs.shards import ProgressBar, ShardWriter
from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.hardware import is_first_process, is_started_from_outside
from mia_lightning.runtime.library_noise import quiet_lightning
from mia_lightning.runtime.locks import Lock
from mia_lightning.runtime.memory_maps import Arrays
from mia_lightning.runtime.processes import launch_processes
from mia_lightning.runtime.store import CacheEntry, key_of
from mia_lightning.runtime.trainers import new_trainer
from mia_lightning.targets.features import FeatureTap

log = logging.getLogger(__name__)

LAZY_BYTES = 64 << 20
"""Largest batch of images that are decoded by the loader's processes."""


@dataclass(frozen=True, eq=False)
class _Task:
    """One split of the records and its place in the store."""

    name: str
    records: Records
    key_inputs: dict[str, Any]
    entry: CacheEntry


def extract(request: ExtractionRequest) -> Splits[Outputs]:
    """Return the target's outputs on both splits, from the store if they are there, otherwise by predicting.

    On several devices, every process but the first ends here (SystemExit with code 0).

    Raises:
        MIAError: NaN or infinite logits, fewer records than processes, devices that do not exist, or a store that
            cannot be written.
    """
    if request.mean is None and request.normalization[0]:
        shown = [", ".join(f"{value:.4f}" for value in values) for values in request.normalization]
        log.info("normalizing with the public images' own mean (%s) and std (%s)", *shown)
    tasks = [_task(request, name, records) for name, records in request.records.items()]
    stored = {task.name: _load(task) for task in tasks}
    missing = [task for task in tasks if stored[task.name] is None]
    if not missing and not is_first_process():
        new_trainer(request.hardware)  # raises where no launcher started this process
        raise SystemExit(0)
    with _locked(missing) as waited:
        if waited:  # another run may have done all of it
            stored |= {task.name: task.entry.load() for task in missing}
            missing = [task for task in missing if stored[task.name] is None]
        if missing:
            _predict(request, missing)
            stored |= {task.name: _finish(task, request) for task in missing}
    return Splits(*(Outputs(**arrays) for arrays in stored.values() if arrays is not None))


def _task(request: ExtractionRequest, name: str, records: Records) -> _Task:
    key_inputs = request.key_inputs(records)
    entry = CacheEntry(request.store, key_of(key_inputs), request.array_specs(records))
    return _Task(name, records, key_inputs, entry)


def _load(task: _Task) -> Arrays | None:
    arrays = task.entry.load()
    if arrays is not None:
        log.info("%s: reused the stored outputs %s", task.name, task.entry.key[:12])
    elif task.entry.exists:
        log.warning("%s: the stored outputs %s are damaged; recomputing them", task.name, task.entry.key[:12])
    return arrays


@contextmanager
def _locked(tasks: list[_Task]) -> Iterator[bool]:
    """Keep other runs from computing the same entries; yield whether this run had to wait for another."""
    waited = False
    with ExitStack() as locks:
        for task in sorted(tasks if is_first_process() else [], key=lambda task: task.entry.key):  # avoids deadlock
            lock = task.entry.lock()
            if not lock.acquire():
                _wait(lock, task)
                waited = True
            locks.callback(lock.release)
        yield waited


def _wait(lock: Lock, task: _Task) -> None:
    if is_started_from_outside():  # the other processes of this run would go on to predict
        raise MIAError(
            f"another run ({lock.holder}) is extracting {task.records.source}; start this run after it has ended"
        )
    log.info("%s: waiting for another run (%s) that is extracting the same outputs", task.name, lock.holder)
    lock.acquire(wait=True)


def _predict(request: ExtractionRequest, tasks: list[_Task]) -> None:
    """Write shards of all rows that no earlier run has written."""
    rows = {task.name: _remaining(task) for task in tasks}
    total = sum(map(len, rows.values()))
    if total == 0:
        return
    with quiet_lightning():
        trainer = _trainer(request, tasks, total)
    for task in tasks:
        if len(task.records) < trainer.world_size:
            raise MIAError(
                f"{task.records.source}: {len(task.records)} records are fewer than the {trainer.world_size} "
                "processes; lower --hardware.devices"
            )
    default = 256 if trainer.strategy.root_device.type == "cpu" else 4096
    batch_size = min(request.hardware.batch_size or default, max(len(task.records) for task in tasks))
    images: Any = request.records.public.images
    if isinstance(images, LazyImages):  # several batches of each process are in memory
        batch_size = max(1, min(batch_size, LAZY_BYTES // (4 * math.prod(images.shape[1:]))))
    mean, std = request.normalization
    data = MembershipDataModule(
        request.records, mean=mean, std=std, batch_size=batch_size, workers=request.hardware.loader_workers, rows=rows
    )
    module = InferenceModule(
        _network(request),
        data.normalize,
        queries=request.queries,
        gradients=request.gradients,
        batch_size=batch_size,
        views=request.views,
    )
    started = perf_counter()
    with launch_processes(trainer), _readable_memory_error(), quiet_lightning():
        trainer.predict(module, data, return_predictions=False)
    seconds = perf_counter() - started
    speed = f"{total * request.queries / seconds:,.0f} images/s"
    log.info("extracted %s records x %d queries in %.1f s (%s)", f"{total:,}", request.queries, seconds, speed)


def _remaining(task: _Task) -> NDArray[np.int64]:
    """Return the rows that are in no shard of an earlier run."""
    is_missing = np.ones(len(task.records), bool)
    for shard in task.entry.load_shards():
        is_missing[shard["index"]] = False
    rows = np.flatnonzero(is_missing)
    if len(rows) < len(task.records):
        done = f"{len(task.records) - len(rows):,} of {len(task.records):,}"
        log.info("%s: resuming: %s records already extracted", task.name, done)
    return rows


def _network(request: ExtractionRequest) -> nn.Module:
    """Return the target's network with its features, rewritten for speed if that is possible and wanted."""
    target = request.target
    rewritable = request.hardware.fuse and target.deterministic
    is_image = request.records.public.is_image
    if not (rewritable and is_image) or target.feature_layer is None:  # rewriting loses a features method of its own
        return FeatureTap(target.network, target.feature_layer)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(8, *request.records.public.images.shape[1:], generator=generator)
    return FeatureTap(prepare_for_inference(target.network, sample), target.feature_layer)


def _trainer(request: ExtractionRequest, tasks: list[_Task], total: int) -> L.Trainer:
    return new_trainer(
        request.hardware,
        inference_mode=not request.gradients,
        use_distributed_sampler=False,  # the data module assigns records to processes
        callbacks=[
            ShardWriter({task.name: (task.records, task.entry) for task in tasks}),
            ProgressBar(total, request.queries, request.on_rate),
        ],
    )


@contextmanager
def _readable_memory_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MIAError(
            f"memory does not hold one batch of images ({str(error).splitlines()[0][:200]}); lower "
            "--hardware.batch_size"
        ) from error


def _finish(task: _Task, request: ExtractionRequest) -> Arrays:
    try:
        return task.entry.finish(task.key_inputs, task.records.source)
    except RuntimeError as error:
        if request.hardware.num_nodes == 1:
            raise
        raise MIAError(f"{error}; choose a --cache_dir that all nodes share") from error
