"""Two halves of the records made to fit each other: ids, classes, labels and columns."""

from dataclasses import replace
from itertools import zip_longest

import numpy as np

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.features import recoded
from mia_lightning.records.multi_hot import ONE_HOT
from mia_lightning.records.records import UNKNOWN, Records


def check_disjoint(public: Records, private: Records) -> None:
    """Raise MIAError when an id occurs in both halves."""
    shared = np.intersect1d(np.char.strip(public.ids.astype(str)), np.char.strip(private.ids.astype(str)))
    if len(shared):
        raise MIAError(
            f"{len(shared)} ids occur in both {public.source} and {private.source}, first {shared[0]}; drop the "
            "copies, or ignore the ids where they count per file (--data.columns '{ids: ignore}')"
        )


def separate_ids(public: Records, private: Records) -> tuple[Records, Records]:
    """Return both halves with invented ids that clash with none of the other half.

    Private ids that were invented stay row numbers from 0, as a submission needs them, unless the public half's own
    ids are among them; invented public ids go on after the largest id of the private half.
    """
    if public.ids_invented:
        return _numbered_after(public, private), private
    if private.ids_invented:
        return public, _numbered_after(private, public)
    return public, private


def align_class_names(public: Records, private: Records) -> tuple[Records, Records]:
    """Return both halves with one numbering of named classes: the alphabetical order of all names.

    Where the labels of each half are names, a class that only one half has would shift the numbers of the other.

    Raises:
        MIAError: the halves name their classes in different orders that are not alphabetical.
    """
    first, second = public.class_names, private.class_names
    if first is None or second is None or first == second:
        return public, private
    if list(first) != sorted(first) or list(second) != sorted(second):
        raise MIAError(
            f"{public.source} and {private.source} name their classes differently ({_difference(first, second)}); give "
            "both the same class names"
        )
    names = tuple(sorted({*first, *second}))
    return _renumbered(public, names), _renumbered(private, names)


def align_inputs(public: Records, private: Records) -> tuple[Records, Records]:
    """Return both halves with inputs of one dtype and, in tables, columns in the order of the public half.

    Raises:
        MIAError: inputs of different shapes, or tables with different columns.
    """
    names = public.feature_names
    if names is not None and private.feature_names is not None and names != private.feature_names:
        missing = sorted({*names} ^ {*private.feature_names})
        if missing:
            raise MIAError(
                f"{public.source} and {private.source} have different columns (first {printable(missing[0], 40)!r}); "
                "give both the same features, or ignore some by --data.columns '{NAME: ignore}'"
            )
        order = [private.feature_names.index(name) for name in names]
        private = replace(private, images=private.images[:, order], feature_names=names)
    if names is not None and (public.categories or private.categories):
        halves = (public, private)
        parts, categories = recoded(
            [half.images for half in halves],
            names,
            [half.categories for half in halves],
            [half.source for half in halves],
        )
        public, private = (
            replace(half, images=images, categories=categories) for half, images in zip(halves, parts, strict=True)
        )
    if public.images.shape[1:] != private.images.shape[1:]:
        raise MIAError(
            f"{public.source} contains {'images' if public.is_image else 'inputs'} of shape {public.images.shape[1:]} "
            f"but {private.source} of {private.images.shape[1:]}; both halves must fit one target"
        )
    if not public.is_image and public.images.dtype != private.images.dtype:
        common = np.result_type(public.images, private.images)
        return tuple(replace(half, images=half.images.astype(common)) for half in (public, private))  # type: ignore[return-value]
    return public, private


def _difference(first: tuple[str, ...], second: tuple[str, ...]) -> str:
    pairs = enumerate(zip_longest(first, second, fillvalue="no class"))
    return next(f"class {index} is {a} and {b}" for index, (a, b) in pairs if a != b)


def _renumbered(records: Records, names: tuple[str, ...]) -> Records:
    index_of = {name: index for index, name in enumerate(names)}
    numbers = np.array([*(index_of[name] for name in records.class_names or ()), UNKNOWN], dtype=np.int64)
    return replace(records, labels=numbers[records.labels], class_names=names)


def _numbered_after(records: Records, other: Records) -> Records:
    """Return records with invented ids that follow the whole numbers among the other's, unless none is shared."""
    if not len(np.intersect1d(records.ids.astype(str), other.ids.astype(str))):
        return records
    if other.ids.dtype.kind == "i":
        start = int(other.ids.max()) + 1
    else:
        start = max((int(text) for text in other.ids.tolist() if text.isascii() and text.isdecimal()), default=-1) + 1
    start = start if 0 <= start < 2**62 else -len(records)  # far beyond any row number, or all negative
    ids = np.arange(start, start + len(records), dtype=np.int64)
    note = f"{records.source}: has no ids; its records are numbered from {start} so that no id occurs in both halves"
    return replace(records, ids=ids, notes=(*records.notes, note))


def align_multi_hot(public: Records, private: Records) -> tuple[Records, Records]:
    """Return both halves as multi-label where one is: a half of one-hot or no labels has a single 1, or none, per row.

    Raises:
        MIAError: another number of labels per record.
    """
    widths = {half.multi_hot.shape[1] for half in (public, private) if half.multi_hot is not None}
    if not widths:
        return public, private
    if len(widths) > 1:
        raise MIAError(
            f"{public.source} and {private.source} have {' and '.join(map(str, sorted(widths)))} labels per record; "
            "give both the same labels"
        )
    return _multi_label(public, min(widths)), _multi_label(private, min(widths))


def _multi_label(records: Records, width: int) -> Records:
    if records.multi_hot is not None:
        return records
    is_given = records.labels != UNKNOWN
    if is_given.any() and not any(f"one-hot with {width} classes, {ONE_HOT}" in note for note in records.notes):
        raise MIAError(
            f"{records.source}: has one class per record, but the other records {width} labels of 0 or 1; give both "
            "the same form"
        )
    return replace(
        records,
        labels=np.where(is_given, 0, UNKNOWN),
        multi_hot=np.eye(width, dtype=np.int64)[np.where(is_given, records.labels, 0)] * is_given[:, None],
        notes=tuple(note for note in records.notes if ONE_HOT not in note),
    )
