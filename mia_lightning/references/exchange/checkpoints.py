"""Folders of checkpoints and a keep matrix: models trained elsewhere that are queried now."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.references.exchange import is_checkpoint_folder, load_reference_outputs
from mia_lightning.references.exchange.files import keep_rows, read_array, read_keep
from mia_lightning.references.exchange.layouts import checkpoint_files
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.training_step import DeviceSession
from mia_lightning.targets import weight_sets, weights
from mia_lightning.targets.imported import first_line
from mia_lightning.targets.wrapper import unwrap

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CheckpointFolder:
    """Checkpoints of K models and their training records."""

    files: tuple[Path, ...]
    keep: NDArray[np.bool_]
    """(K, N)."""


def imported_outputs(
    config: ReferencesConfig,
    labels: NDArray[np.int64],
    target: NDArray[np.float32],
    *,
    num_classes: int,
    network: Callable[[int], nn.Module],
    material: Callable[[], TrainingData],
    device: str,
) -> ReferenceOutputs:
    """Return the references of `--references.imported`: stored outputs, or checkpoints that are queried now.

    Args:
        config: Its imported is not None.
        labels: (N,) of the run's records, public first.
        target: (N, Q) phi of the run's target.
        num_classes: Number of classes.
        network: Returns the network of the checkpoints.
        material: Returns the run's records.
        device: Where checkpoints are queried.

    Raises:
        MIAError: as `load_reference_outputs`, `read_checkpoint_folder` and `query_checkpoints`.
    """
    path = str(config.imported)
    if not is_checkpoint_folder(path):
        return load_reference_outputs(
            path, labels=labels, num_classes=num_classes, target=target, labels_file=config.labels
        )
    folder = read_checkpoint_folder(path, records=len(labels))
    phi = query_checkpoints(folder, network(0), material(), device=device)
    return ReferenceOutputs(target, phi, folder.keep, labels, num_classes)


def read_checkpoint_folder(path: str, *, records: int) -> CheckpointFolder:
    """Return the checkpoints of a folder in the order of their numbers, with their training records.

    The keep matrix is `keep.npy`, `keep.csv` or `keep.json` at the top (see `files.read_keep`), or `keep.npy` in the
    folder of each model.

    Raises:
        MIAError: no keep matrix, or one for other numbers of models or records.
    """
    source, folder = f"--references.imported {path}", Path(path)
    files = checkpoint_files(folder)
    each = [file.parent / "keep.npy" for file in files]
    if files[0].parent != folder and all(file.is_file() for file in each):
        keep = keep_rows(np.stack([read_array(file, source).reshape(-1) for file in each]), len(files), records, source)
    else:
        keep = keep_rows(read_keep(folder, source), len(files), records, source)
    return CheckpointFolder(tuple(files), keep)


def query_checkpoints(
    folder: CheckpointFolder, network: nn.Module, material: TrainingData, *, device: str
) -> NDArray[np.float32]:
    """Return phi (K, N, Q) of every checkpoint, loaded into one network in turn; nothing in a file is executed.

    Raises:
        MIAError: a checkpoint that is damaged or of another architecture.
    """
    network = network.eval()
    session = DeviceSession(material)
    phi = np.empty((*folder.keep.shape, material.queries), np.float32)
    for k, file in enumerate(folder.files):
        try:
            _load(unwrap(network), file)
        except MIAError as error:
            raise MIAError(
                f"--references.imported: {file.name} does not fit the target's network ({error}); name the network of "
                "the models by --references.architecture"
            ) from error
        phi[k] = compute_phi(network, material, device=device, session=session).phi
        log.info("references: queried %s (%d/%d)", file.name, k + 1, len(folder.files))
    if not np.isfinite(phi).all():
        raise MIAError("--references.imported: the outputs of a checkpoint are not finite; remove it")
    return phi


def _load(network: nn.Module, file: Path) -> None:
    tensors = weights.read_weights(file).tensors
    sets = weight_sets.weight_sets(tensors, network)
    if not sets:
        raise MIAError(f"its tensors begin with {', '.join(list(tensors)[:3])}")
    chosen, _ = weight_sets.choose(sets, None, file.name)
    weights.check_finite(chosen.tensors, file.name)
    try:
        network.load_state_dict(chosen.tensors, strict=False)
    except RuntimeError as error:
        raise MIAError(first_line(error)) from error
