"""Data sets of Hugging Face `datasets` on disk (`Dataset.save_to_disk`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.columns import make_records
from mia_lightning.records.frames import frame_table
from mia_lightning.records.lazy_images import LazyImages, lazy_digest
from mia_lightning.records.readers import _image_files
from mia_lightning.records.readers.table import table_records
from mia_lightning.records.records import Records
from mia_lightning.records.vocabulary import find_columns
from mia_lightning.runtime.extras import require
from mia_lightning.security.open import open_regular

FORMATS = "data sets of Hugging Face on disk (save_to_disk)"

SPLITS = {"train": 1, "test": 0}

MEANINGS = ("image", "label", "membership", "id", "group")


@dataclass(frozen=True, eq=False)
class _Opener:
    """Decodes an image of a data set by its number; picklable."""

    dataset: Any
    """With images that are not decoded."""

    column: str
    source: str

    def content(self, number: int) -> bytes:
        """Return the bytes of an image file."""
        stored = self.dataset[number][self.column]
        if stored["bytes"] is not None:
            data = bytes(stored["bytes"])
        else:
            with open_regular(Path(stored["path"])) as file:
                data = file.read(_image_files.LARGEST + 1)
        if len(data) > _image_files.LARGEST:
            raise MIAError(f"{self.source}: image {number} has over {_image_files.LARGEST >> 20} MiB; make it smaller")
        return data

    def __call__(self, number: int) -> Any:
        data = self.content(number)
        with _image_files.damaged_image_reported(data, f"{self.source}: image {number}"):
            return _image_files.open_image(data).convert("RGB")


def matches(source: str) -> bool:
    """Whether the source is a folder that `save_to_disk` wrote."""
    names = set(os.listdir(source)) if os.path.isdir(source) else set()
    return "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= names


def read(source: str, columns: Mapping[str, str] | None = None) -> Records:
    """Read images of one size, or a table, all at once; see `read_transformed`."""
    return read_transformed(source, columns)


def read_transformed(
    source: str,
    columns: Mapping[str, str] | None = None,
    transform: Callable[[Any], Any] | None = None,
    transform_name: str = "",
) -> Records:
    """Read a data set with a column of images, or a table; the splits train and test are members and non-members.

    Args:
        source: Path of the folder.
        columns: The user's mapping of column names to meanings.
        transform: From a PIL image in RGB to a float tensor (C, H, W); without it all images must have one size.
        transform_name: Of the transform, for messages.

    Raises:
        MIAError: a damaged data set, one split without the other, or images of several sizes without a transform.
    """
    datasets, name = require("datasets", "huggingface"), Path(source).name
    try:
        loaded = datasets.load_from_disk(source)
        parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
        used = parts if "" in parts else {split: parts[split] for split in SPLITS if split in parts}
        if "" not in parts and len(used) < 2:
            raise MIAError(
                f"{name}: has the splits {', '.join(parts)}; expected train (members) and test (non-members)"
            )
        dataset = datasets.concatenate_datasets(list(used.values()))
    except MIAError:
        raise
    except Exception as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise MIAError(f"{name}: is damaged or not a data set of datasets ({reason}); save it again") from None
    chosen = find_columns(dataset.column_names, name, columns, MEANINGS)
    image = chosen.get("image")
    if image is None or not isinstance(dataset.features[image], datasets.Image):
        records = table_records(frame_table(dataset.with_format("arrow")[:], name), columns)
        return records if "" in used else replace(records, membership=_membership(used))
    opener = _Opener(dataset.cast_column(image, datasets.Image(decode=False)), image, name)
    images: Any
    if transform is None:
        numbers = np.arange(len(dataset))
        files = ((str(row), 0, partial(opener.content, row)) for row in range(len(dataset)))
        images = _image_files.stack(files, int, numbers, name)
    else:
        digests = [sha256(opener.content(row)).digest() for row in range(len(dataset))]
        names = [f"image {row}" for row in range(len(dataset))]
        digest = lazy_digest(digests, transform, transform_name)
        images = LazyImages(opener, np.arange(len(dataset)), names, transform, transform_name, digest)
    values = {meaning: dataset[column][:] for meaning, column in chosen.by_meaning.items() if meaning != "image"}
    label = chosen.get("label")
    records = make_records(
        name,
        np.zeros((len(dataset), 1, 1, 1), np.uint8),  # in place of images that stay in the data set
        ids=values.get("id"),
        labels=values.get("label"),
        membership=values.get("membership") if "" in used else _membership(used),
        groups=values.get("group"),
        class_names=None if label is None else getattr(dataset.features[label], "names", None),
    )
    return replace(records, images=images)


def _membership(splits: Mapping[str, Any]) -> np.ndarray:
    return np.repeat(np.array([1, 0], np.int8), [len(splits[name]) for name in SPLITS])
