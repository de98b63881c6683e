"""Pickled checkpoints read without executing them: tensors and containers, and inert stand-ins for everything else."""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from mia_lightning.errors import MIAError, reason
from mia_lightning.records.readers._stand_ins import NUMPY
from mia_lightning.security.archives import is_zip
from mia_lightning.security.module_sources import without_module_sources
from mia_lightning.security.pickle_instructions import Survey, spellings
from mia_lightning.security.torch_pickles import survey, survey_bytes

NUMPY_ARRAY = "a NumPy array, which only running its pickle would rebuild"

INSTEAD = "save model.state_dict() instead"
OF_MODULE = f"{INSTEAD}, in the program that trained it: torch.save(model.state_dict(), 'weights.pt')"

MALICIOUS = re.compile(
    r"(os|posix|nt|sys|subprocess|shutil|socket|pty|ctypes|importlib|runpy|webbrowser|builtins|__builtin__)\.(?!"
    r"set$|frozenset$|slice$|range$|complex$|object$|getattr$|list$|dict$|tuple$|int$|float$|str$|bool$|bytes$|bytearray$"
    r"|type$|print$|len$|map$|zip$|filter$|enumerate$|property$|super$|min$|max$|sum$|abs$|[A-Z])"
)
"""Names that no honest checkpoint contains: the file is refused, not read with a stand-in."""

BUILT_BY_TORCH = re.compile(
    r"torch\.\w+|torch\._.*|torch\.(storage|serialization|nn\.parameter|cuda)\..*|collections\.(OrderedDict|Counter)"
    r"|builtins\.(set|complex|bytearray)|_codecs\.encode"
)
"""Names that the weights-only loader resolves itself, in files of torch's old form."""

ATTEMPTS, MOST_INSTRUCTIONS = 40, 2 * 10**7
"""Names in one file whose objects turn out to be containers, each found by reading the file again, and the instructions
read by all attempts together."""


ARRAYS = {name: maker for name, maker in NUMPY.items() if not name.endswith(".scalar")}
"""Stand-ins for the names of a pickled NumPy array, whose numbers are weights."""


class StandIn:
    """An object of any class next to the weights: takes every argument and state, and does nothing."""

    name = "an object"

    def __new__(cls, *_: object, **__: object) -> Any:  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def is_stand_in(value: object) -> bool:
    """Whether a value stands for an object that was not built."""
    return isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn))


def described(value: object) -> str:
    """Return what a value is, for a message."""
    if is_stand_in(value):
        name = str(getattr(value, "name", "an object"))
        if name.endswith("multiarray._reconstruct"):
            return NUMPY_ARRAY
        return f"a pickled object of {name}, which is not run"
    return f"a {type(value).__name__}"


def read_pickle(path: Path) -> object:
    """Return the object of a file that `torch.save` wrote, with a `StandIn` for every class that torch does not build.

    Raises:
        MIAError: the file is truncated, TorchScript, malicious, or not a checkpoint.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped and not is_zip(path):
        raise MIAError(f"{path.name}: truncated checkpoint (the end of its zip archive is missing); copy it again")
    if zipped and _is_torchscript(path):
        raise MIAError(
            f"{path.name}: is a TorchScript archive, which is code; {INSTEAD}, or a program by torch.export.save"
        )
    result = survey(path)
    names = _names(path, zipped, result)
    if unprintable := next((name for name in names if not name.isprintable()), None):
        raise MIAError(f"{path.name}: refused, its pickle names a class {unprintable[:80]!r}; {INSTEAD}")
    if malicious := next((name for name in names if MALICIOUS.match(name)), None):
        raise MIAError(f"{path.name}: would run {malicious} while loading, refused; {INSTEAD}")
    content = None if zipped else without_module_sources(path)
    if content is not None:
        result = survey_bytes(content, path.name)
    result.check_calls(names)
    payload = _load(path, names, content, max(2, min(ATTEMPTS, MOST_INSTRUCTIONS // max(result.instructions, 1))))
    if is_stand_in(payload):
        raise _whole_object(path, getattr(payload, "name", ""), names)
    return payload


def _load(path: Path, names: list[str], content: bytes | None, attempts: int) -> object:
    """Load with a stand-in for each name; a class whose objects are filled as containers becomes a plain container."""
    makers: dict[str, Callable[..., object]] = {name: ARRAYS.get(name) or _stand_in(name) for name in names}
    for _ in range(attempts):
        # S301 does not apply: weights_only builds tensors and plain containers, everything else is inert
        with (
            torch.serialization.safe_globals([(maker, name) for name, maker in makers.items()]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                return torch.load(path if content is None else BytesIO(content), map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                if not _as_container(makers, str(error)):
                    message = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
                    first = message.split("\n", 1)[0].partition(" Please use")[0][:200] or "torch refuses its pickle"
                    raise MIAError(f"{path.name}: not a checkpoint that can be read ({first}); {INSTEAD}") from error
            except Exception as error:  # torch raises many types for a broken file, a TypeError among them
                raise MIAError(
                    f"{path.name}: truncated or not a checkpoint ({type(error).__name__}: {reason(error)})"
                ) from error
    raise MIAError(f"{path.name}: contains objects of too many classes; {INSTEAD}")


def _stand_in(name: str) -> type[StandIn]:
    return type(name, (StandIn,), {"name": name, "__module__": "stand_in"})


def _as_container(makers: dict[str, Callable[..., object]], message: str) -> bool:
    """Replace the stand-in that torch could not fill by a maker of plain dicts or lists; whether there was one."""
    match = re.search(r"but got <class 'stand_in\.(.+?)'>", message)
    if match is None or match[1] not in makers:
        return False
    parent: type = list if "lists" in message else OrderedDict
    makers[match[1]] = _maker(match[1], parent)
    return True


def _maker(name: str, container: type) -> type:
    """Return a class whose objects are empty plain containers, by call and by `__new__`."""

    def new(cls: type, *_: object) -> Any:
        return container()

    return type(name, (), {"__new__": new, "__module__": "stand_in"})


def _names(path: Path, zipped: bool, result: Survey) -> list[str]:
    """Return the names of classes and functions in a file that torch does not build itself, without building any."""
    if result.is_plain:
        return []
    if not (zipped and result.complete):
        return sorted(name for name in result.names if not BUILT_BY_TORCH.fullmatch(name))
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # damage, which loading reports
        return []
    return sorted({spelling for name in names for spelling in spellings(*name.rpartition(".")[::2])})


def _whole_object(path: Path, name: str, names: list[str]) -> MIAError:
    """Return the sentence for a file that is one pickled object."""
    if name.endswith("Dataset"):
        return MIAError(f"{path.name}: contains records (a {name}), not a checkpoint; give it as data")
    if any(other.startswith("torch.nn.modules.") for other in names):
        return MIAError(f"{path.name}: contains a pickled module ({name}), which is not run; {OF_MODULE}")
    return MIAError(f"{path.name}: contains a pickled object of {name}, which is not run; {INSTEAD}")


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # a damaged list, of which torch reports more
        return False
