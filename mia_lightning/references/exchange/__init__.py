"""Import and export of models' phi and training records: arrays, tables and published folder layouts."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.exchange.conversion import FORMS, LABELS
from mia_lightning.references.exchange.export import save_reference_outputs
from mia_lightning.references.exchange.files import KEEP_FILES, has_keep_columns, read_array, read_columns, read_npz
from mia_lightning.references.exchange.layouts import is_checkpoint_folder, read_folder
from mia_lightning.references.exchange.pool import Pool, pool_of, role_of
from mia_lightning.references.outputs import ReferenceOutputs

__all__ = ["Pool", "is_checkpoint_folder", "is_pool", "load_reference_outputs", "read_pool", "save_reference_outputs"]

VIEWS = (1, 2, 18, 50)
"""Numbers of views of the fixed query sets (--references.queries)."""


def read_pool(
    path: str,
    *,
    labels: str | None = None,
    default_labels: NDArray[np.int64] | None = None,
    option: str = "--references.imported",
) -> Pool:
    """Read the phi, logits, probabilities or losses and the training records of K models.

    Args:
        path: An .npz, an .npy next to the others, a Parquet or CSV table with one row per record (or per model and
            record), or a folder (see `layouts.read_folder`).
        labels: A file of the records' labels (.npy, .npz, Parquet or CSV), for sources without.
        default_labels: (N,) for sources without labels where no file is given.
        option: The option that names the path, for messages.

    Raises:
        MIAError: it cannot be read, or what it lacks cannot be known.
    """
    file, source = Path(path), f"{option} {path}".strip()
    notes: list[str] = []
    if file.is_dir() or file.suffix == ".npy":
        if not file.exists():
            raise MIAError(f"{source}: no such file or folder")
        arrays, notes = read_folder(file if file.is_dir() else file.parent, source)
    elif file.suffix.lower() in (".parquet", ".pq", ".csv", ".tsv"):
        arrays = read_columns(file, source)
    else:
        arrays = read_npz(file, source)
    if labels is not None:
        arrays["labels"] = _read_labels(Path(labels), LABELS.get(option, ""))
    elif "labels" not in arrays and default_labels is not None and (default_labels >= 0).all():
        arrays["labels"] = default_labels
    return pool_of(arrays, source, notes=tuple(notes))


def is_pool(path: str | Path) -> bool:
    """Whether a path is a folder, or a file with outputs and training records of several models."""
    file = Path(path)
    if file.is_dir():
        return True
    try:
        if file.suffix == ".npz":
            arrays = read_npz(file, str(path))
            return {*arrays} & {*FORMS} != set() and "keep" in arrays and arrays["keep"].ndim == 2
        if file.suffix == ".npy":
            return role_of(file.stem) in FORMS and any(file.with_name(f"{stem}.npy").is_file() for stem in KEEP_FILES)
        return has_keep_columns(file)
    except MIAError:  # the reader of scores states the reason
        return False


def _read_labels(path: Path, option: str) -> NDArray[Any]:
    source = f"{option} {path}".strip()
    if path.suffix == ".npy":
        return read_array(path, source)
    arrays = read_npz(path, source) if path.suffix == ".npz" else read_columns(path, source)
    if "labels" not in arrays:
        raise MIAError(f"{source}: has no labels; expected an array or column named labels")
    return arrays["labels"]


def load_reference_outputs(
    path: str,
    *,
    labels: NDArray[np.int64] | None,
    num_classes: int,
    records: int | None = None,
    target: NDArray[np.float32] | None = None,
    run_labels: NDArray[np.int64] | None = None,
    labels_file: str | None = None,
) -> ReferenceOutputs:
    """Read the models of `read_pool` as references of the run's records.

    Args:
        path: See `read_pool`.
        labels: (N,) of the records it must belong to, in their order; None = not known yet.
        num_classes: Number of classes.
        records: N, where labels are not given.
        target: (N, Q) phi of the target, for sources without one; None = zeros.
        run_labels: (N,) by which logits without labels are read (default: labels).
        labels_file: File of labels, see `read_pool`.

    Raises:
        MIAError: as `read_pool`; another number of records or views; labels of other records.
    """
    pool = read_pool(path, labels=labels_file, default_labels=labels if run_labels is None else run_labels)
    count, views = pool.phi.shape[1:]
    n = (records or 0) if labels is None else len(labels)
    if count != n:
        raise MIAError(
            f"{pool.source}: has {count} records; expected rows for the {n} records of this run, public first"
        )
    if labels is not None and pool.labels is not None and not np.array_equal(pool.labels, labels):
        raise MIAError(f"{pool.source}: its labels are not those of this run's records; is it another data set's?")
    if pool.targets is not None and len(pool.targets) > 1:
        raise MIAError(f"{pool.source}: has {len(pool.targets)} targets but the run has one; store one target in it")
    if pool.targets is None and target is not None and target.shape[1] != views:
        advice = "set --references.queries to it" if views in VIEWS else f"views must number one of {VIEWS}"
        raise MIAError(
            f"{pool.source}: has {views} views per record and no phi of the target, which the run queries with "
            f"{target.shape[1]}; {advice} if they are the same views, or add the target's phi"
        )
    target_phi = np.zeros(pool.phi.shape[1:], np.float32) if target is None else target
    return ReferenceOutputs(
        target=target_phi if pool.targets is None else pool.targets[0],
        references=pool.phi,
        keep=pool.keep,
        labels=np.zeros(n, np.int64) if labels is None else labels,
        num_classes=num_classes,
        drawn=pool.drawn,
    )
