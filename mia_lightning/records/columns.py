"""From arrays and lists in any form to the exact types of Records; checked before any narrowing cast."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.features import Categories
from mia_lightning.records.image_arrays import image_column, input_column
from mia_lightning.records.label_columns import class_name_column, label_column
from mia_lightning.records.multi_hot import multi_hot_column
from mia_lightning.records.records import Records
from mia_lightning.records.values import (
    Values,
    check_count,
    flat,
    int64_array,
    integer_array,
    is_missing,
    is_whole_float,
    shown,
    value_list,
    whole_number,
)
from mia_lightning.records.vocabulary import (
    LONGEST_ID,
    SIGNED_NOTE,
    UNKNOWN,
    is_signed,
    membership_codes,
    names_training,
    split_note,
)


def make_records(
    source: str,
    images: NDArray[Any],
    *,
    ids: Values | None = None,
    labels: Values | None = None,
    membership: Values | None = None,
    splits: Values | None = None,
    groups: Values | None = None,
    class_names: object = None,
    feature_names: Sequence[str] | None = None,
    categories: Categories | None = None,
    as_images: bool | None = None,
    notes: Sequence[str] = (),
) -> Records:
    """Return Records from columns in any common form; the function that a reader of your own calls.

    Args:
        source: name for messages.
        images: (N, C, H, W), (N, H, W, C) or (N, H, W) images, uint8, integers in 0..255, or floating point; or
            records of two, five or more axes, such as tables (N, features), of any numbers.
        ids: (N,) integers or texts; numbered from 0 when missing, so that they clash with no id of the other half.
        labels: (N,) or (N, 1) whole numbers, names of classes, or (N, classes) one-hot, None and NaN are missing; or
            (N, C) of 0 and 1 where a record has C labels.
        membership: (N,) or (N, 1) of 1/0, +1/-1, true/false or words (`records.vocabulary`); None and NaN are unknown.
        splits: (N,) names of training and test sets, which stand for membership where that is missing.
        groups: (N,) integers or texts: person, patient, camera; a record without one is its own group.
        class_names: names of class 0, 1, ..., or a mapping between names and classes.
        feature_names: name of each column of a table, which may then have NaN where a value is missing.
        categories: texts of the columns of text by name, of which the table holds the positions.
        as_images: whether `images` are images; None takes three or four axes for images.
        notes: the reader's notes.

    Raises:
        MIAError: a column has another form, or the columns do not fit each other.
    """
    collected = list(notes)
    as_images = images.ndim in (0, 1, 3, 4) if as_images is None else as_images
    stacked = image_column(images, source, collected) if as_images else input_column(images, source)
    count = len(stacked)
    names = class_name_column(class_names, source)
    if (multi_hot := multi_hot_column(labels, source, collected)) is not None:
        check_count(multi_hot, "labels", source, count)
        labels = np.zeros(count, np.int64)
    numbers, own_names = label_column(labels, count, source, collected, names)
    keys = np.arange(count, dtype=np.int64) if ids is None else id_column(ids, source)
    if membership is None and splits is not None:
        membership = _split_membership(splits, count, source, collected)
    return Records(
        ids=keys,
        images=stacked,
        labels=numbers,
        membership=membership_column(membership, count, source, collected),
        source=source,
        groups=group_column(groups, keys, source),
        class_names=None if multi_hot is not None else own_names or names,
        notes=tuple(collected),
        ids_invented=ids is None,
        feature_names=None if feature_names is None else tuple(map(str, feature_names)),
        multi_hot=multi_hot,
        categories=categories or {},
    )


def id_column(values: Values, name: str) -> NDArray[np.int64] | NDArray[np.str_]:
    """Return (N,) ids: int64 when all are whole numbers below 2**63, text when all are text or uint64.

    Raises:
        MIAError: ids of another type or of mixed types, rounded floats, above 64 bits, or longer than 256 characters.
    """
    values = flat(values)
    if (numbers := integer_array(values, "ids", name)) is not None:
        return numbers
    items = value_list(values, "ids", name)
    types = {type(item) for item in items}
    if types == {float} and all(map(is_whole_float, items)):
        if max(map(abs, items)) > 2**53:
            raise MIAError(f"{name}: ids are floats above 2**53, so they may be rounded; save whole numbers or text")
        items, types = [int(item) for item in items], {int}
    if all(issubclass(type_, int | np.integer) and type_ is not bool for type_ in types):
        if not 2**63 <= max(items, default=0) < 2**64:
            return int64_array(items, "ids", name)
        items, types = [str(item) for item in items], {str}  # uint64
    if all(issubclass(type_, str) for type_ in types):
        if any(len(item) > LONGEST_ID for item in items):
            raise MIAError(f"{name}: an id is longer than {LONGEST_ID} characters; expected integers or short strings")
        return np.array(items, dtype=np.str_)
    listed = ", ".join(sorted(type_.__name__ for type_ in types)[:5])
    raise MIAError(f"{name}: ids are of type {listed}; expected all integers or all strings")


def group_column(values: Values | None, ids: NDArray[Any], name: str) -> NDArray[np.int64] | NDArray[np.str_] | None:
    """Return (N,) groups: int64 when all are integers, else strings; a missing one becomes a group of its own.

    Raises:
        MIAError: groups are neither integers nor strings, or their number is not that of the ids.
    """
    if values is None:
        return None
    values = flat(values)
    if (numbers := integer_array(values, "groups", name, len(ids))) is not None:
        return numbers
    items = value_list(values, "groups", name, len(ids))
    alone = [is_missing(item) for item in items]
    if any(alone):
        items = [
            f"record {key}" if is_alone else shown(item) for key, is_alone, item in zip(ids, alone, items, strict=True)
        ]
    return id_column([int(item) if is_whole_float(item) else item for item in items], f"{name}: groups")


def membership_column(values: Values | None, count: int, name: str, notes: list[str]) -> NDArray[np.int8]:
    """Return (N,) int8: 1, 0, or -1 for a missing column, None and NaN.

    Raises:
        MIAError: a value is not understood.
    """
    if values is None:
        return np.full(count, UNKNOWN, dtype=np.int8)
    values = flat(values)
    whole = integer_array(values, "membership", name, count)
    if whole is not None:
        return _membership_numbers(whole, np.ones(count, dtype=bool), name, notes)
    items = value_list(values, "membership", name, count)
    if any(isinstance(item, str) for item in items):
        return _membership_words(["" if is_missing(item) else str(item) for item in items], name, notes)
    given = np.array([not is_missing(item) for item in items], dtype=bool)
    whole = int64_array([whole_number(item, "membership", name) for item in items], "membership", name)
    return _membership_numbers(whole, given, name, notes)


def _split_membership(splits: Values, count: int, name: str, notes: list[str]) -> Values | None:
    """Return the names of splits where they mean membership, else None."""
    items = value_list(flat(splits), "splits", name, count)
    words = list(dict.fromkeys("" if is_missing(item) else shown(item) for item in items))
    notes.append(split_note(name, "split", words))
    return items if names_training(words) else None


def _membership_numbers(
    whole: NDArray[np.int64], given: NDArray[np.bool_], name: str, notes: list[str]
) -> NDArray[np.int8]:
    """Return membership of numbers; -1 means non-member where all given numbers are +1 and -1."""
    present = np.unique(whole[given])
    invalid = present[~np.isin(present, (0, 1, UNKNOWN))]  # before the cast: 257 would wrap round to 1
    if len(invalid):
        raise MIAError(f"{name}: membership holds {invalid[0]}; expected 1 (member), 0 (non-member) or None (unknown)")
    if is_signed(present.tolist()):
        notes.append(f"{name}: {SIGNED_NOTE}")
        whole = np.where(given, np.maximum(whole, 0), whole)
    return whole.astype(np.int8)


def _membership_words(texts: list[str], name: str, notes: list[str]) -> NDArray[np.int8]:
    words = list(dict.fromkeys(texts))
    codes, word_notes = membership_codes(words, lambda _: f"{name}: membership")
    notes.extend(f"{name}: {note}" for note in word_notes)
    code_of = dict(zip(words, codes, strict=True))
    return np.array([code_of[text] for text in texts], dtype=np.int8)
