"""Plain description of an exported program's graph, with which it passes from one process to another.

JSON and safetensors: operations by name, arguments as numbers, texts and references to earlier nodes. Rebuilding it
runs nothing of the file it came from, and resolves ATen operations and arithmetic only.
"""

import json
import operator
import re
import struct
from operator import attrgetter
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, fx, nn

_ATEN = re.compile(r"aten\.[a-z_]\w*\.\w+")
_OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|getitem|eq|ne|lt|le|gt|ge)|math\.(ceil|floor|trunc)"
)
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_TYPES: dict[str, type] = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}


def describe(network: fx.GraphModule, **details: Any) -> bytes:
    """Return a graph of calls and its tensors as bytes; see `rebuild`.

    Args:
        network: Calls functions and reads attributes alone.
        details: Further values of JSON.

    Raises:
        ValueError: another node, function or argument.
    """
    numbers: dict[fx.Node, int] = {}
    tensors: dict[str, Tensor] = {}
    nodes = []
    for number, node in enumerate(network.graph.nodes):
        numbers[node] = number
        target = node.name if node.op in ("placeholder", "output") else str(node.target)
        if node.op == "get_attr":
            tensors[target] = attrgetter(target)(network).detach().clone().contiguous()
        elif node.op == "call_function":
            target = _name(node.target)
        arguments, keywords = _plain(node.args, numbers), {k: _plain(v, numbers) for k, v in node.kwargs.items()}
        nodes.append([node.op, target, arguments, keywords])
    learned = [name for name in tensors if isinstance(attrgetter(name)(network), nn.Parameter)]
    content = json.dumps({"nodes": nodes, "learned": learned, **details}).encode()
    return struct.pack("<Q", len(content)) + content + save(tensors)


def rebuild(description: bytes) -> tuple[fx.GraphModule, dict[str, Any]]:
    """Return the graph that `describe` described, and the details.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, struct.error: it is no such description.
    """
    (length,) = struct.unpack_from("<Q", description)
    details = json.loads(description[8 : 8 + length])
    tensors: dict[str, Any] = load(description[8 + length :])
    for name in details.pop("learned"):
        tensors[name] = nn.Parameter(tensors[name], requires_grad=False)
    graph, made = fx.Graph(), list[fx.Node]()
    for op, target, arguments, keywords in details.pop("nodes"):
        called: Any = target
        if op == "call_function":
            called = _function(target)
        elif op == "placeholder":
            called = "images"
        elif op == "output":
            (result,) = _value(arguments, made)
            graph.output(tuple(result) if isinstance(result, list) else result)
            continue
        elif op != "get_attr" or not _ATTRIBUTE.fullmatch(target) or target not in tensors:
            raise ValueError(f"{op} {target}")
        arguments = tuple(_value(arguments, made)) if op == "call_function" else ()
        made.append(graph.create_node(op, called, arguments, {k: _value(v, made) for k, v in keywords.items()}))
    return fx.GraphModule(tensors, graph).eval(), details


def _name(function: Any) -> str:
    for name in (str(function), f"{function.__module__}.{function.__name__}"):
        if _ATEN.fullmatch(name) or _OPERATORS.fullmatch(name):
            return name
    raise ValueError(f"calls {function}")


def _function(name: str) -> Any:
    if _ATEN.fullmatch(name) and str(operation := attrgetter(name)(torch.ops)) == name:
        return operation
    if _OPERATORS.fullmatch(name) is None:
        raise ValueError(f"calls {name}")
    import math

    module, _, function = name.partition(".")
    return getattr(math if module == "math" else operator, function)


def _plain(value: Any, numbers: dict[fx.Node, int]) -> Any:
    if isinstance(value, fx.Node):
        return {"node": numbers[value]}
    if isinstance(value, (list, tuple)):
        return [_plain(item, numbers) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    for kind, type_ in _TYPES.items():
        if isinstance(value, type_):
            return {kind: str(value).removeprefix("torch.")}
    raise ValueError(f"an argument of type {type(value).__name__}")


def _value(value: Any, made: list[fx.Node]) -> Any:
    if isinstance(value, list):
        return [_value(item, made) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return made[content]
    if kind == "device":
        return torch.device("cpu")
    named = getattr(torch, content)
    if not isinstance(named, _TYPES[kind]):
        raise ValueError(f"{kind} {content}")
    return named
