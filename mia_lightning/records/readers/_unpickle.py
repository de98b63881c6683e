"""Restricted unpickling: the names that a pickle requests, the few that are allowed, and the loading."""

import _compat_pickle
import errno
import io
import pickletools
import sys
import warnings
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from mia_lightning.errors import MIAError, listed
from mia_lightning.records.readers import _files, _stand_ins
from mia_lightning.security.archives import is_zip
from mia_lightning.security.pickle_instructions import Survey
from mia_lightning.security.torch_pickles import survey

EXPECTED = "expected a data-set object or dict with images, labels and membership, saved with torch.save"
PLAIN_PICKLE = "a pickle that torch.save did not write; save it again with torch.save(data, path)"
TRANSFORMS = "torchvision.transforms."
TORCH_DECIDES = ("torch.", "collections.", "_codecs.encode", "builtins.set", "builtins.bytearray", "builtins.complex")

SCANNED = 10**6
"""Instructions of a damaged pickle that are read for the names in it."""


def load(path: Path) -> Any:
    """Unpickle a torch file with inert stand-ins for the classes it names; nothing that it names is run or imported.

    Returns:
        The stand-in of the data-set object, or whatever plain object the file contains.

    Raises:
        MIAError: the file is damaged, or requests a name that is not allowed.
    """
    import torch

    try:
        result = survey(path)
        wanted = _requested(path, result)
        if any(full.startswith("pandas.") for full in wanted):
            raise MIAError(f"{path.name}: contains a table of pandas; save it with to_csv or to_parquet")
        result.check_calls(_stand_ins.WRAPPERS)
        allowed, dataset = _allowed(wanted, path.name)
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Mapped, storages are slices of the file: bounds are checked, and their pages can be reclaimed.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_stored_zip(path))
    except (MIAError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can make torch raise nearly anything
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: damage made torch seek to nowhere
            raise
        raise MIAError(_explain(path, error)) from None
    if dataset is None or isinstance(loaded, dataset):
        return loaded
    if wanted.isdisjoint(_stand_ins.WRAPPERS):
        raise MIAError(f"{path.name}: refused, it contains {dataset.__name__} inside the saved object; {EXPECTED}")
    return loaded


def _requested(path: Path, result: Survey) -> set[str]:
    """Return the names that the file requests and torch does not build by itself."""
    import torch

    if result.is_plain:
        return set()
    if not is_zip(path):
        with path.open("rb") as file:
            return _undecided(_scan(file))
    try:
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ValueError:  # a TorchScript archive, which torch.load refuses too
        return set()
    except Exception:  # an opcode that torch lacks: scanned here, to name what it requests
        with zipfile.ZipFile(path) as archive:
            (record,) = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")][:1]
            return _undecided(_scan(io.BytesIO(archive.read(record))))


def _undecided(names: set[str]) -> set[str]:
    return {name for name in names if name in _stand_ins.WRAPPERS or not name.startswith(TORCH_DECIDES)}


def _scan(file: BinaryIO) -> set[str]:
    """List "module.name" of every global in the pickles at the start of a file, executing none of them."""
    names: set[str] = set()
    try:
        for _ in range(5):  # torch's old form: magic number, version, system, the object, keys; then raw bytes
            texts: list[str] = []
            memo: dict[Any, str] = {}
            for opcode, argument, _ in islice(pickletools.genops(file), SCANNED):
                if opcode.name in ("GLOBAL", "INST"):
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(texts[-2:]))
                elif opcode.name.endswith("UNICODE") or opcode.name.endswith("STRING"):
                    texts.append(str(argument))
                elif opcode.name == "MEMOIZE" or opcode.name.endswith("PUT"):
                    memo[len(memo) if argument is None else argument] = texts[-1] if texts else ""
                elif opcode.name.endswith("GET"):
                    texts.append(memo.get(argument, ""))
    except (ValueError, IndexError, EOFError, OverflowError):  # the end, or damage that loading will report
        pass
    return names


def _allowed(wanted: set[str], name: str) -> tuple[list[Any], type[Any] | None]:
    """Pair each name with its stand-in: PIL, numpy and torch's objects, transforms, and one class of the data set.

    Raises:
        MIAError: more than one other name is requested, or one that the standard library defines.
    """
    pairs: list[Any] = [(stand_in, full) for full, stand_in in _stand_ins.NUMPY.items() if full in wanted]
    pairs += [(_stand_ins.Picture, full) for full in wanted if full.startswith("PIL.")]
    wrappers = wanted.intersection(_stand_ins.WRAPPERS)
    pairs += [(_stand_ins.dataset_class(full, several=True), full) for full in wrappers]
    pairs += [(type(full, (_stand_ins.Unused,), {}), full) for full in wanted if full.startswith(TRANSFORMS)]
    classes = [_python3_name(full) for full in wanted - {full for _, full in pairs}]
    classes.sort(key=lambda full: (not _is_library(full), full))
    if any(full.startswith("torch.nn.modules.") for full in classes):
        raise MIAError(
            f"{name}: looks like a pickled model, not records; save its state_dict and give it as the target"
        )
    if len(classes) > 1 or any(map(_is_library, classes)):
        raise MIAError(
            f"{name}: refused, its pickle requests {listed(classes, 6, 200)}; allowed are one data-set class, PIL and "
            "numpy"
        )
    if not classes:
        return pairs, None
    dataset = _stand_ins.dataset_class(classes[0], several=bool(wrappers))
    return [*pairs, (dataset, classes[0])], dataset


def _python3_name(full: str) -> str:
    """Return the Python 3 name for a Python 2 name of protocol 2, such as __builtin__.eval."""
    module, _, attribute = full.rpartition(".")
    module, attribute = _compat_pickle.NAME_MAPPING.get((module, attribute), (module, attribute))
    renamed = f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{attribute}"
    return renamed if _is_library(renamed) else full


def _is_library(full: str) -> bool:
    """Whether a name is one of the standard library's (in a module that is loaded; none is imported to look)."""
    module, _, attribute = full.rpartition(".")
    is_standard = module.partition(".")[0] in sys.stdlib_module_names or module.startswith("torch.")
    return is_standard and hasattr(sys.modules.get(module), attribute)


def _is_stored_zip(path: Path) -> bool:
    if not is_zip(path):
        return False
    with zipfile.ZipFile(path) as archive:  # a repacked file may be compressed; mapping it would read nonsense
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _explain(path: Path, error: Exception) -> str:
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    line = (text.splitlines() or [type(error).__name__])[0].partition(" Please use `torch")[0][:200]
    if isinstance(error, _stand_ins.Refused):
        return f"{path.name}: refused, {line}; {EXPECTED}"
    if "GLOBAL" in line or "reduce" in line or "allowlisted" in line:
        return f"{path.name}: refused, {line.rstrip('.')}; {EXPECTED}"
    if "TorchScript" in str(error) or "torchscript" in str(error):
        return f"{path.name}: is a TorchScript program, not records; {EXPECTED}"
    if "Unsupported operand" in line:
        return f"{path.name}: uses a pickle protocol other than 2 ({line}); save it again with torch.save(data, path)"
    if "magic number" in line:
        return f"{path.name}: is {_files.kind_or(path, PLAIN_PICKLE)}"
    return f"{path.name}: is cut short or damaged ({line}); copy or save it again"
