"""Checkpoints of a reference in training, checked against the fresh state of the same training before use."""

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mia_lightning.runtime.atomic import write_atomically
from mia_lightning.runtime.own_files import read_bytes

State = Mapping[str, Any]
"""State dicts of "network", "optimizer" and "schedule", and the number of finished epochs, "epoch"."""


def save_checkpoint(path: Path, state: State) -> None:
    """Write a state with its checksum.

    Raises:
        MIAError: the disk is full, or the store cannot be written.
    """
    buffer = BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getvalue()
    write_atomically(path, sha256(payload).digest() + payload)


def load_checkpoint(path: Path, like: State, shapes: Sequence[torch.Size], epochs: int) -> State:
    """Return a state, on the CPU.

    Args:
        path: From `save_checkpoint`.
        like: State of the same training before its first step.
        shapes: Of the network's parameters, in their order.
        epochs: Number of epochs of the training.

    Raises:
        FileNotFoundError: it does not exist.
        MIAError: it cannot be read, or is not a regular file.
        ValueError: it is damaged, or of another training, with a short reason.
    """
    payload = read_bytes(path)
    if sha256(payload[32:]).digest() != payload[:32]:
        raise ValueError("wrong checksum")
    try:
        state = torch.load(BytesIO(payload[32:]), weights_only=True, map_location="cpu")
    except Exception as error:  # damaged pickles raise many things
        raise ValueError(str(error).splitlines()[0][:100]) from error
    if not isinstance(state, dict) or set(state) != set(like) or not isinstance(state["optimizer"], dict):
        raise ValueError("other contents")
    _check("epoch", state["epoch"], 0)
    if not 0 < state["epoch"] < epochs:
        raise ValueError(f"epoch {state['epoch']} of {epochs}")
    _check("network", state["network"], like["network"])
    _check("schedule", state["schedule"], like["schedule"])
    if "state" not in state["optimizer"]:
        raise ValueError("optimizer has other keys")
    _check("optimizer", {**state["optimizer"], "state": {}}, {**like["optimizer"], "state": {}})
    _check_moments(state["optimizer"]["state"], shapes)
    return state


def _check(name: str, value: Any, like: Any) -> None:
    """Raise ValueError unless a value has the structure of another: types, keys, lengths, shapes and dtypes."""
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping) or set(value) != set(like):
            raise ValueError(f"{name} has other keys")
        for key, item in like.items():
            _check(f"{name}.{key}", value[key], item)
    elif isinstance(like, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(like):
            raise ValueError(f"{name} has another length")
        for number, item in enumerate(like):
            _check(f"{name}[{number}]", value[number], item)
    elif isinstance(like, Tensor):
        if not isinstance(value, Tensor) or (value.shape, value.dtype) != (like.shape, like.dtype):
            raise ValueError(f"{name} has another shape or dtype")
    elif isinstance(like, float):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{name} is not a finite number")
    elif type(value) is not type(like):
        raise ValueError(f"{name} has another type")


def _check_moments(moments: Any, shapes: Sequence[torch.Size]) -> None:
    """Raise ValueError unless an optimizer's state has, per parameter, tensors of the parameter's shape."""
    if not isinstance(moments, dict) or not set(moments) <= set(range(len(shapes))):
        raise ValueError("optimizer.state has other keys")
    for number, tensors in moments.items():
        if not isinstance(tensors, dict) or set(tensors) not in MOMENTS:
            raise ValueError(f"optimizer.state[{number}] has other keys")
        for name, tensor in tensors.items():
            shape = torch.Size() if name == "step" else shapes[number]
            if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.is_floating_point():
                raise ValueError(f"optimizer.state[{number}].{name} has another shape")


MOMENTS: tuple[set[str], ...] = (set(), {"momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"})
"""Names of the tensors of each parameter in SGD without and with momentum, and in AdamW."""
