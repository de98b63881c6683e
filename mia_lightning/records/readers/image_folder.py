"""Folders of image files, one folder per class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.lazy_images import LazyImages, lazy_digest
from mia_lightning.records.readers import _image_files
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.security.open import open_regular

FORMATS = "folders of images by class (train/CLASS/ members, test/CLASS/ non-members)"

SPLITS = {"train": 1, "test": 0}


@dataclass(frozen=True)
class _Opener:
    """Opens image files by number; picklable."""

    files: tuple[str, ...]
    source: str

    def content(self, number: int) -> bytes:
        """Return the bytes of a file."""
        with open_regular(Path(self.files[number])) as file:
            data = file.read(_image_files.LARGEST + 1)
        if len(data) > _image_files.LARGEST:
            raise MIAError(f"{self.what(number)} has over {_image_files.LARGEST >> 20} MiB; make it smaller")
        return data

    def what(self, number: int) -> str:
        """Return the name of a file for messages."""
        path = Path(self.files[number])
        return f"{self.source}: image {path.parent.name}/{path.name}"

    def __call__(self, number: int) -> Any:
        data = self.content(number)
        with _image_files.damaged_image_reported(data, self.what(number)):
            return _image_files.open_image(data).convert("RGB")


def matches(source: str) -> bool:
    """Whether the source is a folder without a CSV, with train/ or test/, or with a folder of images per class."""
    if not os.path.isdir(source):
        return False
    entries = list(os.scandir(source))
    if any(entry.name.lower().endswith((".csv", ".tsv")) for entry in entries):
        return False
    folders = [entry for entry in entries if entry.is_dir()]
    if any(entry.name in SPLITS for entry in folders):
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
        columns: Not used.
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
    splits = [name for name in SPLITS if (root / name).is_dir()]
    if len(splits) == 1:
        other = "test" if splits == ["train"] else "train"
        raise MIAError(
            f"{root.name}: has {splits[0]}/ but no {other}/; members belong into train/, non-members into test/"
        )
    listed = {name: _listed(root / name) for name in splits or [""]}
    classes = sorted(set().union(*listed.values()))
    for name, by_class in listed.items():
        if lacking := [text for text in classes if not by_class.get(text)]:
            raise MIAError(
                f"{root.name}: {name + '/' if name else ''}{printable(lacking[0], 60)}/ is missing or has no images "
                f"({len(lacking)} such classes); give every class images in train/ and in test/"
            )
    files = [(name, label, file) for name, by_class in listed.items() for label in classes for file in by_class[label]]
    opener = _Opener(tuple(str(file) for _, _, file in files), root.name)
    ids = np.array([file.relative_to(root).as_posix() for _, _, file in files])
    digests, sizes = _headers(opener)
    images: Any
    if transform is None:
        images = _stacked([file for _, _, file in files], root, ids)
    else:
        digest = lazy_digest(digests, transform, transform_name)
        images = LazyImages(opener, np.arange(len(files)), ids.tolist(), transform, transform_name, digest)
    return Records(
        ids=ids,
        images=images,
        labels=np.array([classes.index(label) for _, label, _ in files], np.int64),
        membership=np.array([SPLITS.get(name, UNKNOWN) for name, _, _ in files], np.int8),
        source=root.name,
        class_names=tuple(classes),
        notes=(f"{root.name}: {len(classes)} classes by the names of folders, in alphabetical order",),
        covariates=dict(zip(("bytes of the file", "width of the file", "height of the file"), sizes.T, strict=True)),
    )


def _stacked(files: list[Path], root: Path, ids: Any) -> Any:
    row_of = {str(key): row for row, key in enumerate(ids)}
    try:
        return _image_files.stack(_image_files.opened(files, root), row_of.get, ids, root.name)
    except MIAError as error:
        if "one size" not in str(error):
            raise
        fix = "resize them by --data.transform package.module:function"
        raise MIAError(f"{str(error).partition(';')[0]}; {fix}") from None


def _listed(folder: Path) -> dict[str, list[Path]]:
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


def _headers(opener: _Opener) -> tuple[list[bytes], np.ndarray]:
    """Return the digest of each file, and its bytes, width and height, (N, 3), without decoding it."""
    digests, sizes = [], np.empty((len(opener.files), 3))
    for number in range(len(opener.files)):
        data = opener.content(number)
        with _image_files.damaged_image_reported(data, opener.what(number)):
            sizes[number] = len(data), *_image_files.open_image(data).size
        digests.append(sha256(data).digest())
    return digests, sizes
