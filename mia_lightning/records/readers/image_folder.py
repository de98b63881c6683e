"""Folders of image files, one folder per class, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mia_lightning.errors import MIAError, listed, printable
from mia_lightning.records.readers import _image_files
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.vocabulary import SPLITS, training_and_test

FORMATS = "folders of images by class (train/CLASS/ members, test/CLASS/ non-members)"

COVARIATES = ("bytes of the file", "width of the file", "height of the file")


def matches(source: str) -> bool:
    """Whether the source is a folder without a CSV, with train/ or test/, or with a folder of images per class."""
    if not os.path.isdir(source):
        return False
    entries = list(os.scandir(source))
    if any(entry.name.lower().endswith((".csv", ".tsv")) for entry in entries):
        return False
    folders = [entry for entry in entries if entry.is_dir()]
    if any(entry.name in (*SPLITS[0], *SPLITS[1]) for entry in folders):
        return True
    return any(_is_image(file.name) for entry in folders for file in os.scandir(entry))


def read(source: str, columns: Mapping[str, str] | None = None) -> Records:
    """Read images of one size, all at once; see `read_transformed`."""
    return read_transformed(source, columns)


def read_transformed(
    source: str,
    columns: Mapping[str, str] | None = None,
    transform: Callable[[Any], Any] | None = None,
    transform_name: str = "",
) -> Records:
    """Read the images of train/CLASS/ as members and of test/CLASS/ as non-members, or of CLASS/ without membership.

    Args:
        source: Path of the folder.
        columns: Not used: a folder has no columns.
        transform: From a PIL image in RGB to a float tensor (C, H, W); images are decoded when they are needed. Without
            it all images must have one size, and are read at once.
        transform_name: Of the transform, for messages.

    Returns:
        Records whose ids are the paths of the files, and whose covariates are file sizes, widths and heights.

    Raises:
        MIAError: no images, images outside of a class's folder, classes that differ between train/ and test/, or a
            damaged image.
    """
    root = Path(source)
    folders = [entry.name for entry in sorted(root.iterdir()) if entry.is_dir()]
    splits = _splits(root.name, folders)
    by_split = {name: _images_by_class(root / name) for name in splits or [""]}
    classes = _classes(root.name, by_split)
    files = [(name, label, file) for name, images in by_split.items() for label in classes for file in images[label]]
    ids = np.array([file.relative_to(root).as_posix() for _, _, file in files])
    stored = tuple(str(file) for _, _, file in files).__getitem__
    opener = _image_files.ImageOpener(stored, ids.tolist(), root.name)
    digests, sizes = zip(*(opener.header(number) for number in range(len(files))), strict=True)
    images: Any
    if transform is None:
        images = _stacked([file for _, _, file in files], root, ids)
    else:
        images = opener.lazy(digests, transform, transform_name)
    return Records(
        ids=ids,
        images=images,
        labels=np.array([classes.index(label) for _, label, _ in files], np.int64),
        membership=np.array([UNKNOWN if splits is None else name == splits[0] for name, _, _ in files], np.int8),
        source=root.name,
        class_names=tuple(classes),
        notes=tuple(_notes(root.name, folders, splits, classes)),
        covariates=dict(zip(COVARIATES, np.array(sizes, np.float64).T, strict=True)),
    )


def _splits(source: str, folders: list[str]) -> tuple[str, str] | None:
    """Return the folders of members and of non-members; None without either."""
    splits = training_and_test(folders)
    if splits is None and (present := [name for name in folders if name in (*SPLITS[0], *SPLITS[1])]):
        other = "test" if present[0] in SPLITS[0] else "train"
        raise MIAError(
            f"{source}: has {present[0]}/ but no {other}/; members belong into train/, non-members into test/"
        )
    return splits


def _classes(source: str, by_split: Mapping[str, Mapping[str, list[Path]]]) -> list[str]:
    """Return the names of the classes, sorted; every split has images of each."""
    classes = sorted(set().union(*by_split.values()))
    for name, by_class in by_split.items():
        if lacking := [text for text in classes if not by_class.get(text)]:
            raise MIAError(
                f"{source}: {name + '/' if name else ''}{printable(lacking[0], 60)}/ is missing or has no images "
                f"({len(lacking)} such classes); give every class images in train/ and in test/"
            )
    return classes


def _notes(source: str, folders: list[str], splits: tuple[str, str] | None, classes: list[str]) -> list[str]:
    """Return how the folders were read."""
    notes = [f"{source}: {len(classes)} classes by the names of folders, in alphabetical order"]
    if splits is not None:
        notes.append(f"{source}: {splits[0]}/ is read as members, {splits[1]}/ as non-members")
        if unused := [name for name in folders if name not in splits]:
            notes.append(f"{source}: folders not used: {listed(unused, 8, 60)}")
    return notes


def _stacked(files: list[Path], root: Path, ids: Any) -> Any:
    row_of = {str(key): row for row, key in enumerate(ids)}
    try:
        return _image_files.stack(_image_files.opened(files, root), row_of.get, ids, root.name)
    except MIAError as error:
        if "one size" not in str(error):
            raise
        fix = "resize them by --data.transform package.module:function"
        raise MIAError(f"{str(error).partition(';')[0]}; {fix}") from None


def _images_by_class(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class's folder, sorted."""
    entries = sorted(folder.iterdir())
    if stray := [entry for entry in entries if entry.is_file() and _is_image(entry.name)]:
        raise MIAError(
            f"{folder.name}: {stray[0].name} is outside of a class's folder; move it into {folder.name}/CLASS/"
        )
    by_class = {
        entry.name: sorted(file for file in entry.rglob("*") if file.is_file() and _is_image(file.name))
        for entry in entries
        if entry.is_dir() and not entry.name.startswith(".")
    }
    if not any(by_class.values()):
        raise MIAError(f"{folder.name}: has no images; expected a folder of images for each class, named by it")
    return by_class


def _is_image(name: str) -> bool:
    return name.lower().endswith(_image_files.SUFFIXES) and not name.startswith(".")
