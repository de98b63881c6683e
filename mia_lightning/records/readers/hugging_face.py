"""Data sets of Hugging Face `datasets` on disk (`Dataset.save_to_disk`)."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mia_lightning.errors import MIAError, reason
from mia_lightning.records.column_mapping import find_columns
from mia_lightning.records.columns import make_records
from mia_lightning.records.frames import frame_table
from mia_lightning.records.readers import _image_files
from mia_lightning.records.readers.table import table_records
from mia_lightning.records.records import Records
from mia_lightning.records.vocabulary import training_and_test
from mia_lightning.runtime.extras import require

FORMATS = "data sets of Hugging Face on disk (save_to_disk)"

MEANINGS = ("image", "label", "membership", "id", "group", "split")


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
    """Read a data set with a column of images, or a table.

    The splits train and test (or validation) are members and non-members.

    Args:
        source: Path of the folder.
        columns: The user's mapping of column names to meanings.
        transform: From a PIL image in RGB to a float tensor (C, H, W); without it all images must have one size.
        transform_name: Of the transform, for messages.

    Raises:
        MIAError: a damaged data set, one split without the other, or images of several sizes without a transform.
    """
    datasets, name = require("datasets", "huggingface"), Path(source).name
    parts, used, dataset = _loaded(datasets, source, name)
    chosen = find_columns(dataset.column_names, name, columns, MEANINGS)
    image = chosen.get("image")
    if image is None or not isinstance(dataset.features[image], datasets.Image):
        records = table_records(frame_table(dataset.with_format("arrow")[:], name), columns)
        notes = (*records.notes, *_notes(name, used, parts))
        return records if "" in used else replace(records, membership=_membership(used), notes=notes)
    values = {meaning: dataset[column][:] for meaning, column in chosen.by_meaning.items() if meaning != "image"}
    label = chosen.get("label")
    records = make_records(
        name,
        np.zeros((len(dataset), 1, 1, 1), np.uint8),  # in place of images that stay in the data set
        ids=values.get("id"),
        labels=values.get("label"),
        membership=values.get("membership") if "" in used else _membership(used),
        splits=values.get("split") if "" in used else None,
        groups=values.get("group"),
        class_names=None if label is None else getattr(dataset.features[label], "names", None),
        notes=[*_notes(name, used, parts), *chosen.notes(name)],
    )
    return replace(records, images=_images(datasets, dataset, image, name, transform, transform_name))


def _loaded(datasets: Any, source: str, name: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return all data sets by their split, those used (of members and of non-members, or ""), and these joined."""
    try:
        loaded = datasets.load_from_disk(source)
        parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
        if (splits := ("",) if "" in parts else training_and_test(parts)) is not None:
            used = {split: parts[split] for split in splits}
            return parts, used, datasets.concatenate_datasets(list(used.values()))
    except Exception as error:
        raise MIAError(f"{name}: is damaged or not a data set of datasets ({reason(error)}); save it again") from None
    raise MIAError(f"{name}: has the splits {', '.join(parts)}; expected train (members) and test (non-members)")


def _images(
    datasets: Any, dataset: Any, column: str, name: str, transform: Callable[[Any], Any] | None, transform_name: str
) -> Any:
    """Return the images at once, or as a transform returns them when they are needed."""
    numbers = np.arange(len(dataset))
    undecoded = dataset.cast_column(column, datasets.Image(decode=False))
    opener = _image_files.ImageOpener(partial(_stored, undecoded, column), [f"image {row}" for row in numbers], name)
    if transform is None:
        files = ((str(row), 0, partial(opener.content, row)) for row in range(len(dataset)))
        return _image_files.stack(files, int, numbers, name)
    return opener.lazy([opener.header(row)[0] for row in range(len(dataset))], transform, transform_name)


def _stored(dataset: Any, column: str, number: int) -> bytes | str:
    """Return the bytes of an image, or the path of its file."""
    stored = dataset[number][column]
    return str(stored["path"]) if stored["bytes"] is None else bytes(stored["bytes"])


def _membership(used: Mapping[str, Any]) -> np.ndarray:
    return np.repeat(np.array([1, 0], np.int8), [len(part) for part in used.values()])


def _notes(name: str, used: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    """Return how the splits were read, and which are not used."""
    if "" in used:
        return []
    train, test = used
    unused = [split for split in parts if split not in used]
    notes = [f"{name}: split {train} is read as members, {test} as non-members"]
    return [*notes, f"{name}: splits not used: {', '.join(unused)}"] if unused else notes
