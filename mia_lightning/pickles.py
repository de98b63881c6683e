"""What a torch file's pickle would have done, worked out beforehand without doing it.

torch's weights-only unpickler runs nothing that a file brings along, but what it calls of its own can be made to hang,
crash or fill memory: `bytearray(2**36)`, a text encoded anew forty times, a dict key of 2**60 leaves. Here the same
instructions (read in torch 2.15) are followed on sizes in place of objects, and calls are allowed by name.
"""

import _compat_pickle
import struct
import zipfile
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.unfolding import check_zip

TORCH = ("torch.", "collections.", "_codecs.", "builtins.")
"""Where all that torch resolves by itself is; any other name is a stand-in of ours, or refused by torch."""

CALLED = {
    *(f"torch._utils._rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
    *(f"torch.{name}" for name in ("Size", "device", "nn.parameter.Parameter")),
    *(f"collections.{name}" for name in ("OrderedDict", "Counter", "defaultdict")),
    *(f"builtins.{name}" for name in ("set", "complex")),
}
"""The functions of `TORCH` that tensors and plain containers are made by."""

LATIN = ("latin1", "latin-1")
DEEPEST, LARGEST = 100, 10**7
"""Limits of nested tuples: hashing one is recursive, and visits a shared part once for each reference to it."""


@dataclass(slots=True)
class _Value:
    """What stands for an object: how deep and large it is, its name or text, and of a tuple the parts."""

    depth: int = 0
    size: int = 1
    text: str = ""
    parts: tuple["_Value", ...] = ()


_ATOM = _Value()
_WIDTHS = {b"J": 4, b"K": 1, b"M": 2, b"G": 8}  # numbers
_PUSHES = frozenset(b"N\x88\x89]}\x8f")  # None, True, False, empty list, dict, set


def vet(path: Path) -> None:
    """Refuse a torch file, zip or old form, whose pickle calls what no tensors or containers need.

    A file that torch will refuse anyway (another protocol, a damaged pickle) is left to it.

    Raises:
        MIAError: a call to another function, a tuple nested too deep or too large, or an archive that unfolds too far.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:
        with path.open("rb") as file:
            if path.stat().st_size:
                with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                    _follow_all(content, 5, path.name)  # magic number, version, system, the object, keys
        return
    import torch

    try:
        check_zip(path)
        record: bytes = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    except (zipfile.BadZipFile, RuntimeError, ValueError, NotImplementedError):
        return
    _follow_all(record, 1, path.name)


def _follow_all(content: bytes | mmap, count: int, source: str) -> None:
    position = 0
    try:
        for _ in range(count):
            position = _Follower(content, position, source).follow()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, EOFError):  # torch meets the same damage
        return


class _Follower:
    """One pickle, followed to its end."""

    def __init__(self, content: bytes | mmap, position: int, source: str) -> None:
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
        while (code := self._take(1)) != b".":
            if code in _WIDTHS:
                self.position += _WIDTHS[code]
                self.stack.append(_ATOM)
            elif code[0] in _PUSHES:
                self.stack.append(_ATOM)
            elif code == b"(":
                self.marked.append(self.stack)
                self.stack = []
            elif code in b"t)\x85\x86\x87":
                self._push_tuple(code)
            elif code in b"qrhj":
                self._use_memo(code)
            elif code in b"XU\x8a":
                self._push_text(code)
            elif code in b"aesu":
                self._fill(code)
            elif code == b"c":
                module, name = self._line(), self._line()
                module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
                self.stack.append(_Value(text=f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"))
            elif code in b"R\x81":
                arguments, called = self.stack.pop(), self.stack.pop()
                self._check_call(called.text, arguments, makes=code == b"\x81")
                self.stack.append(_Value(arguments.depth, arguments.size))
            elif code == b"b":
                self.stack.pop()
            elif code == b"Q":
                self.stack[-1] = _ATOM
            elif code == b"\x80":
                self.position += 1
            else:
                raise EOFError  # an instruction that torch refuses
        return self.position

    def _take(self, count: int) -> bytes:
        taken = self.content[self.position : self.position + count]
        if len(taken) < count:
            raise EOFError
        self.position += count
        return taken

    def _line(self) -> str:
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise EOFError
        line = self._take(end - self.position).decode()
        self.position += 1
        return line

    def _push_tuple(self, code: bytes) -> None:
        if code == b"t":
            parts, self.stack = self.stack, self.marked.pop()
        else:
            count = b")\x85\x86\x87".index(code)
            parts = self.stack[len(self.stack) - count :]
            del self.stack[len(self.stack) - count :]
            if len(parts) < count:
                raise EOFError
        depth = 1 + max((part.depth for part in parts), default=0)
        size = 1 + sum(part.size for part in parts)
        if depth > DEEPEST or size > LARGEST:
            raise MIAError(f"{self.source}: refused, its pickle nests tuples {depth} deep or {size:,} large, like a bomb")
        self.stack.append(_Value(depth, size, "", tuple(parts[:8])))

    def _use_memo(self, code: bytes) -> None:
        place = self._take(1)[0] if code in b"qh" else struct.unpack("<I", self._take(4))[0]
        if code in b"qr":
            self.memo[place] = self.stack[-1]
        else:
            self.stack.append(self.memo[place])

    def _push_text(self, code: bytes) -> None:
        length = struct.unpack("<I", self._take(4))[0] if code == b"X" else self._take(1)[0]
        text = self._take(length)
        self.stack.append(_Value(text=text.decode()) if code == b"X" and length <= 16 else _ATOM)

    def _fill(self, code: bytes) -> None:
        """Drop what goes into a list or dict: neither is ever hashed."""
        if code in b"eu":
            self.stack = self.marked.pop()
        else:
            del self.stack[-1 if code == b"a" else -2 :]
        if not self.stack:
            raise EOFError

    def _check_call(self, name: str, arguments: _Value, *, makes: bool) -> None:
        if not name.startswith(TORCH) or name.startswith("torch.nn.modules.") or name in CALLED:
            return
        texts = [part.text for part in arguments.parts]
        if name == "_codecs.encode" and len(texts) == 2 and texts[1] in LATIN and not makes:
            return
        if name == "builtins.bytearray" and (not texts or (len(texts) == 2 and texts[1] in LATIN)) and not makes:
            return
        raise MIAError(f"{self.source}: refused, its pickle calls {name}; expected tensors and plain containers only")
