"""Readers: each module of this package turns one kind of source into Records.

A reader is a module with two functions, found by listing the package, so a new format is a new file and nothing else:

* ``matches(source: str) -> bool``: whether this reader reads the source, decided by what the file is; cheap.
* ``read(source: str, columns: Mapping[str, str] = {}) -> Records``: the records, or MIAError in one sentence. The
  second argument, the user's mapping of column names to meanings, may be left out of a reader that has no columns.

Modules whose name begins with an underscore hold what several readers share.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from mia_lightning.errors import MIAError, suggest
from mia_lightning.records.readers._files import KNOWN_FORMS, missing
from mia_lightning.records.records import Records
from mia_lightning.security.imports import import_own


def reader_names() -> list[str]:
    """Return the names of the built-in readers, sorted."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))


def read_records(source: str, *, reader: str = "auto", columns: Mapping[str, str] | None = None) -> Records:
    """Read candidate records from a file, a folder or a named data set.

    Args:
        source: a path, or a data set such as ``torchvision:CIFAR10`` or ``digits:public``.
        reader: ``auto`` to choose by what the source is, a name of `reader_names`, or a ``package.module`` of the
            user's own with a function ``read(source: str) -> Records``.
        columns: meaning of the source's columns by name (`records.vocabulary`), before the built-in vocabulary.

    Returns:
        Records with images (N, C, H, W), uint8 or float32, exactly as stored.

    Raises:
        MIAError: the source is missing, damaged, unsafe or of no known form, or the reader is unknown.
    """
    source = str(source)
    name = Path(source).name or source
    try:
        module = _recognized(source) if reader == "auto" else _named(reader)
        records = _read(module, source, columns or {})
    except OSError as error:
        raise MIAError(
            f"{name}: cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from None
    except MemoryError:
        raise MIAError(
            f"{name}: does not fit into this machine's memory; give fewer records or a larger machine"
        ) from None
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
        module = importlib.import_module(f"{__name__}.{name}")
        if module.matches(source):
            return module
    path = Path(source)
    if not path.exists():
        raise missing(path)
    if path.is_file() and path.stat().st_size == 0:
        raise MIAError(f"{path.name}: is empty (0 bytes); copy or download it again")
    raise MIAError(f"{path.name}: is damaged or of no known form; expected {KNOWN_FORMS}; force one with reader=NAME")


def _named(reader: str) -> ModuleType:
    names = reader_names()
    if reader in names:
        return importlib.import_module(f"{__name__}.{reader}")
    if "." not in reader or not all(part.isidentifier() for part in reader.split(".")):
        hint = suggest(reader, ["auto", *names])
        raise MIAError(f"reader {reader!r} is unknown; {hint}, or package.module of your own")
    try:
        module = import_own(reader)
    except ImportError as error:
        raise MIAError(f"reader {reader!r} cannot be imported ({error}); put its folder on PYTHONPATH") from None
    if not callable(getattr(module, "read", None)):
        raise MIAError(f"reader {reader!r} has no function read(source) -> Records; add one")
    return module
