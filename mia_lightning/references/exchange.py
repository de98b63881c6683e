"""Import and export of phi, keep and target as one .npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.runtime.atomic import atomic_open


def save_reference_outputs(path: Path, reference_outputs: ReferenceOutputs) -> None:
    """Write phi (K, N, Q), keep (K, N), target (N, Q), labels (N,) and drawn (K, N) for `load_reference_outputs`.

    Raises:
        MIAError: the file cannot be written.
    """
    arrays = {
        "phi": reference_outputs.references,
        "keep": reference_outputs.keep,
        "target": reference_outputs.target,
        "labels": reference_outputs.labels,
    }
    if reference_outputs.drawn is not None:
        arrays["drawn"] = reference_outputs.drawn
    try:
        with atomic_open(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise MIAError(f"cannot write {path}: {error.strerror}; name another --references.exported") from error


def load_reference_outputs(
    path: str, *, labels: NDArray[np.int64] | None, num_classes: int, records: int | None = None
) -> ReferenceOutputs:
    """Read phi computed elsewhere.

    Args:
        path: An .npz with phi (K, N, Q) or (K, N), keep (K, N), target (N, Q) or (N,), and if it has them labels (N,)
            and drawn (K, N), see `ReferenceOutputs`.
        labels: (N,) of the records it must belong to, in their order; None = not known yet.
        num_classes: Number of classes.
        records: N, where labels are not given.

    Raises:
        MIAError: missing arrays, other shapes, values that are not finite, or labels of other records.
    """
    arrays, name = _read_npz(path), f"--references.imported {path}"
    if missing := [key for key in ("phi", "keep", "target") if key not in arrays]:
        raise MIAError(f"{name}: has no array {missing[0]!r}; expected phi (K, N, Q), keep (K, N) and target (N, Q)")
    phi, keep, target = arrays["phi"], arrays["keep"], arrays["target"]
    phi = phi[..., None] if phi.ndim == 2 else phi
    target = target[:, None] if target.ndim == 1 else target
    n = (records or 0) if labels is None else len(labels)
    if phi.ndim != 3 or keep.shape != phi.shape[:2] or target.shape != phi.shape[1:] or phi.shape[1] != n:
        raise MIAError(
            f"{name}: phi is {phi.shape}, keep {keep.shape}, target {target.shape}; expected (K, {n}, Q), (K, {n}) and "
            f"({n}, Q) for the {n} records of this run, public first"
        )
    if labels is not None and "labels" in arrays and not np.array_equal(arrays["labels"], labels):
        raise MIAError(f"{name}: its labels are not those of this run's records; is it another data set's?")
    drawn = arrays.get("drawn", np.ones_like(keep))
    if drawn.shape != keep.shape or not np.isin(drawn, (0, 1)).all():
        raise MIAError(f"{name}: drawn is {drawn.shape}; expected 0 and 1 in the shape of keep, {keep.shape}")
    if not np.isin(keep, (0, 1)).all() or not (np.isfinite(phi).all() and np.isfinite(target).all()):
        raise MIAError(f"{name}: phi and target must be finite, and keep must hold only 0 and 1")
    return ReferenceOutputs(
        target.astype(np.float32),
        phi.astype(np.float32),
        keep.astype(bool),
        np.zeros(n, np.int64) if labels is None else labels,
        num_classes,
        None if drawn.all() else drawn.astype(bool),
    )


def _read_npz(path: str) -> dict[str, NDArray[Any]]:
    """Return the named arrays of an .npz; nothing is unpickled."""
    name = f"--references.imported {path}"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in ("phi", "keep", "target", "labels", "drawn") if key in stored.files}
    except OSError as error:
        raise MIAError(f"{name}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # damaged headers and streams raise many things
        raise MIAError(f"{name}: is not an .npz of plain numbers ({str(error).splitlines()[0][:200]})") from error
