"""Pickles of torch's old form without the sources of modules.

In that form a class of `torch.nn.Module` is a persistent reference ('module', class, file, source), which torch's
weights-only unpickler refuses. Here each reference is replaced by the class alone, as the zip form has it.
"""

import pickletools
import struct
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

from mia_lightning.security.open import open_regular

PICKLES = 5
"""Magic number, version, system, the object and the keys of its storages; then raw bytes."""

HEAD, MOST = 2**26, 2**20
"""Bytes that are searched for a module reference, and instructions of a pickle that are read."""

MODULE = b"X\x06\x00\x00\x00module"

_PUTS = ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE")
_CLOSING = ("APPENDS", "SETITEMS", "ADDITEMS", "LIST", "DICT", "FROZENSET", "INST", "OBJ", "POP_MARK")
_GETS = ("BINGET", "LONG_BINGET", "GET")

_Instruction = tuple[str, object, int, int]
"""Name, argument, first byte and end of an instruction."""

_Replacement = tuple[int, int, tuple[int, int] | bytes]
"""Start and end of what is replaced, and the bytes of the file, or others, that replace it."""


def without_module_sources(path: Path) -> bytes | None:
    """Return the content of a file of torch's old form with module references as classes, None where it has none.

    Nothing is built. A damaged file is left to the loader that reports it.
    """
    with open_regular(path) as file:
        if MODULE not in file.read(HEAD):
            return None
        file.seek(0)
        replacements = list(_replacements(file))
        if not replacements:
            return None
        file.seek(0)
        content = file.read()
    parts, position = [], 0
    for start, end, kept in replacements:
        parts += [content[position:start], kept if isinstance(kept, bytes) else content[slice(*kept)]]
        position = end
    return b"".join([*parts, content[position:]])


def _replacements(file: object) -> Iterator[_Replacement]:
    try:
        for _ in range(PICKLES):
            yield from _of_one_pickle(list(islice(_instructions(file), MOST)))
    except (ValueError, IndexError, EOFError, OverflowError, TypeError):
        return


def _instructions(file: object) -> Iterator[_Instruction]:
    previous: tuple[str, object, int] | None = None
    for opcode, argument, position in pickletools.genops(file):  # type: ignore[arg-type]
        if previous is not None:
            yield (*previous, int(position or 0))
        previous = opcode.name, argument, int(position or 0)
    if previous is not None:
        yield (*previous, previous[2] + 1)  # STOP


def _of_one_pickle(instructions: list[_Instruction]) -> Iterator[_Replacement]:
    """Yield the replacements of one pickle, in order.

    A text that a removed reference memorized, such as "module" of `DataParallel`, is written out where it is used next.
    """
    references = list(_references(instructions))
    removed = {index for first, last, _ in references for index in range(first, last + 1)}
    texts = _texts(instructions)
    memorized = {instructions[index][1] for index in removed if instructions[index][0] in _PUTS} & texts.keys()
    replacements: list[_Replacement] = [
        (instructions[first][2], instructions[last][3], kept) for first, last, kept in references
    ]
    for index, (name, argument, start, end) in enumerate(instructions):
        if name in _GETS and argument in memorized and index not in removed:
            text = texts[argument].encode("utf-8", "surrogatepass")
            replacements.append((start, end, b"X" + struct.pack("<I", len(text)) + text))
    yield from sorted(replacements, key=lambda item: item[0])


def _texts(instructions: list[_Instruction]) -> dict[object, str]:
    """Return the memorized texts by their number."""
    pairs = pairwise(instructions)
    return {put[1]: str(item[1]) for item, put in pairs if item[0] == "BINUNICODE" and put[0] in _PUTS}


def _references(instructions: list[_Instruction]) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Yield the first and last instruction of each module reference, and the bytes that name its class."""
    texts = _texts(instructions)
    marks: list[int] = []
    for index, (name, *_) in enumerate(instructions):
        if name == "MARK":
            marks.append(index)
        elif name == "BINPERSID" and marks:
            start = marks.pop()
            inner = [item for item in instructions[start + 1 : index] if item[0] not in _PUTS]
            first = inner[0] if inner else ("", None, 0, 0)
            word = texts.get(first[1]) if first[0] in _GETS else first[1]
            if word == "module" and len(inner) == 5 and inner[1][0] in ("GLOBAL", *_GETS):  # four parts, their tuple
                yield start, index, (inner[1][2], inner[2][2])
        elif marks and (name in _CLOSING or (name == "TUPLE" and not _is_reference(instructions, index))):
            marks.pop()


def _is_reference(instructions: list[_Instruction], index: int) -> bool:
    """Whether a tuple is followed by a persistent reference to it, after instructions that memorize it at most."""
    following = (instructions[after][0] for after in range(index + 1, len(instructions)))
    return next((name for name in following if name not in _PUTS), "") == "BINPERSID"
