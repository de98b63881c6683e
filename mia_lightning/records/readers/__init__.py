"""Readers: each module of this package turns one kind of source into Records.

A reader is a module with three names, discovered by listing the package, so a new format is a new file and nothing
else:

* ``FORMATS: str``: what it reads, for messages and help, such as ``arrays by name (.npz, .safetensors)``.
* ``matches(source: str) -> bool``: whether this reader reads the source, decided by the file's content; cheap.
* ``read(source: str, columns: Mapping[str, str] = {}) -> Records``: the records (`records.columns.make_records` builds
  them), or MIAError in one sentence. The second argument, the user's mapping of column names to meanings, may be left
  out of a reader that has no columns.
* ``read_transformed(source, columns, transform, transform_name)``, optional, of readers of image files of any size: the
  same with a transform from a PIL image to a tensor.

Modules whose name begins with an underscore hold what several readers share.
"""

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from mia_lightning.errors import MIAError, suggest
from mia_lightning.records.column_mapping import check_mapping
from mia_lightning.records.records import Records
from mia_lightning.security.file_kinds import kind_sentence
from mia_lightning.security.imports import import_own


def reader_names() -> list[str]:
    """Return the names of the built-in readers, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def known_formats() -> str:
    """Return what all built-in readers read, in one line for messages and help."""
    return "; ".join(_built_in(name).FORMATS for name in reader_names())


def read_records(
    source: str,
    *,
    reader: str = "auto",
    columns: Mapping[str, str] | None = None,
    transform: Callable[[Any], Any] | None = None,
    transform_name: str = "",
) -> Records:
    """Read candidate records from a file, a folder or a named data set.

    Args:
        source: a path, or a data set such as ``torchvision:CIFAR10`` or ``digits:public``.
        reader: ``auto`` to choose by the source's content, a name of `reader_names`, or a module of the
            user's own with a function ``read(source: str) -> Records``.
        columns: meaning of the source's columns by name (`records.vocabulary`), before the built-in vocabulary.
        transform: for readers of image files of any size: from a PIL image to a float tensor (C, H, W). The images
            are then decoded when they are needed (`records.lazy_images`). Other readers leave it out.
        transform_name: its name, for messages.

    Returns:
        Records with images (N, C, H, W), uint8 or float32, exactly as stored.

    Raises:
        MIAError: the source is missing, unsafe, of an unknown or corrupted format, or the reader is unknown.
    """
    source, columns = str(source), columns or {}
    check_mapping(columns, repeated=("label",))  # of multi-label tables
    name = Path(source).name or source
    try:
        module = _recognized(source) if reader == "auto" else _named(reader)
        if transform is not None and hasattr(module, "read_transformed"):
            records = module.read_transformed(source, columns, transform, transform_name)
        else:
            records = _read(module, source, columns)
    except FileNotFoundError as error:
        if os.path.lexists(source):
            raise MIAError(f"{name}: cannot be read ({error.strerror}: {error.filename}); check the path") from None
        raise _missing(Path(source)) from None
    except OSError as error:
        raise MIAError(
            f"{name}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from None
    except MemoryError:
        raise MIAError(f"{name}: does not fit into memory; give fewer records") from None
    if not isinstance(records, Records):
        raise MIAError(f"reader {reader!r}: read() returned {type(records).__name__}; expected mia_lightning Records")
    return records


def _read(module: ModuleType, source: str, columns: Mapping[str, str]) -> object:
    if "columns" in inspect.signature(module.read).parameters:
        return module.read(source, columns=columns)
    if columns:
        raise MIAError(f"--data.columns: reader {module.__name__.rpartition('.')[2]!r} takes no mapping; leave it out")
    return module.read(source)


def _recognized(source: str) -> ModuleType:
    for name in reader_names():
        module = _built_in(name)
        if module.matches(source):
            return module
    path = Path(source)
    os.stat(path)
    if sentence := kind_sentence(path):
        raise MIAError(f"{path.name}: {sentence}")
    raise MIAError(
        f"{path.name}: unknown or corrupted file format; expected {known_formats()}; choose one with --data.reader NAME"
    )


def _missing(path: Path) -> MIAError:
    """Return the error for a path that does not exist, with the closest name that does."""
    try:
        close = get_close_matches(path.name, os.listdir(path.parent), n=1)
    except OSError:
        close = []
    fix = f"did you mean {path.parent / close[0]}?" if close else f"expected {known_formats()}"
    return MIAError(f"{path}: no such file or folder; {fix}")


def _built_in(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _exists(module: str) -> bool:
    return module.isidentifier() and importlib.util.find_spec(module) is not None


def _named(reader: str) -> ModuleType:
    names = reader_names()
    if reader in names:
        return _built_in(reader)
    is_top_level = "." not in reader and (reader in sys.stdlib_module_names or not _exists(reader))
    if is_top_level or not all(part.isidentifier() for part in reader.split(".")):
        raise MIAError(f"--data.reader {reader!r} is unknown; {suggest(reader, ['auto', *names])}")
    try:
        module = import_own(reader)
    except ImportError as error:
        raise MIAError(f"--data.reader {reader!r} cannot be imported ({error}); put its folder on PYTHONPATH") from None
    if not callable(getattr(module, "read", None)):
        raise MIAError(f"--data.reader {reader!r} has no function read(source) -> Records; add one")
    return module
