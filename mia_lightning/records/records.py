"""Records: the candidate images whose membership is in question."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.security.csv_formulas import is_formula

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Records:
    """Candidate records as they came from one source, in the order of the source.

    Raises:
        MIAError: the arrays disagree in length, ids repeat or could not stand in a CSV as they are, an image dtype is
            neither uint8 nor float32, a pixel is NaN or infinite, a label is below -1, or membership holds anything but
            1, 0 and -1.
    """

    ids: NDArray[np.int64] | NDArray[np.str_]
    """(N,) unique record ids, integers or strings. Never a feature of any attack."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """(N, C, H, W): uint8 in 0..255, or float32 as stored, normally in [0, 1]; values outside survive untouched."""

    labels: NDArray[np.int64]
    """(N,) class indices from 0; -1 where the label is missing."""

    membership: NDArray[np.int8]
    """(N,) 1 = member of the target's training set, 0 = non-member, -1 = unknown."""

    source: str
    """What the user named, for error sentences: a file name without its folder, or a data-set name."""

    def __post_init__(self) -> None:
        count = len(self.ids)
        for name in ("images", "labels", "membership"):
            if (found := len(getattr(self, name))) != count:
                raise MIAError(f"{self.source}: {count} ids but {found} {name}; give one of each per record")
        if count == 0:
            raise MIAError(f"{self.source}: holds no records; expected at least one")
        if self.images.ndim != 4:
            raise MIAError(
                f"{self.source}: images have shape {self.images.shape}; expected (N, channels, height, width)"
            )
        if self.images.dtype not in (np.uint8, np.float32):
            raise MIAError(f"{self.source}: images are {self.images.dtype}; expected uint8 or float32")
        _check_ids(self.ids, self.source)
        _check_pixels(self)
        if self.labels.min() < UNKNOWN:
            raise MIAError(
                f"{self.source}: label {self.labels.min()} is negative; classes count from 0, -1 means missing"
            )
        if not np.isin(self.membership, (0, 1, UNKNOWN)).all():
            bad = self.membership[~np.isin(self.membership, (0, 1, UNKNOWN))][0]
            raise MIAError(f"{self.source}: membership holds {bad}; expected 1 (member), 0 (non-member) or unknown")

    def __len__(self) -> int:
        return len(self.ids)


def _check_ids(ids: NDArray[np.int64] | NDArray[np.str_], source: str) -> None:
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        repeated = unique[counts > 1]
        raise MIAError(f"{source}: {len(repeated)} ids occur more than once, first {repeated[0]}; ids must be unique")

    if ids.dtype.kind == "U":
        _check_texts(ids.tolist(), source)


def _check_texts(ids: list[str], source: str) -> None:
    """Refuse ids that would do harm where we write them unchanged, which a submission needs."""
    for text in ids:
        if not text.isprintable():
            raise MIAError(f"{source}: id {text[:40]!r} holds a control character; expected printable ids")
        if is_formula(text):
            raise MIAError(
                f"{source}: id {text[:40]!r} is a formula to a spreadsheet that opens our submission.csv; rename it"
            )


def _check_pixels(records: Records) -> None:
    if records.images.dtype == np.uint8:
        return
    for start in range(0, len(records), 4096):  # in blocks, so that a memory-mapped file is never copied whole
        finite = np.isfinite(records.images[start : start + 4096]).all(axis=(1, 2, 3))
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise MIAError(f"{records.source}: record {records.ids[row]} has NaN or infinite pixels; repair or drop it")


def check_disjoint(public: Records, private: Records) -> None:
    """Raise MIAError when an id stands in both halves."""
    shared = np.intersect1d(public.ids.astype(str), private.ids.astype(str))
    if len(shared):
        raise MIAError(
            f"{len(shared)} ids stand in both {public.source} and {private.source}, first {shared[0]}; "
            "a record belongs to one half only"
        )
