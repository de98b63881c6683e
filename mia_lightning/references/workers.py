"""Training of several references: in this process one after the other, or in parallel by Ray workers."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.outputs.phi import is_correct, phi
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.fitting import fit_reference
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.store import ReferenceRecord, ReferenceStore
from mia_lightning.references.training import DivergedError, Epoch
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.training_step import DeviceSession
from mia_lightning.runtime.hardware import mps_is_running
from mia_lightning.runtime.interruption import signals_as_keyboard_interrupt
from mia_lightning.runtime.progress import progress_bar
from mia_lightning.runtime.ray_cluster import ray_session
from mia_lightning.targets.estimators import EstimatorNetwork
from mia_lightning.targets.imported import first_line
from mia_lightning.targets.wrapper import unwrap

log = logging.getLogger(__name__)

Network = Callable[[int], nn.Module]
"""Returns an untrained network with the starting weights of a seed."""


@dataclass(frozen=True, eq=False)
class ReferenceJob:
    """One reference to train, or only to query where its weights are stored."""

    number: int
    keep: NDArray[np.bool_]
    seed: int
    recipe: ReferenceTraining
    network: Network
    store: ReferenceStore
    device: str
    trainer: dict[str, Any] = field(default_factory=dict)
    """Options of Lightning's Trainer."""


Finished = Callable[[ReferenceRecord], object]
"""Callback invoked with each reference when it is trained."""


def train_references(
    jobs: list[ReferenceJob],
    material: TrainingData,
    config: ReferencesConfig,
    *,
    ray_address: str | None = None,
    on_finished: Finished | None = None,
) -> None:
    """Run the jobs with one line of progress; finished references are in the store however this ends.

    Raises:
        MIAError: the disk is full, or workers were lost `LOSSES` times without progress.
    """
    if not jobs:
        return
    with Progress(len(jobs), jobs[0].recipe.counts()[0]) as progress:
        results = (
            _with_ray(jobs, material, config, ray_address)
            if config.workers
            else _train_locally(jobs, material, progress)
        )
        for job, (row, phi) in results:
            job.store.finish(row, phi)
            progress.finished(row)
            if on_finished is not None:
                on_finished(row)


def _train_locally(
    jobs: list[ReferenceJob], material: TrainingData, progress: Progress
) -> Iterator[tuple[ReferenceJob, Result]]:
    session = DeviceSession(material)
    for job in jobs:
        yield job, train_and_query(job, material, on_epoch=progress.epoch, session=session)


Result = tuple[ReferenceRecord, NDArray[np.float32] | None]


def train_and_query(
    job: ReferenceJob, material: TrainingData, *, on_epoch: Epoch | None = None, session: DeviceSession | None = None
) -> Result:
    """Train one reference unless its weights are stored, query it, and return its description and phi."""
    started, session = perf_counter(), session or DeviceSession(material)
    network, losses = job.network(job.seed), []
    if isinstance(inner := unwrap(network), EstimatorNetwork):
        return _fit_and_query(job, network, inner, material, started)
    if (state := job.store.load_weights(job.number, network.state_dict())) is not None:
        network.load_state_dict(state)
    else:
        job.store.fetch_checkpoint(job.number)

        def finished(epoch: int, loss: float) -> None:
            job.store.send_checkpoint(job.number)
            losses.append(float(loss))
            if on_epoch is not None:
                on_epoch(epoch, loss)

        try:
            network = fit_reference(
                network,
                material,
                job.keep,
                job.recipe,
                job.trainer,
                seed=job.seed,
                checkpoint=job.store.checkpoint(job.number),
                device=job.device,
                on_epoch=finished,
                session=session,
            )
        except DivergedError as error:
            return ReferenceRecord(job.number, "diverged", seconds=perf_counter() - started, reason=str(error)), None
        job.store.save_weights(job.number, network.state_dict())
    seconds = perf_counter() - started
    result = compute_phi(network, material, device=job.device, session=session)
    if not np.isfinite(result.phi).all():
        return ReferenceRecord(job.number, "diverged", seconds=seconds, reason="its outputs are not finite"), None
    in_, out_ = (float(result.correct[rows].mean()) if rows.any() else 0.0 for rows in (job.keep, ~job.keep))
    return ReferenceRecord(job.number, "trained", in_, out_, seconds, losses=tuple(losses)), result.phi


def _fit_and_query(
    job: ReferenceJob, network: nn.Module, inner: EstimatorNetwork, material: TrainingData, started: float
) -> Result:
    """Fit an estimator on its records and return its description and phi; its fitted state is not stored."""
    rows = np.flatnonzero(job.keep)
    try:
        inner.fit(np.asarray(material.images[rows]), material.labels[rows])
        seconds = perf_counter() - started
        logits = network(torch.from_numpy(np.asarray(material.images[:]))) / material.temperature
    except Exception as error:
        return ReferenceRecord(job.number, "diverged", seconds=perf_counter() - started, reason=first_line(error)), None
    labels = torch.from_numpy(material.labels)
    correct = is_correct(logits, labels).numpy()
    in_, out_ = (float(correct[part].mean()) for part in (job.keep, ~job.keep))
    values = phi(logits, labels).numpy()[:, None]
    return ReferenceRecord(job.number, "trained", in_, out_, seconds), values


def _with_ray(
    jobs: list[ReferenceJob], material: TrainingData, config: ReferencesConfig, ray_address: str | None
) -> Iterator[tuple[ReferenceJob, Result]]:
    """Train by Ray's workers, as many at a time as there are processors for.

    A job whose worker is lost is given to another, which goes on from its last finished epoch. Losses of machines do
    not count as failures; see `Losses`.
    """
    gpus = {"num_gpus": torch.cuda.device_count()} if config.gpus_per_worker else {}
    if 0 < config.gpus_per_worker < 1 and not mps_is_running():
        log.warning(
            "several references share a GPU, but NVIDIA MPS is not running, so their work takes turns; start it by "
            "nvidia-cuda-mps-control -d on each machine, or use --references.gpus_per_worker 1"
        )
    machine: dict[str, Any] = {"num_cpus": config.workers * config.threads, **gpus}
    with ray_session(ray_address, option="--ray.address", **machine) as ray:
        shared = ray.put(material if ray_address else material.by_file())  # a cluster may not have the files
        resources: dict[str, Any] = {"num_cpus": config.threads, "num_gpus": config.gpus_per_worker, "max_retries": 0}
        remote = ray.remote(**resources)(_in_worker)
        waiting = deque(jobs)
        running: dict[Any, ReferenceJob] = {}
        losses = {job.number: Losses() for job in jobs}
        while True:
            while waiting and len(running) < config.workers:
                job = waiting.popleft()
                running[remote.remote(job, shared, config.threads)] = job
            if not running:
                return
            with signals_as_keyboard_interrupt():
                done, _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done[0])
            try:
                yield job, _fetched(ray, done[0])
            except ray.exceptions.RayError as error:
                losses[job.number].add(job.store.progress(job.number), type(error).__name__, weight_of(error))
                waiting.appendleft(job)


def _fetched(ray: Any, reference: Any) -> Result:
    try:
        result: Result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, MIAError) else error from None
    return result


@dataclass
class Losses:
    """Losses of one job's workers since its last progress."""

    count: float = 0
    progress: bytes = b""

    def add(self, progress: bytes, cause: str, weight: float = 1.0) -> None:
        """Count a loss, from zero again where the job got further than at the loss before.

        Args:
            progress: From `ReferenceStore.progress`.
            cause: Name of the error.
            weight: 1 for a crash of the job, less for what may be a preemption, 0 for a lost machine.

        Raises:
            MIAError: `LOSSES` losses without progress.
        """
        self.count = self.count + weight if progress == self.progress else weight
        self.progress = progress
        if self.count >= LOSSES:
            times = f"{self.count / weight:.0f} times"
            raise MIAError(
                f"a worker that trained a reference was lost {times} without finishing an epoch ({cause}); "
                "lower --references.workers, as memory is the usual reason; finished references are kept"
            )
        log.warning("a worker was lost (%s); its reference goes on from its last finished epoch", cause)


LOSSES = 5
"""Crashes of one job without progress that end a run."""

KILL_WEIGHT = 0.25
"""Weight of a worker's process that was killed on a running machine: by a scheduler, for its memory or by its code."""


def weight_of(error: Exception) -> float:
    """Return the weight of an error of Ray's in `Losses`."""
    from ray import exceptions as errors

    if isinstance(error, errors.NodeDiedError | errors.LocalRayletDiedError | errors.ObjectLostError):
        return 0.0  # the machine was lost
    return KILL_WEIGHT if isinstance(error, errors.WorkerCrashedError) else 1.0


def _in_worker(job: ReferenceJob, material: TrainingData, threads: int) -> Result:
    torch.set_num_threads(threads)
    if job.store.remote is None:
        return train_and_query(job, material)
    with TemporaryDirectory(prefix="mia-references-") as folder:  # this machine may share no folder with the driver's
        return train_and_query(replace(job, store=job.store.at(Path(folder))), material)


class Progress:
    """Progress line: references done and to do, time left, references per hour."""

    def __init__(self, count: int, epochs: int) -> None:
        self.count, self.epochs, self.done, self.started = count, epochs, 0, perf_counter()

    def __enter__(self) -> Progress:
        layout = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = progress_bar(total=self.count * self.epochs, unit="epoch", bar_format=layout)
        self.bar.set_description(f"references: 0/{self.count}")
        return self

    def epoch(self, epoch: int, loss: float) -> None:
        """Advance within a reference that is trained in this process."""
        self.bar.update(self.done * self.epochs + epoch - self.bar.n)
        self.bar.set_postfix_str(f"loss {loss:.3f}")

    def finished(self, row: ReferenceRecord) -> None:
        """Advance to the end of a reference, logged where no bar is shown."""
        self.done += 1
        rate = self.done / (perf_counter() - self.started) * 3600
        self.bar.update(self.done * self.epochs - self.bar.n)
        self.bar.set_description(f"references: {self.done}/{self.count}")
        self.bar.set_postfix_str(f"{rate:.0f} references/hour")
        if not sys.stderr.isatty():
            minutes = (self.count - self.done) / rate * 60
            log.info("references: %d/%d, %.0f/hour, %.0f minutes left", self.done, self.count, rate, minutes)
        if row.status != "trained":
            log.warning("reference %d is left out: %s", row.number, row.reason)

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def device_of(config: ReferencesConfig) -> str:
    """Return where references are trained: "cuda" or "cpu"."""
    if config.workers == 0:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda" if config.gpus_per_worker > 0 else "cpu"
