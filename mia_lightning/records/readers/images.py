"""Image files with a table: a CSV next to images, or a folder, tar or zip that holds both."""

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mia_lightning.errors import MIAError, listed
from mia_lightning.records.column_mapping import Columns, find_columns
from mia_lightning.records.csv_header import header_names
from mia_lightning.records.label_columns import class_order_note
from mia_lightning.records.readers import _files, _image_files
from mia_lightning.records.records import Records
from mia_lightning.records.table_columns import Ids, group_column, id_column, label_column, membership_of, text_column
from mia_lightning.records.tables import Table, parse_csv, read_table
from mia_lightning.records.vocabulary import TABLE_COLUMNS, meaning

FORMATS = "a CSV next to images, or a folder, tar or zip of images with one CSV"

ARCHIVES = ("images.tar.xz", "images.tar.gz", "images.tar.bz2", "images.tar", "images.tgz", "images.zip")
COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh")
TABLES = (".csv", ".tsv")
LARGEST, MOST_ROWS = 256 * 2**20, 5 * 10**6
"""Bytes and rows of a table of records, far above any set of candidates; each cell in use becomes an object."""


@dataclass(frozen=True)
class _Rows:
    """A table's records: everything but the images."""

    table: Table
    columns: Columns
    ids: Ids
    files: list[str] | None
    """File of each record, where the table has such a column."""


def matches(source: str) -> bool:
    """Whether the source is a folder, a zip or tar archive, or a CSV that names files or has images next to it.

    A CSV whose columns are all ids, labels and the like has no features, so that its images are missing.
    """
    if os.path.isdir(source) or _files.zip_kind(source) == "other":
        return True
    start = _files.head(source, 4096)
    if start[257:262] == b"ustar" or start.startswith(COMPRESSED):
        return True
    names = header_names(start)
    if not names or not (source.lower().endswith(TABLES) or any(meaning(name, ("id", "file")) for name in names)):
        return bool(start) and source.lower().endswith(TABLES)
    has_features = any(meaning(name, (*TABLE_COLUMNS, "index")) is None for name in names)
    return not has_features or any(meaning(name, ("file",)) for name in names) or _has_images(Path(source).parent)


def _has_images(folder: Path) -> bool:
    """Whether images are next to a CSV: an archive or a folder of them, or image files."""
    if any((folder / name).exists() for name in (*ARCHIVES, "images")):
        return True
    return any(file.suffix.lower() in _image_files.SUFFIXES for file in folder.iterdir())


def read(source: str, columns: Mapping[str, str] | None = None) -> Records:
    """Read records whose images are files, found by the table's column of files or named by id (with or without zeros).

    Next to a CSV, images are looked for under its column of files, then in `images.tar.xz` (or .gz, .bz2, .tar, .zip),
    then in the folder `images`, then in the CSV's own folder. A folder, tar or zip must hold exactly one CSV.

    Args:
        source: path of the CSV, folder or archive.
        columns: the user's mapping of column names to meanings.

    Returns:
        Records with images (N, C, H, W) uint8 in the CSV's order; C = 1 when every image is gray, else 3.

    Raises:
        MIAError: the table or an image is missing, damaged or unsafe; the id, line or file is named.
    """
    path = Path(source)
    if path.is_dir():
        tables = [file.name for file in sorted(path.iterdir()) if file.suffix.lower() in TABLES]
        return _from_table(path / _only(tables, path), path.name, columns, folder=path)
    _files.check_file(source)
    start = _files.head(source, 512)
    if start.startswith(b"\x1f\x8b") and source.lower().endswith((".csv.gz", ".tsv.gz")):
        raise MIAError(f"{path.name}: is a compressed table; decompress it: gunzip {path.name}")
    if start[257:262] == b"ustar" or start.startswith((*COMPRESSED, _files.ZIP_MAGIC)):
        return _from_archive(path, columns)
    return _from_table(path, path.name, columns, folder=None)


def _from_archive(path: Path, columns: Mapping[str, str] | None) -> Records:
    tables: dict[str, bytes] = {}
    for name, size, content in _image_files.members(path):
        if name.lower().endswith(TABLES) and not posixpath.basename(name).startswith("."):
            if size > LARGEST:
                raise MIAError(f"{path.name}: {name} has {size >> 20} MiB; expected under {LARGEST >> 20} MiB")
            tables[name] = content() if not tables else b""  # a second one is an error already
    table_name = _only(sorted(tables), path)
    rows = _rows(parse_csv(tables[table_name], f"{path.name}: {posixpath.basename(table_name)}", columns), columns)
    row_of = _by_file(rows, posixpath.dirname(table_name)) if rows.files else _by_id(rows)
    return _records(rows, _image_files.members(path), row_of, path.name)


def _from_table(path: Path, name: str, columns: Mapping[str, str] | None, folder: Path | None) -> Records:
    """Read a CSV; every file in a `folder` that the user named may be an image, else only those next to the CSV."""
    rows = _rows(read_table(path, columns, largest=LARGEST), columns)
    parent = path.parent
    row_of = _by_file(rows, "") if rows.files else _by_id(rows)
    if rows.files and (parent / _image_files.inside(rows.files[0], name)).is_file():
        listed = [parent / _image_files.inside(file, name) for file in rows.files]
        return _records(rows, _image_files.opened(listed, parent), row_of, name)
    for archive in ARCHIVES:
        if (parent / archive).is_file():
            return _records(rows, _image_files.members(parent / archive), row_of, name)
    if (parent / "images").is_dir():
        return _records(rows, _image_files.members(parent / "images"), row_of, name)
    files = _image_files.members(folder) if folder else _image_files.opened(sorted(parent.iterdir()), parent)
    return _records(rows, files, row_of, name)


def _rows(table: Table, mapping: Mapping[str, str] | None) -> _Rows:
    if len(table) > MOST_ROWS:
        raise MIAError(f"{table.source}: has {len(table):,} rows; expected at most {MOST_ROWS:,}; split it")
    columns = find_columns(table.names, table.source, mapping, TABLE_COLUMNS)
    key, file = columns.get("id"), columns.get("file")
    files = None if file is None else text_column(table, file)
    if key is None and files is None:
        raise MIAError(
            f"{table.source}: has no column of ids or files, it has {listed(table.names, 12)}; name one id or "
            "file, or map it with --data.columns '{NAME: id}'"
        )
    if key is None and files is not None and len(set(files)) == len(files) and all(map(_is_id, files)):
        return _Rows(table, columns, np.array(files, dtype=np.str_), files)
    return _Rows(table, columns, id_column(table, key), files)


def _is_id(file: str) -> bool:
    return bool(file) and file.isprintable() and file[0].isalnum() and len(file) <= 256


def _records(
    rows: _Rows, files: Iterable[_image_files.Member], row_of: Callable[[str], int | None], name: str
) -> Records:
    table, columns = rows.table, rows.columns
    membership, notes = membership_of(table, columns)
    labels, class_names = label_column(table, columns.get("label"))
    if class_names:
        notes.append(class_order_note(table.source, class_names))
    elif (named := columns.get("class_name")) is not None:
        class_names = _names_of(labels, text_column(table, named))
    return Records(
        ids=rows.ids,
        images=_image_files.stack(files, row_of, rows.ids, name),
        labels=labels,
        membership=membership,
        source=name,
        groups=group_column(table, columns.get("group"), rows.ids),
        class_names=class_names,
        notes=(*table.notes, *notes, *columns.notes(table.source)),
        ids_invented=columns.get("id") is None,
    )


def _names_of(labels: np.ndarray, texts: list[str]) -> tuple[str, ...] | None:
    """Return the name of each class by its records; None where a class has none or several."""
    pairs = {(label, text) for label, text in zip(labels.tolist(), texts, strict=True) if label >= 0 and text}
    names = dict(pairs)
    if len(names) != len(pairs) or set(names) != set(range(len(names))) or len(set(names.values())) < len(names):
        return None
    return tuple(names[label] for label in range(len(names)))


def _by_file(rows: _Rows, folder: str) -> Callable[[str], int | None]:
    """Match the column of files, relative to the CSV's folder inside its archive."""
    row_of: dict[str, int] = {}
    for row, file in enumerate(rows.files or ()):
        path = _image_files.inside(posixpath.join(folder, file), "column of files")
        if path in row_of:
            raise MIAError(f"{rows.table.where(row)}: {file} is also the image of {rows.ids[row_of[path]]}; keep one")
        row_of[path] = row
    return row_of.get


def _by_id(rows: _Rows) -> Callable[[str], int | None]:
    """Match `{id}.png`, zero-padded for integer ids; or a string id that is the file's name itself."""
    row_of_id = {str(key): row for row, key in enumerate(rows.ids)}
    padded = rows.ids.dtype.kind == "i"

    def row_of(path: str) -> int | None:
        name = posixpath.basename(path)
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() not in _image_files.SUFFIXES:
            return None
        if padded and stem.isascii() and stem.isdecimal():
            stem = stem.lstrip("0") or "0"
        return row_of_id.get(stem, row_of_id.get(name))

    return row_of


def _only(tables: list[str], path: Path) -> str:
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise MIAError(f"{path.name}: contains {len(tables)} CSV files ({', '.join(tables[:5])}); name the one to read")
    need = (
        "contains no CSV file; expected exactly one, with a column id or file, and optionally label and membership, or "
        "a folder with images in train/CLASS/ and test/CLASS/"
    )
    description = _files.kind_or(path, "")
    raise MIAError(f"{path.name}: {f'is {description}' if description else need}")
