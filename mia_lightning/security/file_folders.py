"""The kind of a folder, by the names of the files in it."""

import os
from itertools import islice
from pathlib import Path

from mia_lightning.security.kinds import KINDS, FileKind

MOST_NAMES = 5000
"""Names of a folder that are read."""

CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors", ".bin", ".pt2")


def folder_kind(path: Path) -> FileKind:
    """Return the kind of a folder.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(path) as entries:
        names = {entry.name for entry in islice(entries, MOST_NAMES)}
    return KINDS[_kind(names)]


def _kind(names: set[str]) -> str:
    weights = {name for name in names if name.endswith(CHECKPOINTS)}
    if "config.json" in names and any(name.startswith(("model", "pytorch_model", "tf_model")) for name in names):
        return "save_pretrained"
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        return "SavedModel"
    if "dataset_info.json" in names or "dataset_dict.json" in names:
        return "Hugging Face data set"
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        return "sharded checkpoint"
    if "data.mdb" in names:
        return "LMDB"
    if {"data.pkl", "version"} <= names:
        return "unzipped torch file"
    if "hparams.yaml" in names and "checkpoints" in names:
        return "Lightning run"
    if any(name.endswith(".data-00000-of-00001") for name in names) or (
        "checkpoint" in names and any(name.endswith(".index") for name in names)
    ):
        return "TensorFlow checkpoint"
    if ".is_checkpoint" in names or "rank_0" in names or ".tune_metadata" in names:
        return "Ray checkpoint"
    return "checkpoint folder" if weights else "folder"
