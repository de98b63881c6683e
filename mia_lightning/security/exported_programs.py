"""Vetted copies of `torch.export` archives.

`torch.export.load` (of torch 2.15) trusts its file completely: it unpickles sample inputs, tensor subclasses and
custom objects with the unrestricted unpickler, opens compiled libraries, hands expression strings to `sympy.sympify`,
which evaluates them, and writes names and guard strings into Python source that it executes. So the file itself is
never passed to it. A new archive is built in memory from raw tensor bytes and a vetted graph: ATen operations and
integer arithmetic only, no text outside a narrow alphabet that can form neither a call nor a string literal. Pickles,
metadata, guards, sample inputs and libraries are left out.
"""

import ast
import contextlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mia_lightning.errors import MIAError

_NAME = re.compile(r"[A-Za-z0-9_.]*")
_TEXT = re.compile(r"[A-Za-z0-9_., >-]*")  # a string argument, as "bhid,bhjd->bhij": neither quotes nor slashes
_SYMBOL = re.compile(r"Symbol\('[suz][0-9]+'(?:, [a-z]+=(?:True|False))*\)")
_LONGEST, _MOST_POWERS = 2000, 4
_GRAMMAR: tuple[type[ast.AST], ...] = (
    *(ast.Call, ast.Load, ast.UnaryOp, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
_EXPRESSION = re.compile(r"[A-Za-z0-9+*/%(), <>=-]*")
_FUNCTIONS = {
    *("Integer", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv"),
    *("ModularIndexing", "Identity", "Eq", "Ne"),
    *("GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan"),
}
_ATEN = re.compile(r"torch\.ops\.aten\.\w+\.\w+")
_ARITHMETIC = {f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "getitem")}
_REFUSED_KEYS = {"as_graph", "as_operator", "as_custom_obj", "custom_obj", "token", "filename"}
_RECORD = {"weights": re.compile(r"weight_[0-9]+"), "constants": re.compile(r"tensor_[0-9]+")}
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def check_program(path: Path) -> None:
    """Refuse an archive by its graph and its tables of tensors, read in Python alone: no native loader meets the file.

    Raises:
        MIAError: see `vetted_archive`.
    """
    with _readable(path.name), zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        _vetted(lambda name: archive.read(f"{folder}/{name}"), path.name)


def vetted_archive(path: Path) -> io.BytesIO:
    """Return a new archive with the raw tensors and the vetted graph of an exported program.

    Raises:
        MIAError: the file is broken, or needs a pickle, code, or anything else that is not plain tensor arithmetic.
    """
    from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

    buffer = io.BytesIO()
    with _readable(path.name):
        reader: Any = PT2ArchiveReader(str(path))
        program, tables = _vetted(reader.read_bytes, path.name)
        with PT2ArchiveWriter(buffer) as writer:
            for part, table in tables.items():
                for name in sorted({entry["path_name"] for entry in table["config"].values()}):
                    writer.write_bytes(f"data/{part}/{name}", reader.read_bytes(f"data/{part}/{name}"))
                writer.write_string(f"data/{part}/model_{part}_config.json", json.dumps(table))
            writer.write_string("models/model.json", json.dumps(program))
            writer.write_bytes("data/sample_inputs/model.pt", b"")
    buffer.seek(0)
    return buffer


@contextlib.contextmanager
def _readable(source: str) -> Iterator[None]:
    try:
        yield
    except MIAError:
        raise
    except Exception as error:  # a missing record, a key or a type that no program has
        again = "broken or outdated torch.export program; export it again with torch.export.save"
        raise MIAError(f"{source}: {again} ({type(error).__name__})") from error


def _vetted(read: Callable[[str], bytes], source: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the vetted graph and the vetted tables of tensors by part."""
    program = _parse(read("models/model.json"))
    tables = {part: _parse(read(f"data/{part}/model_{part}_config.json")) for part in _RECORD}
    for part, table in tables.items():
        _vet_table(part, table, source)
    return _vet_program(program, source), tables


def _parse(text: bytes) -> Any:
    """Parse JSON; a program exported on an accelerator is read for the CPU."""

    def on_cpu(entry: dict[str, Any]) -> dict[str, Any]:
        return {"type": "cpu", "index": None} if entry.keys() == {"type", "index"} else entry

    return json.loads(text, object_hook=on_cpu)


def _vet_table(part: str, table: dict[str, Any], source: str) -> None:
    """Refuse an entry that is a pickle, or another text than a name."""
    entries = table["config"].values()
    _vet({key: value for key, value in table.items() if key != "config"}, source)
    _vet([*table["config"], *entries], source)  # a weight may have the name of a refused key, such as "token"
    for entry in entries:
        if entry["use_pickle"] or not _RECORD[part].fullmatch(entry["path_name"]):
            raise MIAError(
                f"{source}: needs to unpickle {part}/{entry['path_name']}, refused; export plain tensors only"
            )


def _vet_program(program: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the necessary parts of a program from one tensor of images to one tensor of logits."""
    module = program["graph_module"]
    signature = module["signature"]
    inputs = [spec for spec in signature["input_specs"] if "user_input" in spec]
    if len(inputs) != 1 or [next(iter(spec)) for spec in signature["output_specs"]] != ["user_output"]:
        raise MIAError(
            f"{source}: expected a program from one tensor of images to one tensor of logits, without side effects; "
            "call model.eval() before torch.export.export"
        )
    graph = module["graph"] | {"nodes": [node | {"metadata": {}} for node in module["graph"]["nodes"]]}
    for node in graph["nodes"]:
        _vet_node(node, source)
    kept = {"graph": graph, "signature": signature, "metadata": {}, "treespec_namedtuple_fields": {}}
    clean = {key: program[key] for key in ("opset_version", "range_constraints", "schema_version")}
    clean |= {"graph_module": kept, "verifiers": ["TRAINING"], "torch_version": "", "guards_code": []}
    _vet(clean, source)
    kept["module_call_graph"] = [{"fqn": "", "signature": _call()}]  # built here, hence not vetted
    return clean


def _call() -> dict[str, Any]:
    """Return the call signature `f(images) -> logits` as torch writes it."""
    arguments = {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]}
    keywords = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    both = {"type": "builtins.tuple", "context": "null", "children_spec": [arguments, keywords]}
    return {"inputs": [], "outputs": [], "in_spec": json.dumps([1, both]), "out_spec": json.dumps([1, _LEAF])}


def _vet_node(node: dict[str, Any], source: str) -> None:
    """Refuse an operation that is neither ATen nor integer arithmetic, reads files, or trains."""
    target = str(node["target"])
    if not _ATEN.fullmatch(target) and target not in _ARITHMETIC:
        raise MIAError(f"{source}: calls {target}, refused; only ATen operations are allowed")
    for argument in node["inputs"]:
        if argument["name"] == "filename":
            raise MIAError(f"{source}: {target} opens a file, refused")
        if argument["name"] in ("training", "train", "use_input_stats") and argument["arg"].get("as_bool") is True:
            trains = "batch_norm" in target or "dropout" in target
            if trains:
                raise MIAError(f"{source}: was exported in training mode; call model.eval() before torch.export.export")


def _vet(value: object, source: str, key: str = "") -> None:
    """Refuse any text, at any depth, that could be more than a name."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _REFUSED_KEYS:
                raise MIAError(f"{source}: holds {name!r}, refused; only tensors and ATen operations are")
            _vet(name, source)
            _vet(inner, source, name)
    elif isinstance(value, list):
        for inner in value:
            _vet(inner, source, key)
    elif isinstance(value, str):
        harmless = (
            _is_arithmetic(value) if key == "expr_str" else (_TEXT if key == "as_string" else _NAME).fullmatch(value)
        )
        if not harmless:
            raise MIAError(
                f"{source}: contains the text {value[:60]!r} where a name is expected, refused: it could be code"
            )


def _is_arithmetic(text: str) -> bool:
    """Whether an expression, as sympy writes it, contains only size symbols, integers and known functions.

    It is evaluated when it is read, so powers are kept small: a few characters could need more digits than fit into
    memory.
    """
    rest = _SYMBOL.sub("0", text)
    if len(text) > _LONGEST or _EXPRESSION.fullmatch(rest) is None:
        return False
    try:
        nodes = list(ast.walk(ast.parse(rest, mode="eval").body))
    except (SyntaxError, RecursionError, MemoryError):
        return False
    powers = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "Pow"]
    return all(map(_is_plain, nodes)) and len(powers) <= _MOST_POWERS and all(map(_is_small_power, powers))


def _is_plain(node: ast.AST) -> bool:
    """Whether a part of an expression is an integer below 2**63, a known function, or arithmetic on these."""
    if isinstance(node, ast.Constant):
        return type(node.value) is int and node.value < 2**63
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS
    return isinstance(node, _GRAMMAR)


def _is_small_power(power: ast.Call) -> bool:
    return len(power.args) == 2 and re.fullmatch(r"Integer\(-?[0-8]\)", ast.unparse(power.args[1])) is not None
