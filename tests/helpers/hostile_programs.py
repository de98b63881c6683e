"""Hostile `torch.export` programs. None uses the package under test."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from helpers.hostile_files import unfolding

MODEL, WEIGHTS, CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
Change = Callable[[Any], None]


class Runs:
    """Unpickles into a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, (self.command,)


def program() -> dict[str, bytes]:
    """Return the members of a good program, without the archive's own folder."""
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(nn.Sequential(*layers).eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=sizes)
    torch.export.save(exported, stream := io.BytesIO())
    with zipfile.ZipFile(stream) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def archive(members: dict[str, bytes], start: bytes = b"") -> bytes:
    """Return an archive of torch's, added to one that is there where `start` is given."""
    stream = io.BytesIO(start)
    with zipfile.ZipFile(stream, "a" if start else "w") as target:
        for name, data in members.items():
            target.writestr(f"archive/{name}", data)
    return stream.getvalue()


def graph(tree: Any) -> Any:
    return tree["graph_module"]["graph"]


def node(number: int, **values: object) -> Change:
    return lambda tree: graph(tree)["nodes"][number].update(values)


def argument(number: int, place: int, value: object) -> Change:
    return lambda tree: graph(tree)["nodes"][number]["inputs"][place].update(arg=value)


def values_of(tree: Any) -> Any:
    return graph(tree)["tensor_values"].values()


def expression(text: str) -> Change:
    """Put a text where sympy reads the batch size of a tensor from."""

    def change(tree: Any) -> None:
        for value in values_of(tree):
            value["sizes"][0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    return change


def asks(target: str, **inputs: object) -> Change:
    """Let the first operation be another one."""
    named = [{"name": name, "arg": value, "kind": 1} for name, value in inputs.items()]
    return node(0, target=target, inputs=named)


def changes(code: str) -> dict[str, Change]:
    """Return what to do to the graph, by name; `code` is an expression of Python that must never be evaluated."""
    image = {"as_tensor": {"name": "input"}}
    texts = {
        "the name of an operation": node(0, name=code),
        "the target of an operation": node(0, target=code),
        "the name of an input": lambda tree: graph(tree)["inputs"][-1]["as_tensor"].update(name=code),
        "the name of an output": lambda tree: graph(tree)["outputs"][0]["as_tensor"].update(name=code),
        "a string argument": argument(0, 3, {"as_string": code}),
        "an expression": expression(code),
        "an expression behind a size": expression(f"Symbol('s0') + {code}"),
        "a list of names": argument(0, 3, {"as_strings": [code]}),
        "the kind of an argument": argument(0, 3, {code: 1}),
        "a range": lambda tree: tree["range_constraints"].update({code: {"min_val": 1, "max_val": 2}}),
        "the name of a weight": lambda tree: tree["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
            parameter_name=code
        ),
    }
    operations = {
        "that reads a file": asks("torch.ops.aten.from_file.default", filename={"as_string": "etc"}),
        "of Python": asks("builtins.eval", source={"as_string": "1"}),
        "that fetches attributes": asks("_operator.attrgetter", name={"as_string": "x"}),
        "of another library": asks("torch.ops.prims.rng_prims.default", x=image),
        "of higher order": asks("torch.ops.higher_order.cond", x=image),
        "that is none": asks("torch.ops.aten.no_such_thing.default", x=image),
        "whose overload is code": asks("torch.ops.aten.relu.__class__", self=image),
        "without its arguments": node(0, inputs=[]),
        "that asks for itself": argument(0, 0, {"as_tensor": {"name": "conv2d"}}),
        "that asks for nothing known": argument(0, 0, {"as_tensor": {"name": "elsewhere"}}),
        "with a graph": argument(0, 3, {"as_graph": {"name": "x", "graph": {}}}),
        "with an object": argument(0, 3, {"as_custom_obj": {"name": "x", "class_fqn": "os.system"}}),
    }
    numbers = {
        "sizes of 2**62": lambda tree: [value.update(sizes=[{"as_int": 2**62}] * 4) for value in values_of(tree)],
        "sizes beyond 64 bits": lambda tree: [value.update(sizes=[{"as_int": 2**70}] * 4) for value in values_of(tree)],
        "negative sizes": lambda tree: [value.update(sizes=[{"as_int": -3}] * 4) for value in values_of(tree)],
        "a type that is none": lambda tree: [value.update(dtype=77) for value in values_of(tree)],
        "a power": expression("Pow(Integer(9), Integer(999999999999))"),
        "powers of powers": expression("Pow(" * 20 + "Integer(9)" + ", Integer(8))" * 20),
        "powers as Python writes them": expression("9**9**9**9"),
        "a shift": expression("1<<999999999999"),
        "digits": expression("9" * 1900),
        "a product without end": expression("9*" * 10**6 + "9"),
        "a deep expression": expression("Add(" * 5000 + "Integer(1)" + ")" * 5000),
        "padding of 2**40": argument(0, 4, {"as_ints": [2**40, 2**40]}),
        "no nodes": lambda tree: graph(tree).update(nodes=[]),
        "nodes that are a number": lambda tree: graph(tree).update(nodes=7),
        "no signature": lambda tree: tree["graph_module"].pop("signature"),
        "a schema of the future": lambda tree: tree.update(schema_version={"major": 10**6, "minor": 0}),
        "two inputs": lambda tree: tree["graph_module"]["signature"]["input_specs"].append(
            {"user_input": {"arg": image}}
        ),
    }
    return (
        {f"code as {name}": change for name, change in texts.items()}
        | {f"an operation {name}": change for name, change in operations.items()}
        | numbers
    )


def weight(**values: object) -> Change:
    return lambda tree: next(iter(tree["config"].values())).update(values)


def tensor(**values: object) -> Change:
    return lambda tree: next(iter(tree["config"].values()))["tensor_meta"].update(values)


def weights(code: str) -> dict[str, Change]:
    """Return what to do to the table of weights, by name."""
    whole = {"as_int": 2**40}
    return {
        "a weight that is a pickle": weight(use_pickle=True),
        "a weight of another folder": weight(path_name="../../../etc/passwd"),
        "a weight by its absolute name": weight(path_name="/etc/passwd"),
        "a weight that is not there": weight(path_name="weight_999"),
        "a weight whose name is code": weight(path_name=code),
        "a weight beyond its bytes": tensor(sizes=[{"as_int": 10**6}] + [{"as_int": 3}] * 3),
        "a weight of a petabyte": tensor(sizes=[whole] + [{"as_int": 256}] * 3, strides=[{"as_int": 0}] * 4),
        "a weight of 2**62 places": tensor(sizes=[{"as_int": 2**62}] * 4),
        "a weight of negative size": tensor(sizes=[{"as_int": -4}] + [{"as_int": 3}] * 3),
        "a weight that begins beyond its bytes": tensor(storage_offset={"as_int": 2**40}),
        "a weight that begins before its bytes": tensor(storage_offset={"as_int": -8}),
        "a weight of strides beyond its bytes": tensor(strides=[{"as_int": 2**30}] * 4),
        "a weight of negative strides": tensor(strides=[{"as_int": -1}] * 4),
        "a weight of no type": tensor(dtype=99),
        "a weight on a device of code": tensor(device={"type": code, "index": None}),
        "a table without weights": lambda tree: tree.update(config={}),
        "a table that is a list": lambda tree: tree.update(config=[1, 2]),
    }


def programs(canary: str) -> dict[str, bytes]:
    """Return hostile programs by name; each that is obeyed makes the file `canary`."""
    good, code = program(), f"__import__('pathlib').Path('{canary}').touch()"
    pickled = pickle.dumps(Runs(f"touch {canary}"))
    torch.save(Runs(f"touch {canary}"), stream := io.BytesIO())

    def edited(member: str, change: Change) -> bytes:
        change(tree := json.loads(good[member]))
        return archive(good | {member: json.dumps(tree).encode()})

    files = {name: edited(MODEL, change) for name, change in changes(code).items()}
    files |= {name: edited(WEIGHTS, change) for name, change in weights(code).items()}
    without_graph = {name: data for name, data in good.items() if name != MODEL}
    constants = good[WEIGHTS].replace(b"weight_", b"tensor_").replace(b'"use_pickle": false', b'"use_pickle": true')
    nested = b"[" * 200_000 + b"]" * 200_000
    digits = good[MODEL].replace(b'"as_int": 2', b'"as_int": ' + b"9" * 5000)
    files |= {
        "JSON that nests": archive(good | {MODEL: nested}),
        "numbers of 5,000 digits": archive(good | {MODEL: digits}),
        "JSON that is a pickle": archive(good | {MODEL: pickled}),
        "JSON that is no text": archive(good | {MODEL: b"\xff\xfe\0"}),
        "JSON of 3 GiB": archive(without_graph, unfolding(f"archive/{MODEL}", 3 << 10)),
        "weights that are a pickle": archive(good | {"data/weights/weight_0": stream.getvalue()}),
        "no graph": archive(without_graph),
        "constants that are a pickle": archive(good | {CONSTANTS: constants, "data/constants/tensor_0": pickled}),
        "an old form": archive(
            {"serialized_exported_program.json": good[MODEL], "serialized_state_dict.pt": stream.getvalue(),
             "serialized_constants.pt": stream.getvalue(), "version": b"6.1"}
        ),
        "a sample that is a pickle": archive(good | {"data/sample_inputs/model.pt": stream.getvalue()}),
        "guards that are code": edited(MODEL, lambda tree: tree.update(guards_code=[code])),
        "a call that is code": edited(
            MODEL, lambda tree: tree["graph_module"].update(module_call_graph=[{"fqn": code, "signature": None}])
        ),
        "notes that are code": edited(MODEL, node(0, metadata={"stack_trace": code, "nn_module_stack": code})),
        "a compiled library": archive(good | {"data/aotinductor/model/x.so": b"\x7fELF"}),
    }  # fmt: skip
    return files
