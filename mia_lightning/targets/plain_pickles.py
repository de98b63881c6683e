"""State dicts written by plain `pickle.dump`, read without an unpickler.

The instructions are followed here and build nothing but dicts, lists, tuples, numbers, text and tensors; whatever else
a pickle names is a stand-in, and no function of the file is called. The bytes of a tensor lie in it as a file of
torch's old form, which torch's weights-only loader reads after the same static check as a checkpoint's.
"""

import io
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mia_lightning.errors import MIAError
from mia_lightning.security.torch_pickles import survey_bytes
from mia_lightning.targets.pickles import MALICIOUS, StandIn

AGAIN = "save it again with torch.save(model.state_dict(), PATH)"

MOST_STEPS = 2_000_000
"""Instructions of a pickle; a state dict has some 40 per tensor."""

_MARK = object()

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"),
}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_REBUILD = {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"}

_PARAMETER = {"torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"}


class Unbuilt(StandIn):
    """What a pickle names or builds that is no tensor or plain container."""

    def __init__(self, name: str) -> None:
        self.name = name


def read_plain_pickle(path: Path) -> object:
    """Return the object of a file that `pickle.dump` wrote, with an `Unbuilt` for whatever is not plain.

    Raises:
        MIAError: the file is damaged, or has instructions that no state dict needs.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        try:
            return _Reader(path.name).read(content)
        except MIAError:
            raise
        except Exception as error:  # damage: an empty stack, a memo entry that is missing, a number that is none
            raise MIAError(f"{path.name}: truncated or not a state dict ({type(error).__name__}); {AGAIN}") from error


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.converted: dict[int, tuple[Any, Any]] = {}

    def read(self, content: Any) -> object:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if step > MOST_STEPS:
                raise MIAError(f"{self.source}: a pickle of over {MOST_STEPS:,} instructions; {AGAIN}")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise EOFError

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(reversed([stack.pop() for _ in range(_TUPLES[name])])))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE", "LIST", "DICT"):
            items = self._since_mark()
            stack.append(tuple(items) if name == "TUPLE" else items if name == "LIST" else _filled({}, items))
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            _filled(stack[-1], items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        else:
            self._call(name, argument)

    def _call(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "GLOBAL":
            stack.append(self._named(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = str(stack.pop()), str(stack.pop())
            stack.append(self._named(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._built(getattr(called, "name", ""), arguments))
        elif name == "NEWOBJ_EX":
            _, _, called = stack.pop(), stack.pop(), stack.pop()
            stack.append(Unbuilt(getattr(called, "name", "")))
        elif name == "BUILD" or name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        else:
            raise MIAError(f"{self.source}: refused, its pickle has the instruction {name}; {AGAIN}")

    def _named(self, name: str) -> Unbuilt:
        if MALICIOUS.match(name):
            raise MIAError(f"{self.source}: would run {name} while loading, refused; {AGAIN}")
        return Unbuilt(name)

    def _built(self, name: str, arguments: Any) -> object:
        if name == "collections.OrderedDict" and not arguments:
            return {}
        if name == "_codecs.encode" and arguments[1] in ("latin1", "latin-1"):  # bytes before protocol 3
            return self._once(arguments[0], lambda text: text.encode("latin1"))
        if name == "torch.storage._load_from_bytes":
            return self._once(arguments[0], lambda content: _storage(content, self.source))
        if name in _REBUILD and isinstance(arguments[0], _Storage):
            return _tensor(*arguments[:4])
        if name in _PARAMETER and isinstance(arguments[0], Tensor):
            return arguments[0]
        return Unbuilt(name)

    def _once(self, value: Any, convert: Callable[[Any], Any]) -> Any:
        """Convert a value once: a file may refer to it a million times."""
        if id(value) not in self.converted:
            self.converted[id(value)] = (value, convert(value))
        return self.converted[id(value)][1]

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _filled(container: Any, items: list[Any]) -> Any:
    """Add keys that are text or small integers, whose hashes a file cannot make collide, to a dict."""
    if isinstance(container, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str) or (type(key) is int and abs(key) < 2**60):
                container[key] = value
    return container


@dataclass(frozen=True, eq=False)
class _Storage:
    untyped: torch.UntypedStorage
    dtype: torch.dtype
    length: int


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Return a view of a storage; torch itself would enlarge a storage that is too small."""
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= storage.length):
        raise ValueError("a tensor beyond its storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped, offset, size, stride)


def _storage(content: bytes, source: str) -> _Storage:
    """Return the storage in bytes of torch's old form."""
    if content.startswith(b"PK"):
        raise ValueError("an archive in place of a storage")
    survey_bytes(content, source).check_calls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of storages with a type, which it saves itself
        typed = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(typed, torch.storage.TypedStorage):
            raise TypeError(type(typed).__name__)
        return _Storage(typed.untyped(), typed.dtype, len(typed))  # type: ignore[no-untyped-call]
