"""Static check of torch pickles before loading.

torch's weights-only unpickler runs no code of the file, but the functions that it does call can be made to hang, crash
or fill memory: `bytearray(2**36)`, a text encoded forty times over, a dict key of 2**60 leaves, a dict of keys with one
hash. Here the same instructions (of torch 2.15) are followed on sizes in place of objects, and calls are allowed by
name.
"""

import struct
import zipfile
from mmap import ACCESS_READ, mmap
from pathlib import Path

from mia_lightning.security.archives import check_zip
from mia_lightning.security.pickle_instructions import Follower, Survey

SPARE_INSTRUCTIONS, BYTES_EACH = 5 * 10**6, 8
"""Instructions of any file, and bytes of a file that allow another one; reading takes some microseconds for each."""

PICKLES = 5
"""Of torch's old form: magic number, version, system, the object, keys."""


def survey(path: Path) -> Survey:
    """Return what the pickle of a torch file requests, zip or old form, in time linear in its length.

    A file that torch will refuse anyway (another protocol, a damaged pickle) is left to it.

    Raises:
        MIAError: containers nested too deep, a tuple too large, too many instructions for the file's size, too many
            keys whose hash the file chooses, or an archive that decompresses too far.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return Survey(path.name, complete=False)
            with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                return _follow_all(content, PICKLES, path.name, len(content))
    import torch

    try:
        check_zip(path)
        record: bytes = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    except (zipfile.BadZipFile, RuntimeError, ValueError, NotImplementedError):
        return Survey(path.name, complete=False)
    return _follow_all(record, 1, path.name, path.stat().st_size)


def survey_bytes(content: bytes, source: str) -> Survey:
    """Return what the content of a torch file of the old form requests; see `survey`."""
    return _follow_all(content, PICKLES, source, len(content))


def _follow_all(content: bytes | mmap, count: int, source: str, size: int) -> Survey:
    result = Survey(source)
    position, limit = 0, SPARE_INSTRUCTIONS + size // BYTES_EACH
    try:
        for _ in range(count):
            follower = Follower(content, position, result, limit - result.instructions)
            try:
                position = follower.follow()
            finally:
                result.instructions += follower.steps
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, EOFError):  # torch meets the same damage
        result.complete = False
    return result
