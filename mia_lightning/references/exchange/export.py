"""Export of phi and training records: one .npz, or the folder layout of tensorflow/privacy."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.runtime.atomic import atomic_open


def save_reference_outputs(path: Path, reference_outputs: ReferenceOutputs) -> None:
    """Write phi (K, N, Q), keep (K, N), target (N, Q), labels (N,) and drawn (K, N) for `load_reference_outputs`.

    A path that ends in .npz is one file. Any other is a folder in the layout of tensorflow/privacy and its `plot.py`:
    `experiment-<k>_<K>/keep.npy` and `experiment-<k>_<K>/scores/0000000000.npy`, with `y_train.npy`, `target.npy` and,
    if there is one, `drawn.npy` at the top.

    Raises:
        MIAError: it cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {"target": reference_outputs.target, "labels": reference_outputs.labels}
    if reference_outputs.drawn is not None:
        arrays["drawn"] = reference_outputs.drawn
    try:
        if path.suffix == ".npz":
            arrays |= {"phi": reference_outputs.references, "keep": reference_outputs.keep}
            with atomic_open(path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            return
        count = len(reference_outputs.references)
        for k, (phi, keep) in enumerate(zip(reference_outputs.references, reference_outputs.keep, strict=True)):
            model = path / f"experiment-{k}_{count}"
            (model / "scores").mkdir(parents=True, exist_ok=True)
            _write(model / "keep.npy", keep)
            _write(model / "scores" / "0000000000.npy", phi)
        for name, values in arrays.items():
            _write(path / f"{'y_train' if name == 'labels' else name}.npy", values)
    except OSError as error:
        raise MIAError(f"cannot write {path}: {error.strerror}; name another --references.exported") from error


def _write(path: Path, values: NDArray[Any]) -> None:
    with atomic_open(path) as file:
        np.save(file, values)
