"""Records from objects in memory: tensors, arrays, tables, data sets, loaders and tuples with labels."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.features import Features, coded, recoded
from mia_lightning.records.vocabulary import NAMES, normalize_name


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs and labels of one side, as they were given."""

    inputs: NDArray[Any]
    """(N, ...) in the layout that the model takes."""

    labels: NDArray[Any] | None
    """(N,), one-hot (N, classes) or multi-hot (N, C); None without labels."""

    container: str
    """Container of the inputs, which functions receive as well: "tensor", "array", "pandas" or "polars"."""

    features: Features | None = None
    """Names and texts of a table's columns."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of a table's columns."""
        return None if self.features is None else self.features.names

    def __len__(self) -> int:
        return len(self.inputs)


def read_side(data: object, name: str, *, label: str | Sequence[str] | None = None) -> Batch:
    """Return one side of the records.

    Args:
        data: A tensor, an array, a pandas, Polars or pyarrow table, a `Dataset`, a `DataLoader`, or a tuple (inputs,
            labels) of the former.
        name: Of the argument, for messages.
        label: Name of a table's column, or a data set's field, that has the labels, or the names of several columns of
            0 and 1; None looks for the usual names.

    Raises:
        MIAError: another type, no records, labels of another number, or text where a model needs numbers.
    """
    if isinstance(data, Mapping):
        data = _fields(data, name, label)
        data = data[0] if data[1] is None else data
    if isinstance(data, tuple) and len(data) == 2:
        batch = _with_labels(read_side(data[0], name, label=label), _array(data[1], f"{name}[1]"), name)
    elif (table := _table(data, name, label)) is not None:
        batch = table
    elif isinstance(data, np.ndarray) or _is_a(data, "torch", "Tensor"):
        batch = Batch(_array(data, name), None, "array" if isinstance(data, np.ndarray) else "tensor")
    elif isinstance(data, str):
        raise MIAError(f"{name} is text; pass the records themselves, or give their file to the command line")
    elif isinstance(data, list) and not (data and isinstance(data[0], tuple | Mapping)):
        batch = Batch(_array(data, name), None, "array")
    elif isinstance(data, tuple) and data and all(hasattr(part, "__array__") for part in data):
        raise MIAError(f"{name} is a tuple of {len(data)} arrays; pass (inputs, labels)")
    elif _is_a(data, "torch.utils.data", "DataLoader"):
        _check_repeatable(data.dataset, name, label)  # type: ignore[attr-defined]
        batch = _stacked([_fields(item, name, label) for item in _batches(data, name)], name, np.concatenate)
    elif hasattr(data, "__getitem__") or hasattr(data, "__iter__"):
        _check_repeatable(data, name, label)
        pairs = [_fields(item, name, label) for item in _items(data)]
        batch = _stacked(pairs, name, np.concatenate if pairs and all(map(_is_batch, pairs)) else np.stack)
    else:
        raise MIAError(
            f"{name} is a {type(data).__name__}; pass a tensor, an array, a table, a Dataset, a DataLoader, or a tuple "
            "(inputs, labels)"
        )
    if len(batch) == 0:
        raise MIAError(f"{name} contains no records; give at least one")
    if batch.labels is not None:
        _refuse_regression(batch.labels, name)
    return batch


REPEATED = 8
"""Items of a data set that are read twice."""


def _check_repeatable(data: Any, name: str, label: str | Sequence[str] | None) -> None:
    """Raise MIAError for a data set whose items differ from call to call, by a random transform."""
    if not (_is_a(data, "torch.utils.data", "Dataset") and hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        return
    for index in range(min(REPEATED, len(data))):
        try:
            first, again = (_array(_fields(data[index], name, label)[0], name) for _ in range(2))
        except MIAError:  # items for a collate function, or of a form that is refused below
            return
        if not np.array_equal(first, again, equal_nan=first.dtype.kind == "f"):
            raise MIAError(
                f"{name}: item {index} differs from call to call, by a random transform; give the data set the "
                "transform of the model's evaluation"
            )


def _refuse_regression(labels: NDArray[Any], name: str) -> None:
    is_column = labels.ndim == 1 or labels.shape[1:] == (1,)
    if is_column and labels.dtype.kind == "f" and bool((labels[np.isfinite(labels)] % 1 != 0).any()):
        raise MIAError(
            f"{name} has labels that are not whole numbers, as of a regression; only classifiers are audited, so give "
            "the class of each record"
        )


def _batches(loader: Any, name: str) -> Any:
    """Return a DataLoader, refused where it would leave out records."""
    dataset, size = loader.dataset, loader.batch_size
    if loader.drop_last and size and hasattr(dataset, "__len__") and (lost := len(dataset) % size):
        raise MIAError(
            f"{name}: its DataLoader leaves out {lost} of {len(dataset)} records (drop_last=True); give one with "
            "drop_last=False, or its dataset"
        )
    return loader


def with_one_coding(sides: Mapping[str, Batch]) -> dict[str, Batch]:
    """Return the sides of a table with one coding of the texts of all; other sides as they are.

    Raises:
        MIAError: a column holds numbers on one side and text on another.
    """
    first = next(iter(sides.values())).features
    if first is None or not any(side.features and side.features.categories for side in sides.values()):
        return dict(sides)
    parts, categories = recoded(
        [side.inputs for side in sides.values()],
        first.names,
        [side.features.categories if side.features else {} for side in sides.values()],
        list(sides),
    )
    features = replace(first, categories=categories)
    return {
        name: replace(side, inputs=inputs, features=features)
        for (name, side), inputs in zip(sides.items(), parts, strict=True)
    }


def _with_labels(batch: Batch, labels: NDArray[Any], name: str) -> Batch:
    count = labels.size if labels.ndim == 0 else len(labels)
    if labels.ndim == 0 or count != len(batch):
        raise MIAError(f"{name} has {len(batch)} records but {count} labels; give one label per record")
    return Batch(batch.inputs, labels, batch.container, batch.features)


def _is_a(data: object, module: str, name: str) -> bool:
    """Whether an object is of a class of a library that the program has imported."""
    cls = getattr(sys.modules.get(module), name, None)
    return cls is not None and isinstance(data, cls)


def _table(data: object, name: str, label: str | Sequence[str] | None) -> Batch | None:
    """Return a pandas, Polars or pyarrow table, None for anything else."""
    if _is_a(data, "pyarrow", "Table"):
        data = data.to_pandas()  # type: ignore[attr-defined]
    for library in ("pandas", "polars"):
        if _is_a(data, library, "DataFrame"):
            frame: Any = data
            break
    else:
        return None
    label_column = _label_name(list(frame.columns), name, label)
    if twice := [column for number, column in enumerate(frame.columns) if column in list(frame.columns)[:number]]:
        raise MIAError(f"{name}: column {printable(twice[0], 40)!r} occurs twice; drop or rename one of them")
    labels = None if label_column is None else frame[label_column].to_numpy()
    if labels is not None and labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels):
        labels = labels.astype(np.str_)
    several = label_column if isinstance(label_column, list) else [label_column]
    features = [column for column in frame.columns if column not in several]
    if not features:
        raise MIAError(f"{name} has no columns of features")
    columns, categories = [], {}
    for column in features:
        values = frame[column].to_numpy()
        if values.dtype.kind not in "biuf":
            values, texts = _column(frame[column], name, column)
            if texts is not None:
                categories[str(column)] = texts
        columns.append(values)
    dtypes = dict(zip(map(str, features), frame[features].dtypes, strict=True)) if library == "pandas" else {}
    return Batch(
        np.stack(columns, axis=1),
        labels,
        library,
        Features(tuple(map(str, features)), categories, dtypes, in_memory=True),
    )


def _column(column: Any, name: str, title: object) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Return a column of objects as numbers, NaN where one is missing, or as positions in its texts."""
    items = [None if item is None or item != item or str(item) == "<NA>" else item for item in column.to_list()]
    given = [item for item in items if item is not None]
    if given and all(isinstance(item, int | float) for item in given):
        return np.array([np.nan if item is None else item for item in items], np.float64), None
    if odd := next((item for item in given if not isinstance(item, str | bool | int | float | date)), None):
        raise MIAError(
            f"{name}: column {printable(title, 40)!r} is not numeric, it holds {type(odd).__name__} objects; encode it "
            "as the model's training did, or drop it"
        )
    return coded([None if item is None else str(item) for item in items])


def _label_name(columns: Sequence[Any], name: str, label: str | Sequence[str] | None) -> Any:
    if label is not None:
        if missing := [each for each in ([label] if isinstance(label, str) else label) if each not in columns]:
            listed = ", ".join(printable(column, 20) for column in columns[:6])
            raise MIAError(f"{name} has no column {missing[0]!r}, which label= names; it has {listed}")
        return label if isinstance(label, str) else list(label)
    by_name = {normalize_name(str(column)): column for column in reversed(columns)}
    return next((by_name[label_name] for label_name in NAMES["label"] if label_name in by_name), None)


def _items(data: Any) -> Any:
    """Iterate over a data set; one with a length is read by position, since iteration may not end."""
    return (data[index] for index in range(len(data))) if hasattr(data, "__len__") else iter(data)


def _fields(item: Any, name: str, label: str | Sequence[str] | None) -> tuple[Any, Any]:
    """Return inputs and label of an item of a data set, or of a batch of a loader."""
    if isinstance(item, Mapping):
        return _named_fields(item, name, _label_name(list(item), name, label))
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0], None
    if isinstance(item, tuple | list):
        raise MIAError(f"{name}: its items have {len(item)} parts; give items (inputs, label)")
    return item, None


def _named_fields(item: Mapping[Any, Any], name: str, label: Any) -> tuple[Any, Any]:
    """Return inputs and label of a mapping, by the key of its label or the keys of several."""
    labels = label if isinstance(label, list) else [label]
    rest = [key for key in item if key not in labels]
    inputs = [key for key in rest if normalize_name(str(key)) in (*NAMES["image"], "inputs", "input")] or rest
    if len(inputs) != 1:
        raise MIAError(
            f"{name}: its items have the fields {', '.join(map(str, item))}; give items (inputs, label), or fields "
            "image and label"
        )
    if isinstance(label, list):
        return item[inputs[0]], np.stack([_array(item[key], name) for key in label], axis=-1)
    return item[inputs[0]], None if label is None else item[label]


def _is_batch(pair: tuple[Any, Any]) -> bool:
    """Whether inputs (B, C, H, W) or (B, F) come with B class numbers, as from a loader."""
    inputs, labels = (np.shape(part) for part in pair)
    whole = "int" in str(getattr(pair[1], "dtype", ""))
    return whole and len(labels) == 1 and len(inputs) in (2, 4) and labels[0] == inputs[0]


def _stacked(pairs: list[tuple[Any, Any]], name: str, join: Any) -> Batch:
    if not pairs:
        raise MIAError(f"{name} contains no records; give at least one")
    parts = [_array(inputs, name) for inputs, _ in pairs]
    shapes = {part.shape[0 if join is np.stack else 1 :] for part in parts}
    if len(shapes) > 1:
        raise MIAError(
            f"{name}: its records have different shapes ({', '.join(map(str, sorted(shapes)[:2]))}); give the data set "
            "the transform of the model's evaluation"
        )
    labels = [label for _, label in pairs]
    missing = any(label is None for label in labels)
    stacked = None if missing else join([_array(label, name) for label in labels])
    tensor = _is_a(pairs[0][0], "torch", "Tensor")
    return Batch(join(parts), stacked, "tensor" if tensor else "array")


def _array(values: Any, name: str) -> NDArray[Any]:
    if _is_a(values, "torch", "Tensor"):
        tensor = values.detach().cpu()
        return np.asarray(tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise MIAError(f"{name}: its records have different shapes; give them one shape") from error
    if array.dtype.kind == "O":
        texts = [item for item in array.reshape(-1).tolist() if isinstance(item, str)]
        if len(texts) == array.size:
            return array.astype(np.str_)
        raise MIAError(f"{name} holds {type(array.reshape(-1)[0]).__name__} objects; give numbers")
    return array
