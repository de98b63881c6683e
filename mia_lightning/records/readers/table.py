"""Tables of named features: Parquet and CSV files."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, listed, printable
from mia_lightning.records.column_mapping import find_columns
from mia_lightning.records.csv_header import header_names
from mia_lightning.records.label_columns import class_order_note
from mia_lightning.records.multi_hot import is_one_hot, multi_hot_column
from mia_lightning.records.readers import _files
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.table_columns import (
    feature_column,
    group_column,
    id_column,
    label_column,
    membership_of,
    number_column,
)
from mia_lightning.records.tables import Table, read_table
from mia_lightning.records.vocabulary import FEATURE, IGNORE, meaning

FORMATS = "tables of named features (Parquet, CSV)"

MEANINGS = ("id", "label", "membership", "group", "split", "class_name")

MOST_CELLS = 2 * 10**9
"""Features times rows, 16 GB."""


def matches(source: str) -> bool:
    """Whether the file is Parquet, or a CSV (one next to images is read by the reader `images` first)."""
    return _files.head(source, 4) == b"PAR1" or (
        source.lower().endswith((".csv", ".tsv")) and len(header_names(_files.head(source, 4096))) > 1
    )


def read(source: str, columns: Mapping[str, str] | None = None) -> Records:
    """Read a table with a header: every column that is no id, label, membership (or split), group or class name is a
    feature, or is one by `--data.columns '{NAME: feature}'`.

    Returns:
        Records with inputs (N, features), float64: NaN where a value is missing, positions in `categories` for text.

    Raises:
        MIAError: it is damaged or has no features, or a feature has an infinite value or none at all.
    """
    return table_records(read_table(_files.check_file(source), columns), columns)


def table_records(table: Table, columns: Mapping[str, str] | None = None) -> Records:
    """Return the records of a table; see `read`."""
    source = table.source
    several = [name for name, means in (columns or {}).items() if means == "label"]
    if len(several) > 1:
        columns = {**(columns or {}), **dict.fromkeys(several, IGNORE)}
    chosen = find_columns(table.names, source, columns, MEANINGS)
    features = tuple(chosen.unused)
    if not features:
        raise MIAError(
            f"{source}: has no columns of features, it has {listed(table.names, 12)}; name one by "
            f"--data.columns '{{NAME: {FEATURE}}}', or put the images next to it"
        )
    if len(features) * len(table) > MOST_CELLS:
        raise MIAError(f"{source}: has {len(features):,} features of {len(table):,} records, too many; give fewer")
    ids = id_column(table, chosen.get("id"))
    membership, notes = membership_of(table, chosen)
    labels, class_names = label_column(table, chosen.get("label"))
    if not several and chosen.get("label") is None:
        kept = [name for name, means in (columns or {}).items() if means == FEATURE]
        joined, labels, class_names = _one_hot_labels(table, [name for name in features if name not in kept], labels)
        if joined:
            features = tuple(name for name in features if name not in joined)
            notes.append(f"{source}: labels are read from {len(joined)} one-hot columns ({listed(joined, 3)})")
    multi_hot = _several_labels(table, several, notes) if len(several) > 1 else None
    labels = labels if multi_hot is None else np.zeros(len(table), np.int64)
    if class_names:
        notes.append(class_order_note(source, class_names))
    if (labels == UNKNOWN).all():
        notes.append(f"{source}: has no column of labels; name it with --data.columns '{{NAME: label}}'")
    values = np.empty((len(table), len(features)))
    categories: dict[str, tuple[str, ...]] = {}
    for index, name in enumerate(features):
        values[:, index], texts = _feature(table, name, notes)
        if texts is not None:
            categories[name] = texts
    as_text = f", {len(categories)} of them text ({listed(list(categories), 5)})" if categories else ""
    notes.append(f"{source}: {len(features)} features ({listed(features, 5)}){as_text}")
    return Records(
        ids=ids,
        images=values,  # type: ignore[arg-type]  # float64
        labels=labels,
        membership=membership,
        source=source,
        groups=group_column(table, chosen.get("group"), ids),
        class_names=class_names,
        notes=(*table.notes, *notes, *(f"{source}: has no column {n!r}" for n in chosen.absent)),
        ids_invented=chosen.get("id") is None,
        feature_names=features,
        categories=categories,
        multi_hot=multi_hot,
    )


def _one_hot_labels(
    table: Table, names: Sequence[str], labels: NDArray[np.int64]
) -> tuple[list[str], NDArray[np.int64], tuple[str, ...] | None]:
    """Return the columns such as label_0, label_1, ... of which each row has a single 1, with labels and class names.

    There are no columns, and the labels are the given ones, where none are one-hot.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        cuts = (cut for cut in range(len(name) - 1, 0, -1) if name[cut] in "_-. " or name[cut:].isdecimal())
        cut = next((cut for cut in cuts if meaning(name[:cut].rstrip("_-. ")) == "label"), None)
        if cut is not None and (text := name[cut:].strip("_-. ")):
            groups.setdefault(name[:cut], {})[text] = name
    for by_text in groups.values():
        try:
            matrix = np.stack([number_column(table, name) for name in by_text.values()], axis=1)
        except MIAError:
            continue
        if len(by_text) > 1 and is_one_hot(matrix):
            is_numbered = all(text.isdecimal() for text in by_text)
            texts = sorted(by_text)
            codes = [int(text) if is_numbered else texts.index(text) for text in by_text]
            labels = np.array(codes, np.int64)[matrix.argmax(axis=1)]
            return list(by_text.values()), labels, None if is_numbered else tuple(texts)
    return [], labels, None


def _several_labels(table: Table, names: list[str], notes: list[str]) -> NDArray[np.int64]:
    """Return labels (N, C) of 0 and 1 from one column each."""
    if missing := [name for name in names if name not in table.names]:
        raise MIAError(
            f"{table.source}: has no column {printable(missing[0], 40)!r}, which --data.columns maps to label"
        )
    matrix = np.stack([number_column(table, name) for name in names], axis=1)
    labels = multi_hot_column(matrix, table.source, notes, several=True)
    assert labels is not None
    return labels


def _feature(table: Table, name: str, notes: list[str]) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
    """Return the values of a feature, NaN where one is missing; for text, positions in the returned texts."""
    try:
        return feature_column(table, name, notes)
    except MIAError as error:
        ignore = f"--data.columns '{{{printable(name, 40)}: ignore}}'"
        fix = f"fill in or encode its values as numbers, or leave it out by {ignore}"
        raise MIAError(f"{str(error).partition(';')[0]}; {fix}") from None
