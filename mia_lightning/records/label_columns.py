"""Labels of any form as class numbers, and the names of classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.multi_hot import ONE_HOT, is_one_hot, numeric_matrix
from mia_lightning.records.values import Values, flat, int64_array, integer_array, is_missing, value_list, whole_number
from mia_lightning.records.vocabulary import SIGNED_CLASSES, UNKNOWN, is_blank, is_signed, label_codes


def label_column(
    values: Values | None, count: int, name: str, notes: list[str], names: tuple[str, ...] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Return (N,) int64 labels, -1 = missing, and the classes' names where the labels are names.

    Raises:
        MIAError: a label is neither a whole number nor a name, or labels are probabilities.
    """
    if values is None:
        return np.full(count, UNKNOWN, dtype=np.int64), None
    values = _class_numbers(flat(values), name, notes)
    if (numbers := integer_array(values, "labels", name, count)) is not None:
        return _signed(numbers, numbers == numbers, name, notes)
    items = value_list(values, "labels", name, count)
    if items and all(isinstance(item, str) for item in items):
        return _named_labels(items, name, notes, names)
    numbers = int64_array([whole_number(item, "label", name) for item in items], "labels", name)
    return _signed(numbers, np.array([not is_missing(item) for item in items], np.bool_), name, notes)


def _signed(
    numbers: NDArray[np.int64], given: NDArray[np.bool_], name: str, notes: list[str]
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Return labels of -1 and 1 alone as classes 0 and 1 with these names, other labels as they are."""
    if not is_signed(np.unique(numbers[given]).tolist()):
        return numbers, None
    notes.append(class_order_note(name, SIGNED_CLASSES))
    return np.where(given, np.maximum(numbers, 0), UNKNOWN), SIGNED_CLASSES


def class_name_column(values: object, name: str) -> tuple[str, ...] | None:
    """Return the names of class 0, 1, ... from a list, an array, or a mapping between names and classes.

    Raises:
        MIAError: it has another form, or two classes have one name.
    """
    if values is None:
        return None
    if isinstance(values, np.ndarray):
        values = values.reshape(-1).tolist()
    if isinstance(values, Mapping):
        pairs = dict.items(values) if isinstance(values, dict) else values.items()
        numbered = {key: text for key, text in pairs if isinstance(key, int)} or {
            number: text for text, number in pairs if isinstance(number, int)
        }
        values = [numbered.get(index) for index in range(len(numbered))]
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise MIAError(f"{name}: class names have an unknown form; give one text per class in a list")
    names = tuple(printable(text, 60) for text in values)
    if len(set(names)) < len(names):
        raise MIAError(f"{name}: two classes have one name; give every class its own")
    return names


def _class_numbers(values: Values, name: str, notes: list[str]) -> Values:
    """Return one-hot labels as class numbers; other matrices are refused."""
    if (matrix := numeric_matrix(values)) is None:
        return values
    if not is_one_hot(matrix):
        raise MIAError(f"{name}: labels have shape {matrix.shape} and are not one-hot; give one class per record")
    width = matrix.shape[1]
    notes.append(f"{name}: labels are one-hot with {width} classes, {ONE_HOT}, not as {width} independent labels")
    classes: NDArray[np.int64] = matrix.argmax(axis=1).astype(np.int64)
    return classes


def _named_labels(
    items: list[str], name: str, notes: list[str], names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    if names is not None and all(item in names or is_blank(item) for item in set(items)):
        index_of = {text: index for index, text in enumerate(names)}
        return np.array([index_of.get(item, UNKNOWN) for item in items], dtype=np.int64), None
    words = list(dict.fromkeys(items))
    codes, own_names = label_codes(words, lambda _: f"{name}: label")
    code_of = dict(zip(words, codes, strict=True))
    if own_names:
        notes.append(class_order_note(name, own_names))
    return np.array([code_of[item] for item in items], dtype=np.int64), own_names


def class_order_note(name: str, names: Sequence[str]) -> str:
    """Return the note that labels are names, numbered in alphabetical order."""
    shown = ", ".join(f"{printable(text, 30)} = {index}" for index, text in enumerate(names[:3]))
    return (
        f"{name}: labels are {len(names)} names, numbered in alphabetical order ({shown}{', …' if names[3:] else ''})"
    )
