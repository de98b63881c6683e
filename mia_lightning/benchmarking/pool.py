"""Models of a benchmark: trained once on random halves of the records, or read from elsewhere."""

import logging
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mia_lightning.benchmarking.network import small_network
from mia_lightning.config.benchmark import BenchmarkConfig
from mia_lightning.errors import MIAError, printable
from mia_lightning.evaluation.pixel_features import pixel_features
from mia_lightning.records.readers import read_records
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.references.exchange import read_pool
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.prepare import INFERENCE_CODE
from mia_lightning.references.splits import assign
from mia_lightning.references.store import ReferenceStore
from mia_lightning.references.training import NUMBERS
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.workers import ReferenceJob, device_of, train_references
from mia_lightning.runtime.store import array_digest, key_of, source_digest
from mia_lightning.targets.architectures import untrained
from mia_lightning.targets.imported import source_of
from mia_lightning.targets.inputs import refuse_text

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BenchmarkPool:
    """Models whose outputs are compared."""

    outputs: ReferenceOutputs
    """Its target is not read."""

    features: NDArray[np.float32] | None
    """(N, F) of the images, for quantile regression; None without images."""

    description: str
    digest: str
    seconds: float
    """Training time of one model; NaN where it is not known."""


def share_of_array() -> tuple[int, int]:
    """Return which part of the models this process trains, and of how many: that of a SLURM array's task."""
    environment = os.environ
    count = int(environment.get("SLURM_ARRAY_TASK_COUNT", "1"))
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
    return (int(environment.get("SLURM_ARRAY_TASK_ID", str(first))) - first) % count, count


def read_models(path: str, labels_file: str | None, *, option: str = "--pool") -> BenchmarkPool:
    """Return the models of a file or folder, see `read_pool`.

    Raises:
        MIAError: as `read_pool`, or fewer than three models.
    """
    pool = read_pool(path, labels=labels_file, option=option)
    if len(pool.phi) < 3:
        raise MIAError(f"{pool.source}: has {len(pool.phi)} models; a target needs at least two others")
    labels = np.zeros(pool.phi.shape[1], np.int64) if pool.labels is None else pool.labels
    outputs = ReferenceOutputs(pool.phi[0], pool.phi, pool.keep, labels, max(int(labels.max()) + 1, 2), pool.drawn)
    covered = np.flatnonzero(outputs.covered)
    for note in pool.notes:
        log.info("%s", note)
    if missing := len(labels) - len(covered):
        log.info("%s of %s records have no model drawn IN or OUT; left out", f"{missing:,}", f"{len(labels):,}")
        outputs = outputs.records(covered)
    name = Path(path).name
    return BenchmarkPool(outputs, None, f"{len(pool.phi)} models of {name}", array_digest(outputs.references), np.nan)


def train_models(config: BenchmarkConfig) -> BenchmarkPool | None:
    """Train the models that are missing in the store, and return all of them; None where other tasks still train some.

    Models are complementary pairs of random halves; a target's references are other pairs, whose halves were drawn
    independently of its own.

    Raises:
        MIAError: records that cannot be read, an unknown architecture, a batch larger than half of the records.
    """
    records = _records(config)
    count = max(max(config.references) + 2, 2 if config.targets == "all" else int(config.targets))
    count += count % 2
    if config.training.is_head or not config.training.is_built_in:
        raise MIAError("--training.class_path: the models of the benchmark are trained by --training.*; leave it out")
    _, batch_size = config.training.counts()
    if len(records) // 2 < batch_size:
        raise MIAError(
            f"a model has {len(records) // 2} records to train on, fewer than one batch of "
            f"{batch_size}; lower --training.batch_size"
        )
    classes = int(records.labels.max()) + 1
    material = _material(config, records, classes)
    keep = assign("balanced", count, np.full(len(records), UNKNOWN, np.int8), private=0, seed=config.seed).keep
    network = partial(_network, config.architecture, records.images.shape[1:], classes)
    store = _store(config, material)
    rows = _train(config, material, keep, network, store)
    if rows is None:
        return None
    trained = np.array([row.status == "trained" for row in rows])
    pairs = np.repeat(trained.reshape(-1, 2).all(axis=1), 2)  # a pair is complete or left out
    if pairs.sum() < 4:
        raise MIAError(f"{int((~trained).sum())} of {count} models diverged; lower --training.learning_rate")
    matrix = store.matrix(count)
    outputs = ReferenceOutputs(
        matrix[0], matrix if pairs.all() else matrix[pairs], keep[pairs], records.labels, classes
    )
    by_column = pixel_features(records.images).values() if records.is_image else np.asarray(material.images).T
    features = np.stack(list(by_column), axis=1).astype(np.float32)
    accuracy = np.array([(row.accuracy_in, row.accuracy_out) for row in rows])[pairs]
    in_, out = accuracy.mean(axis=0)
    gap = accuracy[:, 0] - accuracy[:, 1]
    if gap.mean() < 2 * gap.std(ddof=1) / np.sqrt(len(gap)):
        log.warning(
            "the accuracy of %d models does not clearly differ between records IN (%.1f%%) and OUT (%.1f%%) of their "
            "training, so attacks may be near chance; train longer with --training.epochs",
            *(len(gap), 100 * in_, 100 * out),
        )
    description = (
        f"{int(pairs.sum())} models ({config.architecture}) on halves of {len(records):,} records of "
        f"{Path(str(config.data)).name}, accuracy {in_:.1%} IN and {out:.1%} OUT"
    )
    seconds = float(np.mean([row.seconds for row in rows]))
    return BenchmarkPool(outputs, features, description, store.folder.name + store.rows.name, seconds)


def _records(config: BenchmarkConfig) -> Records:
    try:
        records = read_records(str(config.data), columns=config.columns)
        _refuse_gaps(records)
    except MIAError as error:  # with the options of train.py
        message = str(error).replace("; choose one with --data.reader NAME", "")
        raise MIAError(message.replace("--data.columns", "--columns")) from None
    if (records.labels < 0).any():
        raise MIAError(f"{records.source}: {int((records.labels < 0).sum())} records have no label to train on")
    if records.multi_hot is not None:
        raise MIAError(
            f"{records.source}: records have {records.multi_hot.shape[1]} labels each (multi-label); the benchmark "
            "trains classifiers of one class a record; choose such a data set, or audit one target by train.py"
        )
    if records.images.ndim not in (2, 4):
        raise MIAError(f"{records.source}: records are {records.images.shape[1:]}; give images or rows of a table")
    if config.records is not None and config.records < len(records):
        chosen = np.random.default_rng((config.seed, 7)).permutation(len(records))[: config.records]
        records = records.rows(np.sort(chosen))
    return records


def _refuse_gaps(records: Records) -> None:
    """Refuse a table with text or missing values, which the networks of the benchmark do not take."""
    features = records.features
    if features is None:
        return
    refuse_text(features, f"{records.source}: the benchmark's network")
    if (missing := np.isnan(records.images).any(axis=0)).any():
        column = features.names[int(np.argmax(missing))]
        raise MIAError(
            f"{records.source}: column {printable(column, 40)!r} has missing values, which the benchmark's network "
            f"does not take ({int(missing.sum())} such columns); {features.encode([column])}"
        )


def _material(config: BenchmarkConfig, records: Records, classes: int) -> TrainingData:
    """Return the records with the statistics that standardize images, or with columns that are standardized already."""
    axes = (0, 2, 3) if records.is_image else (0,)
    scale = 255.0 if records.images.dtype == np.uint8 else 1.0
    sample = records.images[:10_000].astype(np.float64) / scale
    mean, std = sample.mean(axis=axes), np.maximum(sample.std(axis=axes), 1e-6)
    if records.is_image:
        statistics = tuple(mean.tolist()), tuple(std.tolist())
        return TrainingData(records.images, records.labels, *statistics, classes, config.queries)
    rows = ((records.images / scale - mean) / std).astype(np.float32)
    return TrainingData(rows, records.labels, (), (), classes, 1)


def _network(architecture: str, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    if architecture != "small":
        return untrained(architecture, classes, {}, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_network(shape, classes)


def _store(config: BenchmarkConfig, material: TrainingData) -> ReferenceStore:
    root = Path(config.cache_dir or Path(config.output).parent / ".store")
    source = source_of(config.architecture) or source_digest(("benchmarking.network",))
    training = {
        "benchmark": config.architecture,
        "source": sha256(source.encode()).hexdigest(),
        "images": array_digest(material.images),
        "labels": array_digest(material.labels),
        "mean": material.mean,
        "std": material.std,
        "training": asdict(config.training),
        "seed": config.seed,
        "numbers": NUMBERS,
    }
    inference = {"queries": material.queries, "code": source_digest(INFERENCE_CODE), "torch": torch.__version__}
    records = len(material.labels)
    return ReferenceStore(root, training=training, inference=inference, records=records, queries=material.queries)


def _train(
    config: BenchmarkConfig,
    material: TrainingData,
    keep: NDArray[np.bool_],
    network: partial[nn.Module],
    store: ReferenceStore,
) -> list | None:  # type: ignore[type-arg]
    """Train this task's part of the missing models; return the descriptions of all, None where any is missing."""
    part, parts = share_of_array()
    size = sum(tensor.nbytes for tensor in network(0).state_dict().values())
    store.open(keep, weights_bytes=size)
    options = ReferencesConfig(
        count=len(keep),
        training=config.training,
        workers=config.workers,
        threads=config.threads,
        gpus_per_worker=config.gpus_per_worker,
    )
    device = device_of(options)
    with nullcontext() if parts > 1 else store.lock().held("models"):  # two runs would train the same
        jobs = [
            ReferenceJob(number, row, _seed(config.seed, number), config.training, network, store, device)
            for number, row in enumerate(keep)
            if number % parts == part and store.row(number) is None
        ]
        log.info("models: %d of %d to train%s", len(jobs), len(keep), f" (part {part} of {parts})" if parts > 1 else "")
        train_references(jobs, material, options, ray_address=config.ray_address)
    rows = [store.row(number) for number in range(len(keep))]
    missing = [number for number, row in enumerate(rows) if row is None]
    if missing:
        log.info("models %s are trained by other tasks; the last task writes the table", missing)
        return None
    return rows


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def digest_of(config: BenchmarkConfig, pool: BenchmarkPool) -> str:
    """Return the key of figures: everything that determines them."""
    settings = {name: getattr(config, name) for name in ("heads", "folds", "seed")}
    code = source_digest(("benchmarking.attacks", "benchmarking.figures", "references.standard_scores"))
    return key_of({"pool": pool.digest, "settings": settings, "code": code})
