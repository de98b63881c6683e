"""Records: the candidate images, table rows or signals whose membership is in question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.features import Categories, Features
from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.records.vocabulary import UNKNOWN
from mia_lightning.security.csv_formulas import is_formula

__all__ = ["UNKNOWN", "Records"]


@dataclass(frozen=True, eq=False)
class Records:
    """Candidate records of one source, in the order of the source.

    Raises:
        MIAError: the arrays differ in length, ids repeat or could not be written into a CSV unchanged, a dtype is not
            supported, a value is NaN or infinite, a label is below -1 or beyond the class names, or membership holds
            anything but 1, 0 and -1.
    """

    ids: NDArray[np.int64] | NDArray[np.str_]
    """(N,) unique record ids, integers or strings. Never a feature of any attack."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """(N, ...) inputs of the target. Four axes are images, (N, C, H, W): uint8 in 0..255, or float32 as stored,
    normally in [0, 1]; values outside survive untouched. Any other number is a table (N, features), a signal or the
    like: uint8, int64, float32 or float64, passed to the target as stored."""

    labels: NDArray[np.int64]
    """(N,) class indices from 0; -1 where the label is missing."""

    membership: NDArray[np.int8]
    """(N,) 1 = member of the target's training set, 0 = non-member, -1 = unknown."""

    source: str
    """Name for messages: a file name without its folder, or a data set's name."""

    groups: NDArray[np.int64] | NDArray[np.str_] | None = None
    """(N,) the person, patient or camera that a record belongs to, comparable across halves; None: ungrouped.
    Records of one group are not independent: folds, bootstrap and tests keep a group together."""

    class_names: tuple[str, ...] | None = None
    """Name of class 0, 1, ...; None when the source has none."""

    notes: tuple[str, ...] = ()
    """Ambiguities of the source and how the reader resolved them, one sentence each, for log and report."""

    ids_invented: bool = False
    """Whether the source has no ids, and the reader numbered its records from 0."""

    feature_names: tuple[str, ...] | None = None
    """Name of each column of a table, in the order of `images`; None when the source has none. A table with names may
    have NaN where a value is missing."""

    categories: Categories = field(default_factory=dict)
    """Texts of the columns of a table that hold text, by name; `images` holds their positions."""

    covariates: Mapping[str, NDArray[np.float64]] | None = None
    """(N,) properties of the source of each record that the target never receives, such as the size of its file."""

    multi_hot: NDArray[np.int64] | None = None
    """(N, C) of 0 and 1 where each record has C labels; `labels` is then 0, or -1 where they are missing."""

    def __post_init__(self) -> None:
        _check_lengths(self)
        _check_inputs(self)
        _check_ids(self.ids, self.source)
        if self.groups is not None and self.groups.dtype.kind == "U":
            _check_printable(self.groups.tolist(), "group", self.source)
        _check_finite(self)
        _check_labels(self)
        if not np.isin(self.membership, (0, 1, UNKNOWN)).all():
            invalid = self.membership[~np.isin(self.membership, (0, 1, UNKNOWN))][0]
            raise MIAError(f"{self.source}: membership holds {invalid}; expected 1 (member), 0 (non-member) or unknown")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_image(self) -> bool:
        """Whether the records are images, which have views, pixel checks and thumbnails."""
        return self.images.ndim == 4

    @property
    def pixels(self) -> NDArray[np.uint8] | NDArray[np.float32]:
        """(N, C, H, W) images for checks and thumbnails: small versions of images that stay in their files."""
        return self.images.small if isinstance(self.images, LazyImages) else self.images

    @property
    def described(self) -> str:
        """Shape of a record in words, for messages."""
        shape = self.images.shape[1:]
        return f"{shape[0]} values per record" if len(shape) == 1 else f"records of shape {shape}"

    @property
    def known_columns(self) -> dict[str, NDArray[np.float64]]:
        """(N,) numbers by name that are known of the records without the target: a table's features, covariates.

        A missing value is a number below all others.
        """
        names = self.feature_names or ()
        features = {name: np.asarray(self.images[:, i], np.float64) for i, name in enumerate(names)}
        features = {
            name: np.nan_to_num(values, nan=values[~np.isnan(values)].min(initial=0) - 1)
            if np.isnan(values).any()
            else values
            for name, values in features.items()
        }
        return features | dict(self.covariates or {})

    @property
    def features(self) -> Features | None:
        """Columns of a table; None where the source has no names of columns."""
        return None if self.feature_names is None else Features(self.feature_names, self.categories)

    def rows(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Records:
        """Return the records at these positions, all columns included."""
        images: Any = self.images
        chosen: Any = images.subset(index) if isinstance(images, LazyImages) else images[index]
        return replace(
            self,
            ids=self.ids[index],
            images=chosen,
            labels=self.labels[index],
            membership=self.membership[index],
            groups=None if self.groups is None else self.groups[index],
            multi_hot=None if self.multi_hot is None else self.multi_hot[index],
            covariates=None
            if self.covariates is None
            else {name: values[index] for name, values in self.covariates.items()},
        )


def _check_lengths(records: Records) -> None:
    count = len(records.ids)
    for name in ("images", "labels", "membership", "groups", "multi_hot"):
        column = getattr(records, name)
        if column is not None and len(column) != count:
            raise MIAError(f"{records.source}: {count} ids but {len(column)} {name}; give one of each per record")
    if count == 0:
        raise MIAError(f"{records.source}: contains no records; expected at least one")


def _check_labels(records: Records) -> None:
    if records.labels.min() < UNKNOWN:
        raise MIAError(
            f"{records.source}: label {records.labels.min()} is negative; classes count from 0, -1 means missing"
        )
    if records.class_names is not None and records.labels.max() >= len(records.class_names):
        raise MIAError(
            f"{records.source}: label {records.labels.max()} has no name, there are {len(records.class_names)} class "
            "names; name every class"
        )


def _check_ids(ids: NDArray[np.int64] | NDArray[np.str_], source: str) -> None:
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        repeated = unique[counts > 1]
        raise MIAError(f"{source}: {len(repeated)} ids occur more than once, first {repeated[0]}; ids must be unique")

    if ids.dtype.kind == "U":
        _check_texts(ids.tolist(), source)
        stripped = np.char.strip(ids.astype(np.str_))
        if len(np.unique(stripped)) < len(ids):  # files of scores and keys are read without such blanks
            first = next(text for text, short in zip(ids, stripped, strict=True) if text != short)
            raise MIAError(f"{source}: id {first[:40]!r} differs from another only in blanks around it; rename it")


def _check_texts(ids: list[str], source: str) -> None:
    """Refuse ids that would do harm in a submission, which holds them unchanged."""
    _check_printable(ids, "id", source)
    for text in ids:
        if is_formula(text):
            raise MIAError(
                f"{source}: id {text[:40]!r} would be a formula in a spreadsheet that opens submission.csv; rename it"
            )


def _check_printable(texts: list[str], what: str, source: str) -> None:
    for text in texts:
        if not text.isprintable():
            raise MIAError(f"{source}: {what} {text[:40]!r} contains a control character; expected printable text")


def _check_inputs(records: Records) -> None:
    """Check shape and dtype of the inputs."""
    images, name = records.images, records.source
    if images.ndim < 2:
        raise MIAError(
            f"{name}: inputs have shape {images.shape}; expected images (N, channels, height, width), or one row of "
            "values per record (N, ...)"
        )
    if records.is_image and images.dtype not in (np.uint8, np.float32):
        raise MIAError(f"{name}: images are {images.dtype}; expected uint8 or float32")
    if images.dtype not in (np.uint8, np.int64, np.float32, np.float64):
        raise MIAError(f"{name}: inputs are {images.dtype}; expected numbers as uint8, int64, float32 or float64")
    names = records.feature_names
    if names is not None and (images.ndim != 2 or len(names) != images.shape[1]):
        raise MIAError(f"{name}: {len(names)} names of features for inputs of shape {images.shape}; give one each")


def _check_finite(records: Records) -> None:
    if records.images.dtype.kind != "f" or isinstance(records.images, LazyImages):  # these are checked when decoded
        return
    for start in range(0, len(records), 4096):  # in blocks, so that a memory-mapped file is never copied whole
        block = records.images[start : start + 4096]
        finite = (~np.isinf(block) if records.feature_names is not None else np.isfinite(block)).all(
            axis=tuple(range(1, block.ndim))
        )
        if not finite.all():
            row, what = start + int(np.argmin(finite)), "pixels" if records.is_image else "values"
            raise MIAError(f"{records.source}: record {records.ids[row]} has NaN or infinite {what}; repair or drop it")
