"""Image files with a table: a CSV with images beside it, or a folder, tar or zip that holds both."""

import posixpath
from collections.abc import Callable, Iterable
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import _csv, _files
from mia_lightning.records.readers import _image_files as _pictures
from mia_lightning.records.records import Records

ARCHIVES = ("images.tar.xz", "images.tar.gz", "images.tar.bz2", "images.tar", "images.tgz", "images.zip")
COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh")


def matches(source: str) -> bool:
    """Say whether the source is a folder, a zip or tar archive, or a CSV whose first line names an id."""
    if Path(source).is_dir() or _files.zip_kind(source) == "other":
        return True
    start = _files.head(source, 4096)
    is_tar = start[257:262] == b"ustar" or start.startswith(COMPRESSED)
    is_table = bool(_csv.header(start) & {"id", "ids"}) or (bool(start) and source.lower().endswith(".csv"))
    return is_tar or is_table


def read(source: str) -> Records:
    """Read records whose images are files, found by the CSV's column `file` or named by id (with or without zeros).

    Beside a CSV, images are looked for under the column `file`, then in `images.tar.xz` (or .gz, .bz2, .tar, .zip),
    then in the folder `images`, then in the CSV's own folder. A folder, tar or zip must hold exactly one CSV.

    Returns:
        Records with images (N, C, H, W) uint8 in the CSV's order; C = 1 when every image is gray, else 3.

    Raises:
        MIAError: the table or an image is missing, damaged or unsafe; the id, line or file is named.
    """
    path = Path(source)
    if path.is_dir():
        table_file = _only([file.name for file in sorted(path.glob("*.csv"))], path.name)
        return _from_table(path / table_file, path.name, own=path)
    _files.check_file(source)
    start = _files.head(source, 512)
    if start[257:262] == b"ustar" or start.startswith((*COMPRESSED, _files.ZIP_MAGIC)):
        return _from_archive(path)
    return _from_table(path, path.name, own=None)


def _from_archive(path: Path) -> Records:
    tables: dict[str, bytes] = {}
    for name, size, content in _pictures.members(path):
        if name.lower().endswith(".csv") and not posixpath.basename(name).startswith("."):
            if size > _csv.LARGEST:
                raise MIAError(f"{path.name}: {name} has {size >> 20} MiB; expected under {_csv.LARGEST >> 20} MiB")
            tables[name] = content() if not tables else b""  # a second one is an error already
    table_name = _only(sorted(tables), path.name)
    table = _csv.parse(tables[table_name], f"{path.name}: {posixpath.basename(table_name)}")
    row_of = _by_file(table, posixpath.dirname(table_name)) if table.files else _by_id(table)
    return _records(table, _pictures.members(path), row_of, path.name)


def _from_table(path: Path, name: str, own: Path | None) -> Records:
    """Read a CSV; `own` is the folder the user named, whose every file may be an image, else only those beside it."""
    if path.stat().st_size > _csv.LARGEST:
        raise MIAError(f"{path.name}: has {path.stat().st_size >> 20} MiB; expected under {_csv.LARGEST >> 20} MiB")
    table = _csv.parse(path.read_bytes(), path.name)
    folder = path.parent
    row_of = _by_file(table, "") if table.files else _by_id(table)
    if table.files and (folder / _pictures.inside(table.files[0], name)).is_file():
        listed = [folder / _pictures.inside(file, name) for file in table.files]
        return _records(table, _pictures.opened(listed, folder), row_of, name)
    for archive in ARCHIVES:
        if (folder / archive).is_file():
            return _records(table, _pictures.members(folder / archive), row_of, name)
    if (folder / "images").is_dir():
        return _records(table, _pictures.members(folder / "images"), row_of, name)
    found = _pictures.members(own) if own else _pictures.opened(sorted(folder.iterdir()), folder)
    return _records(table, found, row_of, name)


def _records(
    table: _csv.Table, found: Iterable[_pictures.Member], row_of: Callable[[str], int | None], name: str
) -> Records:
    images = _pictures.stack(found, row_of, table.ids, name)
    return Records(ids=table.ids, images=images, labels=table.labels, membership=table.membership, source=name)


def _by_file(table: _csv.Table, folder: str) -> Callable[[str], int | None]:
    """Match the column `file`, relative to the CSV's folder inside its archive."""
    rows: dict[str, int] = {}
    for row, file in enumerate(table.files or ()):
        path = _pictures.inside(posixpath.join(folder, file), "column file")
        if path in rows:
            raise MIAError(f"column file: {file} stands for both {table.ids[rows[path]]} and {table.ids[row]}")
        rows[path] = row
    return rows.get


def _by_id(table: _csv.Table) -> Callable[[str], int | None]:
    """Match `{id}.png`, zero-padded for integer ids; or a string id that is the file's name itself."""
    rows = {str(key): row for row, key in enumerate(table.ids)}
    padded = table.ids.dtype.kind == "i"

    def row_of(path: str) -> int | None:
        name = posixpath.basename(path)
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() not in _pictures.SUFFIXES:
            return None
        if padded and stem.isascii() and stem.isdecimal():
            stem = stem.lstrip("0") or "0"
        return rows.get(stem, rows.get(name))

    return row_of


def _only(tables: list[str], name: str) -> str:
    if len(tables) == 1:
        return tables[0]
    found = f"{len(tables)} CSV files ({', '.join(tables[:5])}); name the one to read" if tables else "no CSV file"
    fix = "" if tables else "; expected exactly one, with a column id, and optionally label, membership, file"
    raise MIAError(f"{name}: holds {found}{fix}")
