"""Checkpoint files: their tensors and hyper-parameters, read without executing anything."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError, listed, printable, reason
from mia_lightning.records.readers._stand_ins import Array
from mia_lightning.records.readers.arrays import load_npz, npz_names
from mia_lightning.security.archives import check_list, check_unfolding
from mia_lightning.security.file_kinds import file_kind
from mia_lightning.security.open import check_regular, open_regular
from mia_lightning.security.plain import plain_dict
from mia_lightning.targets.pickles import INSTEAD, NUMPY_ARRAY, OF_MODULE, described, is_stand_in, read_pickle
from mia_lightning.targets.plain_pickles import read_plain_pickle

_AS_FLOATS = "save the network's weights as float32, dequantized if they are quantized"

SKIPPED = ("optim", "scheduler", "scaler", "rng", "callbacks", "loops", "hyper_parameters", "hparams")
"""Beginnings of keys next to the weights whose tensors are never a network's."""

READ = (
    *("npz", "torch", "torch, old form", "torch, cut short", "TorchScript", "torch.export", "safetensors"),
    "zip, damaged",
)
PLAIN = ("pickle", "torch pickle")
"""Kinds of files that the readers of weights and programs read, or refuse in sentences of their own."""

DEEPEST = 5
"""Levels of dictionaries that are searched for tensors: a dictionary may contain itself."""

LONGEST = 1000
"""Items of a list or tuple that is searched for dictionaries."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of a checkpoint file, and what Lightning saved next to them."""

    tensors: dict[str, Tensor]
    """By dotted path through the dictionaries of the file."""

    hyper_parameters: dict[str, object]
    """Plain values only (numbers, text, booleans, lists and dictionaries of these); empty for other files."""

    epochs: int | None = None
    """Epochs that Lightning had finished; None for other files."""


def read_weights(path: Path) -> Checkpoint:
    """Return the tensors of a checkpoint.

    Raises:
        MIAError: the file is missing, truncated, not a checkpoint, or contains records or a pickled module.
    """
    check_kind(path)
    if _is_safetensors(path):
        return _checkpoint(_read_safetensors(path), path)
    kind = file_kind(path)
    if kind is not None and kind.name == "npz":
        return _checkpoint(_read_npz(path), path)
    if kind is not None and kind.name in PLAIN:
        return Checkpoint(_checkpoint(read_plain_pickle(path), path).tensors, {})
    return _checkpoint(read_pickle(path), path)


def check_kind(path: Path) -> None:
    """Refuse a file that has no tensors, named by its content: a Git LFS pointer, an HTML page, a model of Keras.

    Raises:
        MIAError: the file is missing, a folder, pipe or device, or of a kind that no reader here takes.
    """
    check_list(path)
    kind = file_kind(path)
    if kind is not None and kind.name not in READ + PLAIN:
        fix = "save by np.savez(PATH, **arrays) with one array per name" if kind.name == "npy" else kind.fix
        raise MIAError(f"{path.name or path}: is {kind.description}, expected a checkpoint; {fix}")
    try:
        check_regular(path)
        if kind is None and (content := _content(path)):
            raise MIAError(f"{path.name}: {content}, expected a checkpoint; copy or download it again")
    except OSError as error:
        problem = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise MIAError(f"{printable(path, 300)}: {problem}; --target.checkpoint expects a checkpoint") from error


def _content(path: Path) -> str:
    """Return what a file without a known kind is where its first bytes are zeros or text, else an empty text."""
    with open_regular(path) as file:
        start = file.read(4096)
    if not start.strip(b"\0"):
        return "begins with zeros only (an incomplete copy)"
    try:
        is_text = start[:4000].decode("utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")
    except UnicodeDecodeError:
        return ""
    return "is a text file" if is_text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable() else ""


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Raise MIAError naming the first floating tensor with a NaN or an infinity."""
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):  # packed weights of a quantized layer
            continue
        # a sum is finite only if every term is; it is ten times cheaper than looking at each
        if not tensor.is_floating_point() or torch.isfinite(tensor.float().sum()):
            continue
        values = tensor.float()
        if not torch.isfinite(values).all():
            problem = "NaN" if torch.isnan(values).any() else "infinite"
            raise MIAError(f"{source}: tensor {name!r} has {problem} values; use a checkpoint from before it diverged")


def weights_digest(network: nn.Module, header: str) -> str:
    """Return the sha256 (hex) of a header and of every weight of a network."""
    digest = sha256(f"{header}\n".encode())
    for name, tensor in sorted(network.state_dict().items()):
        if not isinstance(tensor, Tensor) or tensor.is_quantized:
            digest.update(f"{name} {tensor}\n".encode())  # packed weights of a quantized layer
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins with a little-endian header length, then JSON; a pickle or zip cannot."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= 100 << 20


def _read_npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an .npz file as tensors, with dots for slashes in their names."""
    names = npz_names(path)
    if {"images", "imgs"} & set(names):
        what = f"is an npz archive of records ({listed(names, 6)}), expected a checkpoint"
        raise MIAError(f"{path.name}: {what}; give it as --data.public or --data.private")
    if all(re.fullmatch(r"arr_\d+", name) for name in names):
        raise MIAError(
            f"{path.name}: is an .npz archive of arrays without names, expected a checkpoint; save by np.savez(PATH, "
            "**arrays) with one array per name, or give records as --data.public"
        )
    arrays = {name.replace("/", "."): np.array(array) for name, array in load_npz(path, names).items()}
    if other := next((name for name, array in arrays.items() if array.dtype.kind not in "biuf"), None):
        raise MIAError(f"{path.name}: array {printable(other, 80)!r} is {arrays[other].dtype}; save numbers alone")
    return {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise MIAError(f"{path.name}: truncated or broken safetensors file ({reason(error)})") from error


def _checkpoint(payload: object, path: Path) -> Checkpoint:
    numbered = _numbered(payload)
    if numbered is None:
        raise MIAError(f"{path.name}: contains {described(payload)}, expected a state dict; {INSTEAD}")
    payload = numbered
    if {"images", "imgs"} & set(payload) and {"ids", "labels", "membership"} & set(payload):
        raise MIAError(
            f"{path.name}: contains records ({', '.join(map(str, payload))}), not a checkpoint; give it as data"
        )
    payload = plain_dict(payload)
    tensors: dict[str, Tensor] = {}
    _collect(payload, "", tensors, DEEPEST)
    if not tensors:
        _collect(payload, "", tensors, DEEPEST, arrays=True)
    if not tensors:
        reason = _without_tensors(payload)
        instead = INSTEAD
        if NUMPY_ARRAY in reason:
            instead = "save {name: torch.from_numpy(array) for each} instead"
        elif any(is_stand_in(value) for value in payload.values()):
            instead = OF_MODULE
        raise MIAError(f"{path.name}: expected a state dict, but {reason}; {instead}")
    check_unfolding(sum(tensor.nbytes for tensor in tensors.values()), path)  # an expanded tensor claims much
    _check_types(tensors, path.name)
    return Checkpoint(tensors, _hyper_parameters(payload), _finished_epochs(payload))


def _check_types(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise MIAError naming the first tensor of a type without arithmetic: raw bits, 4-bit floats."""
    for name, tensor in tensors.items():
        try:
            torch.zeros(2, dtype=tensor.dtype).to(torch.complex64 if tensor.is_complex() else torch.float32)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise MIAError(f"{source}: tensor {name!r} is {_type(tensor)}; {_AS_FLOATS}") from error


def check_parameters(weights: Mapping[str, Tensor], network: nn.Module, source: str) -> None:
    """Raise MIAError naming the first floating-point parameter of a network whose weights are integers or complex.

    torch would convert them: quantized weights without their scales, or real parts without the imaginary ones.
    """
    for name, parameter in network.named_parameters():
        stored = weights.get(name)
        if stored is not None and parameter.is_floating_point() and not stored.is_floating_point():
            raise MIAError(
                f"{source}: tensor {name!r} is {_type(stored)}, expected floating-point weights; {_AS_FLOATS}"
            )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _collect(
    mapping: Mapping[Any, Any], prefix: str, tensors: dict[str, Tensor], depth: int, *, arrays: bool = False
) -> None:
    for key, value in plain_dict(mapping).items():
        if not isinstance(key, str):
            continue
        value = _from_numpy(value, key) if arrays and isinstance(value, Array) else value
        if isinstance(value, Tensor):
            tensors.setdefault(prefix + key, value.detach())
        elif depth > 1 and not key.lower().startswith(SKIPPED) and (inner := _numbered(value)) is not None:
            _collect(inner, f"{prefix}{key}.", tensors, depth - 1, arrays=arrays)


def _from_numpy(value: Array, name: str) -> Tensor | None:
    """Return the tensor of a pickled NumPy array, None for one that is not of numbers."""
    try:
        array = value.numpy()
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) if array.dtype.kind in "biuf" else None
    except (ValueError, TypeError) as error:
        raise MIAError(f"entry {printable(name, 80)!r} is a damaged NumPy array ({error}); save it again") from error


def _numbered(value: object) -> Mapping[Any, Any] | None:
    """Return a dictionary, or a list or tuple with dictionaries (an ensemble, or weights and epoch) by position."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple) and len(value) <= LONGEST and any(isinstance(item, Mapping) for item in value):
        return {str(position): item for position, item in enumerate(value) if isinstance(item, Mapping)}
    return None


def _without_tensors(payload: Mapping[Any, Any]) -> str:
    for values in (payload, *map(_numbered, payload.values())):
        key = next((key for key, value in (values or {}).items() if is_stand_in(value)), None)
        if values and key is not None:
            return f"entry {key!r} is {described(values[key])}"
    key = next(iter(payload), None)
    return "it is empty" if key is None else f"it contains no tensor (its first entry is {key!r})"


def _hyper_parameters(payload: Mapping[Any, Any]) -> dict[str, object]:
    saved = payload.get("hyper_parameters")
    if not isinstance(saved, Mapping):
        return {}
    plain = {str(key): value for key, value in plain_dict(saved).items() if _is_plain(value, 4)}
    name = payload.get("hparams_name")  # the constructor's parameter that takes all of them
    return plain if not isinstance(name, str) or name == "kwargs" or name in plain else {**plain, name: plain}


def _finished_epochs(payload: Mapping[Any, Any]) -> int | None:
    value: object = payload.get("loops")
    for key in ("fit_loop", "epoch_progress", "current", "processed"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and 0 < value < 2**31 else None


def _is_plain(value: object, depth: int) -> bool:
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, Mapping):
        return depth > 0 and all(
            isinstance(k, str) and _is_plain(item, depth - 1) for k, item in plain_dict(value).items()
        )
    return value is None or isinstance(value, (bool, int, float, str))
