"""Folders of models: the published layouts of tensorflow/privacy, lira-pytorch, lira_analysis and Privacy Meter."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable, suggest
from mia_lightning.references.exchange.files import keep_rows, read_array, read_keep
from mia_lightning.references.exchange.pool import role_of

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Endings of files of weights."""

OUTPUTS = ("scores", "logits")
"""Files or folders of one model's outputs."""


def read_folder(folder: Path, source: str) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the arrays of a folder by role, and notes.

    One of:

    * `phi.npy` (or logits, probabilities, losses), `keep.npy` and any others named as in `ROLES`, side by side.
    * A folder for each model with `keep.npy` and its outputs: `scores.npy` or `logits.npy` (lira-pytorch), or
      `scores/` or `logits/` with one file per epoch, of which the last is read (tensorflow/privacy). A keep matrix of
      all models may lie at the top instead (lira_analysis). Labels: `labels.npy` or `y_train.npy` at the top.
    * `signals/*_signals.npy` (N, M) and `memberships.npy` (M, N) of Privacy Meter.

    Raises:
        MIAError: neither, or a model without outputs or without its training records.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for path in sorted(folder.glob("*.npy")):
        if (role := role_of(path.stem)) is not None and role not in arrays:
            arrays[role] = read_array(path, source)
    if (folder / "signals").is_dir():
        return _privacy_meter(folder, arrays, source)
    if {"phi", "logits", "probabilities", "losses"} & set(arrays):
        return arrays, []
    models = model_folders(folder)
    if not models:
        raise MIAError(_unknown(folder, source))
    return _models(folder, models, arrays, source)


def model_folders(folder: Path) -> list[Path]:
    """Return the folders of single models that have outputs, in the order of their numbers."""
    folders = (path for path in folder.iterdir() if path.is_dir())
    return sorted((path for path in folders if any(_outputs(path, name) for name in OUTPUTS)), key=natural)


def checkpoint_files(folder: Path) -> list[Path]:
    """Return one checkpoint for each model, in the order of their numbers: of files, or of folders with one each."""
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix in CHECKPOINTS]
    if files:
        return sorted(files, key=natural)
    of_models = []
    for model in sorted((path for path in folder.iterdir() if path.is_dir()), key=natural):
        inner = sorted((path for path in model.iterdir() if path.suffix in CHECKPOINTS), key=natural)
        of_models += inner[-1:]
    return of_models


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key by which model_2 comes before model_10, and experiment-2_16 before experiment-10_16."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _outputs(model: Path, name: str) -> Path | None:
    """Return a model's file of outputs: NAME.npy, NAME/NAME.npy, or the last of the epochs in NAME/."""
    for path in (model / f"{name}.npy", model / name / f"{name}.npy"):
        if path.is_file():
            return path
    epochs = sorted((model / name).glob("*.npy"), key=natural) if (model / name).is_dir() else []
    return epochs[-1] if epochs else None


def _models(
    folder: Path, models: list[Path], arrays: dict[str, NDArray[Any]], source: str
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    name = next((name for name in OUTPUTS if all(_outputs(model, name) for model in models)), None)
    if name is None:
        without = next(model for model in models if not _outputs(model, "scores"))
        raise MIAError(f"{source}: {without.name} has no scores but other models have; complete it or remove it")
    files = [path for model in models if (path := _outputs(model, name)) is not None]
    outputs = [read_array(path, source) for path in files]
    shapes = {values.shape for values in outputs}
    if len(shapes) > 1:
        raise MIAError(f"{source}: the models' {name} differ in shape, {printable(sorted(shapes)[:3], 80)}")
    stacked = np.stack(outputs)
    if "keep" in arrays or not all((model / "keep.npy").is_file() for model in models):
        keep = arrays["keep"] if "keep" in arrays else read_keep(folder, source)
        arrays["keep"] = keep_rows(keep, len(models), stacked.shape[1], source)
    else:
        keeps = [read_array(model / "keep.npy", source).reshape(-1) for model in models]
        keeps = [_as_mask(keep, stacked.shape[1]) for keep in keeps]
        if len({len(keep) for keep in keeps}) > 1 or len(keeps[0]) != stacked.shape[1]:
            raise MIAError(f"{source}: keep.npy has {len(keeps[0])} records but {name} {stacked.shape[1]}")
        arrays["keep"] = np.stack(keeps)
    notes = [f"{source}: read {name} of {len(models)} models, {models[0].name} to {models[-1].name}"]
    if files[0].parent.name in OUTPUTS and len(list(files[0].parent.glob("*.npy"))) > 1:
        notes.append(f"{source}: of several epochs the last was read, {files[0].name}")
    return arrays | {"phi" if name == "scores" else "logits": stacked}, notes


def _as_mask(keep: NDArray[Any], count: int) -> NDArray[Any]:
    """Return a keep row over the records, also of the numbers of the records that a model was trained on."""
    is_numbers = keep.dtype.kind in "iu" and len(keep) > 0 and keep.min() >= 0 and 1 < keep.max() < count
    if not is_numbers or len(np.unique(keep)) < len(keep):
        return keep
    mask = np.zeros(count, np.bool_)
    mask[keep] = True
    return mask


def _privacy_meter(
    folder: Path, arrays: dict[str, NDArray[Any]], source: str
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    files = sorted((folder / "signals").glob("*_signals.npy"))
    if len(files) != 1:
        listed = ", ".join(path.name for path in files[:4]) or "none"
        raise MIAError(f"{source}: signals/ must contain one file *_signals.npy, but has {listed}; remove the others")
    if "keep" not in arrays:
        raise MIAError(f"{source}: has no memberships.npy (models x records) of the models in signals/{files[0].name}")
    signals = read_array(files[0], source)
    if signals.ndim != 2 or signals.shape not in (arrays["keep"].shape, arrays["keep"].shape[::-1]):
        raise MIAError(
            f"{source}: signals/{files[0].name} is {signals.shape} but memberships.npy {arrays['keep'].shape}; "
            "expected records x models and models x records"
        )
    form = (
        "losses" if "loss" in files[0].name else "probabilities" if 0 <= signals.min() <= signals.max() <= 1 else "phi"
    )
    return arrays | {form: signals}, [f"{source}: signals/{files[0].name} is read as {form} of the record's class"]


def _unknown(folder: Path, source: str) -> str:
    if checkpoint_files(folder):
        return (
            f"{source}: has checkpoints but no outputs; name the records to query them on by --data.public and the "
            "network by --target.architecture, or store phi of each model"
        )
    names = ["scores.npy", "logits.npy", "keep.npy", "phi.npy", "memberships.npy"]
    files = [path.name for path in folder.glob("*.npy")]
    hint = f"; {suggest(files[0], names)}" if files else ""
    return (
        f"{source}: is not a folder of models; expected a folder per model with keep.npy and scores.npy or logits.npy, "
        f"or phi.npy and keep.npy{hint}"
    )


def is_checkpoint_folder(path: str | Path) -> bool:
    """Whether a path is a folder of checkpoints without stored outputs of the models."""
    folder = Path(path)
    if not folder.is_dir() or (folder / "signals").is_dir() or model_folders(folder):
        return False
    outputs = {role_of(file.stem) for file in folder.glob("*.npy")} & {"phi", "logits", "probabilities", "losses"}
    return not outputs and bool(checkpoint_files(folder))
