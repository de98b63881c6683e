"""A checkpoint file into its tensors, without executing anything the file asks for."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mia_lightning.errors import MIAError
from mia_lightning.security.archives import check_unfolding, is_zip
from mia_lightning.security.torch_pickles import vet

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
INSTEAD = "save model.state_dict() instead"


class _Inert(dict[str, Any]):
    """Stands in for a harmless class of a training script (a path, a namespace): takes anything, does nothing."""

    def __new__(cls, *_: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass


# What `save_hyperparameters` and optimizers of real training scripts leave beside the weights. Each name resolves to
# the inert class above, so that the file gets an empty container and never the class it names.
_HARMLESS = (
    *(f"pathlib.{kind}{path}" for kind in ("", "Pure") for path in ("Path", "PosixPath", "WindowsPath")),
    *(f"pathlib._local.{kind}Path" for kind in ("", "Posix", "Windows")),  # Python 3.13 writes these
    "argparse.Namespace",
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "numpy._core.multiarray.scalar",  # a best accuracy that NumPy computed
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
)


def read_weights(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the tensors of a checkpoint by their names in the file, and whether Lightning wrote it.

    Raises:
        MIAError: the file is missing, truncated, not a checkpoint, holds records, or asks for code to be run.
    """
    if not path.is_file():
        raise MIAError(f"{path}: no such file; --target.checkpoint expects a checkpoint")
    if _is_safetensors(path):
        return _state_dict(_read_safetensors(path), path), False
    payload = _read_pickle(path)
    lightning = isinstance(payload, Mapping) and "pytorch-lightning_version" in payload
    return _state_dict(payload, path), lightning


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Raise MIAError naming the first floating tensor that holds a NaN or an infinity."""
    for name, tensor in weights.items():
        # a sum is finite only if every term is; it is ten times cheaper than looking at each
        if not tensor.is_floating_point() or torch.isfinite(tensor.float().sum()):
            continue
        values = tensor.float()
        if not torch.isfinite(values).all():
            kind = "NaN" if torch.isnan(values).any() else "infinite"
            raise MIAError(f"{source}: tensor {name!r} holds {kind} values; take a checkpoint from before it diverged")


def _is_safetensors(path: Path) -> bool:
    """Tell by content: a little-endian header length, then JSON. A pickle or zip cannot begin so."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= 100 << 20


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise MIAError(f"{path.name}: truncated or broken safetensors file ({_first_line(error)})") from error


def _read_pickle(path: Path) -> object:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped and not is_zip(path):
        raise MIAError(f"{path.name}: truncated checkpoint (the end of its zip archive is missing); copy it again")
    if zipped and _is_torchscript(path):
        raise MIAError(f"{path.name}: is a TorchScript archive, which is code; {INSTEAD}")
    vet(path)
    # S301 does not apply: weights_only builds tensors and plain containers, everything else is refused or inert
    with torch.serialization.safe_globals([(_Inert, name) for name in _HARMLESS]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise _refusal(path, str(error)) from error
        except Exception as error:  # torch raises many kinds for a broken file, a TypeError among them
            reason = f"{type(error).__name__}: {_first_line(error)}"
            raise MIAError(f"{path.name}: truncated or not a checkpoint ({reason})") from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # a damaged list, of which torch says more
        return False


def _refusal(path: Path, message: str) -> MIAError:
    """Return the sentence for a pickle that torch refused to read."""
    asked = re.search(r"GLOBAL (\S+) (?:was not|whose)", message)
    if not asked:
        return MIAError(f"{path.name}: not a checkpoint that can be read without running its code; {INSTEAD}")
    wanted = [asked[1], *_unsafe_globals(path)]
    if records := next((name for name in wanted if name.endswith("Dataset")), None):
        return MIAError(f"{path.name}: holds records (it asks for {records}), not a checkpoint; give it as data")
    if any(name.startswith("torch.nn.modules.") for name in wanted):
        return MIAError(f"{path.name}: holds a whole pickled module (it asks for {asked[1]}), not run; {INSTEAD}")
    return MIAError(f"{path.name}: asks to run {asked[1]} while loading, refused; {INSTEAD}")


def _unsafe_globals(path: Path) -> list[str]:
    """Return every name the pickle asks for, read without building anything; none where the format hides them."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a legacy file, or opcodes the disassembler does not know: the first name is enough then
        return []


def _state_dict(payload: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict inside the usual wrappers, a few deep: a dict may hold itself."""
    for _ in range(4):
        if not isinstance(payload, Mapping):
            break
        inner = next((payload[key] for key in WRAPPERS if isinstance(payload.get(key), Mapping)), None)
        if inner is None:
            break
        payload = inner
    if not isinstance(payload, Mapping):
        raise MIAError(f"{path.name}: holds a {type(payload).__name__}, expected a state dict; {INSTEAD}")
    if {"images", "imgs"} & set(payload) and {"ids", "labels", "membership"} & set(payload):
        raise MIAError(
            f"{path.name}: holds records ({', '.join(map(str, payload))}), not a checkpoint; give it as data"
        )
    weights = {name: value for name, value in payload.items() if value is not None}
    odd = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if odd is not None or not weights:
        found = f"entry {odd!r} is no tensor" if weights else "it is empty"
        raise MIAError(
            f"{path.name}: expected a state dict, plain or under one of {', '.join(WRAPPERS)}, but {found}; {INSTEAD}"
        )
    check_unfolding(sum(tensor.nbytes for tensor in weights.values()), path)  # an expanded tensor claims much
    return {str(name): tensor.detach() for name, tensor in weights.items()}


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
