"""Making of canaries."""

import secrets
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.canary.config import MakeConfig, Pattern
from mia_lightning.canary.manifest import NAME, Manifest, commit
from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records
from mia_lightning.records.records import Records
from mia_lightning.runtime.atomic import replacement
from mia_lightning.runtime.output_folder import OutputFolder
from mia_lightning.runtime.store import array_digest, key_of

FEWEST, MOST = 20, 100_000
"""Numbers of canaries; with fewer no epsilon can be refuted."""


def make(config: MakeConfig) -> Manifest:
    """Make canaries, toss their coins, and write manifest.json, train.npz and canaries.npz.

    Raises:
        MIAError: any mistake in the options or the records.
    """
    if len(config.records) != 1:
        raise MIAError(f"{len(config.records)} files of records are named; name the one that canaries are made from")
    if config.output is None:
        raise MIAError("--output is not given; name a new folder for the canaries")
    if not FEWEST <= config.count <= MOST:
        raise MIAError(f"--count must be between {FEWEST} and {MOST:,}, got {config.count:,}")
    folder = OutputFolder(config.output)
    if folder.names:
        raise folder.other_files(folder.names[0])
    records = read_records(config.records[0], reader=config.reader)
    nonce = secrets.token_hex(32) if config.seed is None else f"{config.seed:064x}"
    rng = np.random.default_rng(int(nonce, 16))
    images, labels = canaries(records, config.pattern, config.count, rng)
    coins = rng.integers(0, 2, config.count)
    ids = [f"canary-{number:06d}" for number in range(config.count)]
    contents = digests(images, labels)
    if len(set(contents)) < len(contents):
        raise MIAError(
            f"{records.source}: {config.count:,} different {config.pattern} canaries cannot be made of these records; "
            "give a lower --count, or --pattern high_frequency"
        )
    manifest = commit(config.pattern, ids, coins.tolist(), labels.tolist(), contents, nonce)
    arrays = {"ids": np.array(ids), "images": images, "labels": labels}
    with folder.acquired():
        _write_npz(folder.path / "train.npz", {name: array[coins == 1] for name, array in arrays.items()})
        _write_npz(folder.path / "canaries.npz", arrays | {"membership": coins.astype(np.int8)})
        with folder.atomic_write(NAME) as file:
            file.write(manifest.to_json())
    return manifest


def canaries(
    records: Records, pattern: Pattern, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Return images (m, C, H, W) in the records' dtype and range, each different, and labels (m,).

    Raises:
        MIAError: fewer records than mislabeled canaries, or fewer than two classes.
    """
    if records.multi_hot is not None:
        raise MIAError(f"{records.source}: records have several labels; canaries need one class per record")
    classes = int(records.labels.max()) + 1
    if classes < 2:
        raise MIAError(f"{records.source}: has {max(classes, 0)} classes; canaries need records of two or more")
    labels = rng.integers(0, classes, count)
    shape = records.images.shape[1:]
    if pattern == "mislabeled":
        rows = np.flatnonzero(records.labels >= 0)
        if len(rows) < count:
            raise MIAError(
                f"{records.source}: has {len(rows):,} records with labels; {count:,} mislabeled canaries need as many, "
                f"so give --count {len(rows)} or fewer"
            )
        rows = rng.choice(rows, count, replace=False)
        wrong_labels = (records.labels[rows] + rng.integers(1, classes, count)) % classes
        return np.asarray(records.images[np.sort(rows)])[np.argsort(np.argsort(rows))], wrong_labels.astype(np.int64)
    values: NDArray[np.floating[Any]] = rng.integers(0, 2, (count, *shape)).astype(np.float32)
    if pattern == "blank":  # different pairs of color and label
        channels = min(shape[0], 3)
        codes = rng.choice(min(classes * 256**channels, 2**30), count, replace=count > classes * 256**channels)
        labels, colors = codes % classes, codes // classes
        digits = np.stack([colors // 256**channel % 256 for channel in range(channels)], axis=1)
        values = np.resize(digits.T, (shape[0], count)).T[:, :, None, None] / 255
    images = np.broadcast_to(values, (count, *shape))
    if records.images.dtype == np.uint8:
        return np.rint(255 * images).astype(np.uint8), labels
    sample = np.asarray(records.images[:1000])
    low, high = float(sample.min()), float(sample.max())
    return (low + (high - low) * images).astype(np.float32), labels


def digests(images: Any, labels: NDArray[np.int64]) -> list[str]:
    """Return the sha256 (hex) of each image with its label."""
    return [key_of({"image": array_digest(images[i : i + 1]), "label": int(labels[i])}) for i in range(len(labels))]


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with replacement(path) as partial, partial.open("xb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
