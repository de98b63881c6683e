"""Hostile torch files, built opcode by opcode. Plain functions; none uses the package under test."""

import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROTOCOL = b"\x80\x02"
COLUMNS = {"ids": [1, 2], "imgs": [torch.zeros(3, 4, 4)] * 2, "labels": [0, 1], "membership": [0, 1]}


class Calls:
    """Pickled, it asks for a call."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def listed(*parts: bytes) -> bytes:
    return b"](" + b"".join(parts) + b"e"


def mapping(**parts: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in parts.items()) + b"u"


def call(name: str, *arguments: bytes) -> bytes:
    return named(name) + group(*arguments) + b"R"


def storage(count: int, *, key: str = "0", kind: str = "torch.FloatStorage") -> bytes:
    return group(text("storage"), named(kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(
    shape: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    *,
    offset: int = 0,
    count: int = 4096,
    kind: str = "torch.FloatStorage",
    key: str = "0",
) -> bytes:
    """Return the opcodes of a tensor over storage `key`; by default contiguous."""
    if stride is None:
        stride, step = (), 1
        for size in reversed(shape):
            stride, step = (step, *stride), step * size
    parts = (number(offset), group(*map(number, shape)), group(*map(number, stride)), b"\x89")
    return call("torch._utils._rebuild_tensor_v2", storage(count, key=key, kind=kind), *parts, empty())


def empty() -> bytes:
    return named("collections.OrderedDict") + b")R"


def records(**changes: bytes) -> bytes:
    """Return the opcodes of a dict of two records, some of its columns replaced."""
    columns = {
        "ids": listed(number(1), number(2)),
        "imgs": listed(tensor((3, 4, 4)), tensor((3, 4, 4))),
        "labels": listed(number(0), number(1)),
        "membership": listed(number(0), number(1)),
    }
    return mapping(**columns | changes)


def zipped(
    path: Path,
    body: bytes,
    *,
    data: bytes = bytes(4 * 4096),
    compression: int = zipfile.ZIP_STORED,
    order: bytes = b"little",
    extra: dict[str, bytes] | None = None,
    start: bytes = PROTOCOL,
) -> Path:
    """Write a torch archive whose pickle is `body`."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", start + body + b".")
        archive.writestr("a/byteorder", order)
        archive.writestr("a/data/0", data)
        archive.writestr("a/version", b"3\n")
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return path


def legacy(path: Path, body: bytes, *, data: bytes = b"", keys: tuple[str, ...] = ("0",)) -> Path:
    """Write torch's old form: magic number, version, system, object, keys, raw storages."""
    out = io.BytesIO()
    pickle.dump(0x1950A86A20F9469CFC6C, out, 2)
    pickle.dump(1001, out, 2)
    pickle.dump({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, out, 2)
    out.write(PROTOCOL + body + b".")
    pickle.dump(list(keys), out, 2)
    path.write_bytes(out.getvalue() + data)
    return path


def doubled_tuples(depth: int) -> bytes:
    """Return a tuple of two references to a tuple of two references to ...: 2**depth leaves."""
    return number(1) + b"".join(b"q" + bytes([index]) + b"h" + bytes([index]) + b"\x86" for index in range(depth))


def doubled_lists(depth: int) -> bytes:
    body = listed(number(1))
    for index in range(depth):
        body = b"](" + body + b"q" + bytes([index]) + b"h" + bytes([index]) + b"e"
    return body


def deep(opening: bytes, closing: bytes, depth: int, in_: bytes = b"N") -> bytes:
    return opening * depth + in_ + closing * depth


def executing(canary: Path) -> dict[str, Any]:
    """Return objects whose unpickling creates the canary."""
    command = f"touch {canary}"
    source = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, source),
        "exec": Calls(exec, source),
        "open": Calls(open, str(canary), "w"),
        "popen": Calls(subprocess.Popen, ["touch", str(canary)]),
        "os.open": Calls(os.open, str(canary), os.O_CREAT),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "import": Calls(__import__, "os"),
        "load": Calls(torch.load, str(canary)),
        "loads": Calls(pickle.loads, pickle.dumps(Calls(os.system, command))),
    }


def bodies(canary: Path) -> dict[str, bytes]:
    """Return pickle bodies that are hostile in themselves, by name; each is tried as records and as a checkpoint."""
    command = f"touch {canary}"
    chain = (
        call("builtins.getattr", call("builtins.__import__", text("os")), text("system")) + group(text(command)) + b"R"
    )
    dotted = named("torch.os.system") + group(text(command)) + b"R"
    hexed = call("_codecs.encode", text("x" * 64), text("latin1"))
    for _ in range(40):
        hexed = named("_codecs.encode") + b"(" + hexed + text("hex") + b"tR"
    built = named("torch._tensor._rebuild_from_type_v2") + group(
        named("builtins.bytearray"), named("torch.Tensor"), group(number(2**36)), b"}"
    )
    body = {
        "getattr chain": chain,
        "attribute of torch": dotted,
        "inst opcode": b"(" + text(command) + b"iposix\nsystem\n",
        "obj opcode": b"(" + named("posix.system") + text(command) + b"o",
        "stack global": text("posix") + text("system") + b"\x93" + group(text(command)) + b"R",
        "extension code": b"\x82\x01" + group(text(command)) + b"R",
        "build on a global": named("torch.nn.parameter.Parameter") + mapping(__setstate__=named("posix.system")) + b"b",
        "persistent id is no storage": group(text("module"), named("posix.system"), text(command)) + b"Q",
        "nested persistent id": group(text("storage"), storage(4), text("0"), text("cpu"), number(4)) + b"Q",
        "persistent id of text": text("0") + b"Q",
        "text persistent id": b"P0\n",
        "bytearray of 64 GiB": mapping(ids=call("builtins.bytearray", number(2**36))),
        "tensor by its size": mapping(ids=call("torch.Tensor", number(2**36))),
        "FloatTensor by its size": mapping(ids=call("torch.FloatTensor", number(2**31), number(2**4))),
        "new tensor by its size": mapping(ids=named("torch.Tensor") + group(number(2**36)) + b"\x81"),
        "bytearray inside a rebuilt tensor": mapping(ids=built + b"R"),
        "text doubled forty times": mapping(ids=hexed),
        "hash of 2**60 leaves": b"}" + doubled_tuples(60) + number(1) + b"s",
        "set of 2**60 leaves": call("builtins.set", listed(doubled_tuples(60))),
        "hash of a deep tuple": b"}" + b")" + b"\x85" * 2_000_000 + number(1) + b"s",
        "deep lists": deep(b"](", b"e", 500_000),
        "deep dicts": deep(b"}(" + text("a"), b"u", 300_000),
        "deep tuples": deep(b"", b"\x85", 500_000),
        "marks without end": b"(" * 1_000_000,
        "memo that is not there": b"h\x07",
        "stack is empty": b"R",
        "text claims 4 GiB": b"X" + struct.pack("<I", 2**32 - 1) + b"abc",
        "8-byte text length": b"\x8d" + struct.pack("<Q", 2**63) + b"abc",
        "frame of 2**60 bytes": b"\x95" + struct.pack("<Q", 2**60),
        "no such class": call("nowhere.Thing", number(1)),
        "name with a NUL": named("a\0b.C\0") + b")\x81}b",
        "sparse with indices outside": call(
            "torch._utils._rebuild_sparse_tensor",
            call("torch.serialization._get_layout", text("torch.sparse_coo")),
            group(
                tensor((1, 1), kind="torch.LongStorage"), tensor((1,)), call("torch.Size", listed(number(1))), b"\x88"
            ),
        ),
        "meta tensor": mapping(
            **{
                "fc.weight": call(
                    "torch._utils._rebuild_meta_tensor_no_storage",
                    named("torch.float32"),
                    group(number(2**40), number(2**20)),
                    group(number(1), number(1)),
                    b"\x89",
                )
            }
        ),
    }
    loop = b"}q\x00(" + text("state_dict") + b"h\x00" + b"u"
    body["a dict that holds itself"] = loop
    body["a list that holds itself"] = b"]q\x00h\x00a"
    body["key of a list that holds itself"] = b"}" + b"]q\x00h\x00a\x85" + number(1) + b"s"
    body["names of ten thousand characters"] = (
        b"}(" + b"".join(text("k\n\x1b[31m" * 5000 + str(i)) + b"N" for i in range(9)) + b"u"
    )
    return body


def tensors() -> dict[str, bytes]:
    """Return tensors that lie about their storage, by name."""
    return {
        "shape beyond its storage": tensor((10**6, 3, 32, 32)),
        "shape of 2**62": tensor((2**31, 2**31, 1, 1), (1, 1, 1, 1)),
        "shape beyond 64 bits": tensor((2**63, 3), (1, 1)),
        "negative shape": tensor((-4, 3, 4, 4), (1, 1, 1, 1)),
        "offset beyond its storage": tensor((2, 3, 4, 4), offset=10**9),
        "negative offset": tensor((2, 3, 4, 4), offset=-64),
        "stride beyond its storage": tensor((2, 3, 4, 4), (10**7, 16, 4, 1)),
        "negative stride": tensor((2, 3, 4, 4), (48, 16, 4, -1)),
        "expanded to a petabyte": tensor((2**20, 3, 2**14, 2**14), (0, 0, 0, 0)),
        "expanded to 16 GiB": tensor((2**20, 1, 64, 64), (0, 0, 0, 0)),
        "overlapping windows of 16 GiB": tensor((4096, 1, 1024, 1024), (0, 0, 1, 1), count=4096),
        "more shape than stride": tensor((2, 3, 4, 4), (1, 1)),
        "storage of an exabyte": tensor((2, 3, 4, 4), count=2**58),
        "storage larger than its record": tensor((2, 3, 64, 64), count=2**20),
        "storage of another type": tensor((2, 3, 4, 4), kind="torch.DoubleStorage"),
        "storage that is not there": tensor((2, 3, 4, 4), key="7"),
        "storage outside the archive": tensor((2, 3, 4, 4), key="../../../etc/passwd"),
        "no storage type": tensor((2, 3, 4, 4), kind="torch.nn.parameter.Parameter"),
        "text for a shape": call(
            "torch._utils._rebuild_tensor_v2", storage(4), number(0), text("abc"), group(number(1)), b"\x89", empty()
        ),
    }
