"""torchvision's data sets by name, with their own download: `torchvision:CIFAR10?root=DIR`."""

import inspect
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, reason, suggest
from mia_lightning.records.image_arrays import image_column
from mia_lightning.records.label_columns import label_column
from mia_lightning.records.readers import _files
from mia_lightning.records.records import Records

FORMATS = "a torchvision data set (torchvision:NAME)"

PREFIX = "torchvision:"
DEFAULT_ROOT = "data"


def matches(source: str) -> bool:
    """Whether the source names a torchvision data set."""
    return source.startswith(PREFIX)


def read(source: str) -> Records:
    """Read the train split as members and the test split as non-members.

    Ids count through the train split (0..n-1), then through the test split (n..). Files are looked for under `root`
    (default `data`) and downloaded there by torchvision, which checks their MD5, when they are absent.

    Returns:
        Records with images (N, C, H, W) uint8 as stored, labels from 0, membership 1 for train and 0 for test.

    Raises:
        MIAError: the data set or an option is unknown, the download fails, or the images differ in shape.
    """
    name, root = _files.named_set(source, PREFIX)
    classes = _datasets()
    if name not in classes:
        raise MIAError(
            f"{source}: torchvision has no such image classification data set; {suggest(name, classes, see='')}"
        )
    train, test = (_load(classes[name], is_train, root or DEFAULT_ROOT, name) for is_train in (True, False))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise MIAError(f"{name}: train and test images differ in shape; choose a data set of one image size")
    return Records(
        ids=np.arange(len(train.images) + len(test.images), dtype=np.int64),
        images=np.concatenate([train.images, test.images]),
        labels=np.concatenate([train.labels, test.labels]),
        membership=np.repeat(np.array([1, 0], dtype=np.int8), [len(train.images), len(test.images)]),
        source=name,
        class_names=train.class_names,
    )


@dataclass(frozen=True)
class _Split:
    """Train or test split."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None


def _datasets() -> dict[str, Any]:
    """Return torchvision's downloadable data sets that have a train and a test split, by name."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: a build that does not fit the installed torch
        raise MIAError(f"torchvision cannot be imported ({error}); install the build that fits your torch") from None
    classes = {}
    for name, class_ in inspect.getmembers(datasets, inspect.isclass):
        given = dict(inspect.signature(class_).parameters)
        required = {key for key, parameter in given.items() if parameter.default is parameter.empty}
        split = given.get("train", given.get("split"))
        has_split = split is not None and (split.default is True or split.default == "train")
        if "download" in given and required == {"root"} and has_split:
            classes[name] = class_
    return classes


def _load(class_: Any, train: bool, root: str, name: str) -> _Split:
    by_flag = "train" in inspect.signature(class_).parameters
    choice: dict[str, Any] = {"train": train} if by_flag else {"split": "train" if train else "test"}
    try:
        with redirect_stdout(sys.stderr):  # some data sets print; stdout belongs to the run's own table
            dataset = class_(root, download=True, **choice)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise MIAError(
            f"{name}: cannot be downloaded or read ({reason(error)}); with no network, put torchvision's files under "
            f"{root} and name it with {PREFIX}{name}?root=DIR"
        ) from None
    except ValueError as error:
        raise MIAError(f"{name}: has no plain train and test split ({error}); choose another data set") from None
    data = getattr(dataset, "data", None)
    labels = next((getattr(dataset, key) for key in ("targets", "labels") if hasattr(dataset, key)), None)
    if data is None or labels is None:
        data, labels = _one_by_one(dataset, name)
    classes, _ = label_column(np.asarray(labels), len(data), name, [])
    return _Split(image_column(np.asarray(data), name), classes, _class_names(dataset, classes))


def _class_names(dataset: Any, labels: NDArray[np.int64]) -> tuple[str, ...] | None:
    """Return the data set's own class names where it has one for every label."""
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if len(set(names)) == len(names) > labels.max() else None


def _one_by_one(dataset: Any, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read a data set of image files, for those that keep no arrays."""
    images, labels = [], []
    for image, label in dataset:
        images.append(np.asarray(image.convert("RGB")))
        if images[-1].shape != images[0].shape:
            shapes = f"{images[0].shape} and {images[-1].shape}"
            raise MIAError(f"{name}: images differ in shape, {shapes}; choose a data set of one image size")
        labels.append(label)
    return np.stack(images), np.asarray(labels)
