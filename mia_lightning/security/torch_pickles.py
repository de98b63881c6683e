"""Static check of torch pickles before loading.

torch's weights-only unpickler runs no code of the file, but the functions that it does call can be made to hang, crash
or fill memory: `bytearray(2**36)`, a text encoded forty times over, a dict key of 2**60 leaves, a dict of keys with one
hash. Here the same instructions (of torch 2.15) are followed on sizes in place of objects, and calls are allowed by
name.
"""

import _compat_pickle
import struct
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.security.archives import check_zip

TORCH = ("torch.", "collections.", "_codecs.", "builtins.")
"""Modules of the names that torch resolves by itself; any other name has a stand-in, or is refused by torch."""

CALLED = {
    *(f"torch._utils._rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
    *(f"torch.{name}" for name in ("Size", "device", "nn.parameter.Parameter")),
    *(f"collections.{name}" for name in ("OrderedDict", "Counter", "defaultdict")),
    *(f"builtins.{name}" for name in ("set", "complex")),
}
"""The functions of `TORCH` that build tensors and plain containers."""

HASHING = {"collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.set"}
"""Those of `CALLED` that hash the items of their argument."""

LATIN = ("latin1", "latin-1")
DEEPEST, LARGEST = 100, 10**7
"""Limits of nested tuples: hashing one is recursive, and visits a shared part once for each reference to it."""

MOST_COLLIDING = 2000
"""Keys and set members whose hash a file can choose: tuples, and integers of 61 bits and more (the hash of an integer
is its remainder by 2**61 - 1). Texts are hashed with a secret. A dict of N keys of one hash takes N² steps."""


@dataclass(slots=True)
class _Value:
    """Depth and size of an object, its name or text, and the parts of a tuple."""

    depth: int = 0
    size: int = 1
    text: str = ""
    parts: tuple["_Value", ...] = ()
    colliding: int = 0
    """1 where the file can choose the object's hash; of a list, the number of such items."""


_ATOM = _Value()
_LONG = _Value(colliding=1)
_WIDTHS = {ord(code): width for code, width in {"J": 4, "K": 1, "M": 2, "G": 8}.items()}  # numbers
_ATOMS = frozenset(b"N\x88\x89")  # None, True, False
_CONTAINERS = frozenset(b"]}\x8f")  # empty list, dict, set
_TUPLES = {ord(")"): 0, 0x85: 1, 0x86: 2, 0x87: 3}


def vet(path: Path, *, stand_ins: Collection[str] = ()) -> None:
    """Refuse a torch file, zip or old form, whose pickle calls what no tensors or containers need.

    A file that torch will refuse anyway (another protocol, a damaged pickle) is left to it.

    Args:
        path: The file.
        stand_ins: Names that the loader resolves to inert classes, calls to which are harmless.

    Raises:
        MIAError: a call to another function, a tuple nested too deep or too large, too many keys whose hash the file
            chooses, or an archive that decompresses too far.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:
        with path.open("rb") as file:
            if path.stat().st_size:
                with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                    _follow_all(content, 5, path.name, stand_ins)  # magic number, version, system, the object, keys
        return
    import torch

    try:
        check_zip(path)
        record: bytes = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    except (zipfile.BadZipFile, RuntimeError, ValueError, NotImplementedError):
        return
    _follow_all(record, 1, path.name, stand_ins)


def vet_bytes(content: bytes, source: str, *, stand_ins: Collection[str] = ()) -> None:
    """Refuse the content of a torch file of the old form as `vet` does.

    Raises:
        MIAError: see `vet`.
    """
    _follow_all(content, 5, source, stand_ins)


def _follow_all(content: bytes | mmap, count: int, source: str, stand_ins: Collection[str]) -> None:
    position = 0
    try:
        for _ in range(count):
            position = _Follower(content, position, source, stand_ins).follow()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, EOFError):  # torch meets the same damage
        return


class _Follower:
    """One pickle, followed to its end."""

    def __init__(self, content: bytes | mmap, position: int, source: str, stand_ins: Collection[str]) -> None:
        self.stand_ins = frozenset(stand_ins)
        self.content, self.position, self.source = content, position, source
        self.stack: list[_Value] = []
        self.marked: list[list[_Value]] = []
        self.memo: dict[int, _Value] = {}

    def follow(self) -> int:
        """Return where the pickle ends.

        Raises:
            MIAError: see `vet`.
            EOFError, IndexError, KeyError, struct.error: it is damaged, or has an instruction that torch lacks.
        """
        content = self.content
        while (code := content[self.position]) != 0x2E:
            self.position += 1
            if code in _WIDTHS:
                self.position += _WIDTHS[code]
                self.stack.append(_ATOM)
            elif code in _ATOMS:
                self.stack.append(_ATOM)
            elif code in _CONTAINERS:
                self.stack.append(_Value())
            elif code in b"qrhj":
                self._use_memo(code)
            elif code == 0x28:  # (
                self.marked.append(self.stack)
                self.stack = []
            elif code in b"t)\x85\x86\x87":
                self._push_tuple(code)
            elif code == 0x8A:
                self._push_long()
            elif code in b"XU":
                self._push_text(code)
            elif code in b"aesu":
                self._fill(code)
            else:
                self._act(code)
        return self.position + 1

    def _act(self, code: int) -> None:
        if code == 0x63:  # c
            module, name = self._line(), self._line()
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            self.stack.append(_Value(text=f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"))
        elif code in b"R\x81":
            arguments, called = self.stack.pop(), self.stack.pop()
            if called.text not in CALLED:
                self._check_call(called.text, arguments, makes=code == 0x81)
            elif called.text in HASHING:
                self._check_collisions(
                    sum(max(part.colliding, part.size * bool(part.parts)) for part in arguments.parts)
                )
            self.stack.append(_Value())  # nothing that these return is hashed part by part
        elif code == 0x62:  # b
            self.stack.pop()
        elif code == 0x51:  # Q
            self.stack[-1] = _ATOM
        elif code == 0x80:
            self.position += 1
        else:
            raise EOFError  # an instruction that torch refuses

    def _line(self) -> str:
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise EOFError
        line = self.content[self.position : end].decode()
        self.position = end + 1
        return line

    def _push_tuple(self, code: int) -> None:
        if code == 0x74:  # t
            parts, self.stack = self.stack, self.marked.pop()
        else:
            count = _TUPLES[code]
            parts = self.stack[len(self.stack) - count :]
            del self.stack[len(self.stack) - count :]
        depth, size = 0, 1
        for part in parts:
            size += part.size
            if part.depth > depth:
                depth = part.depth
        if depth >= DEEPEST or size > LARGEST:
            raise MIAError(
                f"{self.source}: refused, its pickle nests tuples {depth} deep or {size:,} large; save plain tensors"
            )
        self.stack.append(_Value(depth + 1, size, "", tuple(parts[:3]), 1))

    def _use_memo(self, code: int) -> None:
        index = self.content[self.position]
        self.position += 1
        if code in b"rj":
            (index,) = struct.unpack("<I", self.content[self.position - 1 : self.position + 3])
            self.position += 3
        if code in b"qr":
            self.memo[index] = self.stack[-1]
        else:
            self.stack.append(self.memo[index])

    def _push_long(self) -> None:
        length = self.content[self.position]
        self.position += 1 + length
        self.stack.append(_LONG if length > 7 else _ATOM)

    def _push_text(self, code: int) -> None:
        start = self.position + (4 if code == 0x58 else 1)
        length = int.from_bytes(self.content[self.position : start], "little")
        self.position = start + length
        is_short_text = code == 0x58 and length <= 8  # the name of an encoding
        text = self.content[start : self.position].decode() if is_short_text else ""
        self.stack.append(_Value(text=text) if is_short_text else _ATOM)

    def _fill(self, code: int) -> None:
        """Drop the items of a list or dict, and count those whose hash the file can choose."""
        if code in b"eu":
            items, self.stack = self.stack, self.marked.pop()
        else:
            count = 1 if code == 0x61 else 2
            items = self.stack[-count:]
            del self.stack[-count:]
        container = self.stack[-1]  # IndexError: damaged
        if container is _ATOM or container is _LONG:  # torch fails to add to a number
            raise EOFError
        hashed = items if code in b"ae" else items[::2]
        container.colliding += sum(item.colliding > 0 for item in hashed)
        if code in b"su":
            self._check_collisions(container.colliding)

    def _check_collisions(self, count: int) -> None:
        if count > MOST_COLLIDING:
            raise MIAError(
                f"{self.source}: refused, its pickle hashes over {MOST_COLLIDING:,} tuples or large integers, which "
                "may never end; save plain tensors"
            )

    def _check_call(self, name: str, arguments: _Value, *, makes: bool) -> None:
        if not name.startswith(TORCH) or name.startswith("torch.nn.modules.") or name in self.stand_ins:
            return
        texts = [part.text for part in arguments.parts]
        if name == "_codecs.encode" and len(texts) == 2 and texts[1] in LATIN and not makes:
            return
        if name == "builtins.bytearray" and (not texts or (len(texts) == 2 and texts[1] in LATIN)) and not makes:
            return
        raise MIAError(f"{self.source}: refused, its pickle calls {name}; expected tensors and plain containers only")
