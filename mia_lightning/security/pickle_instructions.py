"""Instructions of a torch pickle, followed on the sizes of objects; nothing is built."""

import _compat_pickle
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from mmap import mmap

from mia_lightning.errors import MIAError

TORCH = ("torch.", "collections.", "_codecs.", "builtins.")
"""Modules of the names that torch resolves by itself; any other name has a stand-in, or is refused by torch."""

CALLED = {
    *(f"torch._utils._rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
    *(f"torch.{name}" for name in ("Size", "device", "nn.parameter.Parameter")),
    *(f"collections.{name}" for name in ("OrderedDict", "Counter", "defaultdict")),
    *(f"builtins.{name}" for name in ("set", "complex")),
}
"""The functions of `TORCH` that build tensors and plain containers."""

PLAIN = re.compile(r"torch\._utils\._rebuild_tensor_v2|torch\.[A-Z][A-Za-z0-9]*Storage|collections\.OrderedDict")
"""Names in a file of plain tensors."""

HASHING = {"collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.set"}
"""Those of `CALLED` that hash the items of their argument."""

LATIN = ("latin1", "latin-1")
DEEPEST, LARGEST = 100, 10**7
"""Limits of nested tuples: hashing one is recursive, and visits a shared part once for each reference to it."""

NESTED = 1000
"""Limit of nested containers: pickling, which is recursive, writes none deeper."""

MOST_COLLIDING = 2000
"""Keys and set members whose hash a file can choose: tuples, and integers of 61 bits and more (the hash of an integer
is its remainder by 2**61 - 1). Texts are hashed with a secret. A dict of N keys of one hash takes N² steps."""

_WIDTHS = {ord(code): width for code, width in {"J": 4, "K": 1, "M": 2, "G": 8}.items()}  # numbers

_ATOMS = frozenset(b"N\x88\x89")  # None, True, False

_CONTAINERS = frozenset(b"]}\x8f")  # empty list, dict, set

_TUPLES = {ord(")"): 0, 0x85: 1, 0x86: 2, 0x87: 3}


@dataclass(slots=True)
class _Value:
    """Depth and size of an object, its name or text, and the parts of a tuple."""

    depth: int = 0
    """Of the containers in it, itself included."""
    size: int = 1
    text: str = ""
    parts: tuple["_Value", ...] = ()
    colliding: int = 0
    """1 where the file can choose the object's hash; of a list, the number of such items."""


_ATOM = _Value()
_LONG = _Value(colliding=1)


@dataclass
class Survey:
    """What a torch file requests, by one pass over its instructions."""

    source: str
    names: set[str] = field(default_factory=set)
    """Names of functions and classes, as the file and as Python 3 have them."""
    calls: list[str] = field(default_factory=list)
    """Names of `TORCH` that are called with other arguments than tensors and plain containers need."""
    instructions: int = 0
    complete: bool = True
    """False where the pass ended at damage, or at an instruction that torch lacks."""

    @property
    def is_plain(self) -> bool:
        """Whether torch builds the object of every name itself."""
        return self.complete and all(map(PLAIN.fullmatch, self.names))

    def check_calls(self, stand_ins: Collection[str] = ()) -> None:
        """Refuse a call that no tensors or containers need.

        Args:
            stand_ins: Names that the loader resolves to inert classes, calls to which are harmless.

        Raises:
            MIAError: there is one.
        """
        if refused := next((name for name in self.calls if name not in stand_ins), None):
            raise MIAError(
                f"{self.source}: refused, its pickle calls {refused}; expected tensors and plain containers only"
            )


def spellings(module: str, name: str) -> list[str]:
    """Return a name as the file has it and last as Python 3 has it, where it is one of Python 2.

    Pickles of protocol 2 hold those of Python 2.
    """
    new_module, new_name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    new_module = _compat_pickle.IMPORT_MAPPING.get(new_module, new_module)
    return list(dict.fromkeys((f"{module}.{name}", f"{new_module}.{new_name}")))


class Follower:
    """One pickle, followed to its end."""

    def __init__(self, content: bytes | mmap, position: int, result: Survey, limit: int) -> None:
        self.content, self.position, self.result, self.limit = content, position, result, limit
        self.source, self.steps = result.source, 0
        self.stack: list[_Value] = []
        self.marked: list[list[_Value]] = []
        self.memo: dict[int, _Value] = {}

    def follow(self) -> int:
        """Return where the pickle ends.

        Raises:
            MIAError: see `survey`.
            EOFError, IndexError, KeyError, struct.error: it is damaged, or has an instruction that torch lacks.
        """
        content = self.content
        for step in range(self.limit):
            self.steps = step
            code = content[self.position]
            self.position += 1
            if code == 0x2E:
                return self.position
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
                if len(self.marked) >= NESTED:
                    raise self._too_deep()
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
        raise MIAError(
            f"{self.source}: refused, its pickle has over {self.limit:,} instructions, too many for its size; save "
            "tensors or arrays in place of lists of numbers"
        )

    def _too_deep(self) -> MIAError:
        return MIAError(f"{self.source}: refused, its pickle nests containers over {NESTED:,} deep; save plain tensors")

    def _act(self, code: int) -> None:
        if code == 0x63:  # c
            *older, name = spellings(self._line(), self._line())
            self.result.names |= {name, *older}
            self.stack.append(_Value(text=name))
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
            if code == 0x69:  # i, a call of a name, which torch refuses
                self.result.names.add(f"{self._line()}.{self._line()}")
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
        container.depth = max(container.depth, 1 + max((item.depth for item in items), default=0))
        if container.depth > NESTED:
            raise self._too_deep()
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
        """Note a call of a name of `TORCH` that is not one of `CALLED`, unless its arguments make it harmless."""
        if not name.startswith(TORCH) or name.startswith("torch.nn.modules."):
            return
        texts = [part.text for part in arguments.parts]
        if name == "_codecs.encode" and len(texts) == 2 and texts[1] in LATIN and not makes:
            return
        if name == "builtins.bytearray" and (not texts or (len(texts) == 2 and texts[1] in LATIN)) and not makes:
            return
        if name not in self.result.calls:
            self.result.calls.append(name)
