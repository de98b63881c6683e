"""Coverage-guided fuzzing of everything that reads a file we were handed; see README.md next to it.

    python tests/fuzz/fuzz.py KIND [CORPUS] [options of libFuzzer]

KIND is one of `TARGETS`. An input may load or raise MIAError in one printable sentence; all else is a finding.
"""

import json
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))
import numpy.lib.format
import torch._weights_only_unpickler as unpickling

unpickling.Unpickler.load = atheris.instrument_func(unpickling.Unpickler.load)
numpy.lib.format.descr_to_dtype = atheris.instrument_func(numpy.lib.format.descr_to_dtype)
for library in ("zipfile", "tarfile", "yaml", "PIL"):
    for module in [name for name in sys.modules if name.partition(".")[0] == library]:
        del sys.modules[module]  # to be imported anew, instrumented

with atheris.instrument_imports(include=["mia_lightning", "zipfile", "tarfile", "yaml", "PIL"]):
    import PIL.Image  # noqa: F401
    import seeds
    import yaml  # noqa: F401

    from mia_lightning.config.command_line import parse_mapping
    from mia_lightning.config.files import read_yaml
    from mia_lightning.errors import MIAError
    from mia_lightning.records.readers import read_records
    from mia_lightning.scores.files import read_scores
    from mia_lightning.targets import exported
    from mia_lightning.targets.weights import check_finite, read_weights


def read_checkpoint(path: str) -> None:
    check_finite(read_weights(Path(path)).tensors, "it")


def read_pickle(path: str) -> None:
    """Read it as records and as weights, whichever it is."""
    with suppress(MIAError):
        read_records(path, reader="pickled")
    read_checkpoint(path)


def read_program(path: str) -> None:
    if exported.is_program(Path(path)):
        exported.read_program(Path(path))


def read_configuration(path: str) -> None:
    parse_mapping(read_yaml(path))


def reading(reader: str) -> Callable[[str], object]:
    return lambda path: read_records(path, reader=reader)


def as_it_is(data: bytes) -> bytes:
    return data


def inside(archive: bytes, ending: str) -> Callable[[bytes], bytes]:
    """Put an input into a valid archive, where mutations would else fail on the checksum."""
    return lambda data: seeds.with_member(archive, ending, data)


WRAPS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "pickle": lambda: inside(seeds.data_set(), "data.pkl"),
    "graph": lambda: inside(seeds.convolutional_program(), "model.json"),
}
TARGETS: dict[str, tuple[str, Callable[[str], object]]] = {
    "pickled": (".pt", reading("pickled")),
    "checkpoint": (".ckpt", read_checkpoint),
    "pickle": (".pt", read_pickle),
    "program": (".pt2", read_program),
    "graph": (".pt2", read_program),
    "npz": (".npz", reading("arrays")),
    "safetensors": (".safetensors", reading("arrays")),
    "csv": (".csv", reading("images")),
    "archive": (".zip", reading("images")),
    "scores": (".csv", read_scores),
    "parquet": (".parquet", read_scores),
    "yaml": (".yaml", read_configuration),
}


CANARY = "__import__('os').system('true')"
VALUES = (CANARY, f"Symbol('s0') + {CANARY}", "a.__class__", "torch.ops.aten.from_file.default", "x\n" + CANARY)
VALUES += (
    "",
    "../../x",
    None,
    True,
    [],
    {},
    0,
    -1,
    2**40,
    2**63,
    2**64,
    1e308,
    "s0",
    "sin",
    "Mod(Symbol('s0'), 0)",
    "9**9**9",
)
VALUES += ("Pow(Integer(9), Integer(9999999))", "Mul(Integer(2), Symbol('s0'))", {"as_expr": {"expr_str": CANARY}})


def places(value: object) -> list[tuple[object, object]]:
    """Return (container, key) of every value inside."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in list(keys) for place in [(value, key), *places(value[key])]]


def mutated_json(data: bytes, max_size: int, seed: int) -> bytes:
    """Put another value, or one from elsewhere, into a JSON text; now and then mutate its bytes."""
    draw = random.Random(seed)
    try:
        content = places(value := json.loads(data))
    except (ValueError, RecursionError):
        content = []
    if not content or draw.random() < 0.1:
        return atheris.Mutate(data, max_size)
    for _ in range(draw.choice((1, 1, 2, 4))):
        (container, key), (other, name) = draw.choice(content), draw.choice(content)
        container[key] = draw.choice(VALUES) if draw.random() < 0.5 else json.loads(json.dumps(other[name]))
    return json.dumps(value).encode()[:max_size]


def validation(folder: Path) -> None:
    """End the process, which libFuzzer takes for a finding, when an input starts a program, connects, or writes."""
    refused = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.symlink")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        wrote = event == "open" and all(isinstance(text, str) for text in arguments[:2])
        wrote = wrote and bool(set("wax+") & set(arguments[1])) and not arguments[0].startswith((str(folder), "/dev"))
        if event in refused or wrote:
            print(f"an input led to {event} {arguments}", file=sys.stderr, flush=True)
            os.abort()

    sys.addaudithook(hook)


def main() -> None:
    kind = sys.argv.pop(1)
    suffix, read = TARGETS[kind]
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    corpus = folder / "corpus"
    corpus.mkdir()
    for name, data in seeds.seeds(kind).items():
        (corpus / name).write_bytes(data)
    if suffix == ".csv" and kind == "csv":
        (folder / "1.png").write_bytes(seeds.PIXEL)
        (folder / "2.png").write_bytes(seeds.PIXEL)
    path = folder / f"input{suffix}"
    wrap = WRAPS[kind]() if kind in WRAPS else as_it_is

    def once(data: bytes) -> None:
        path.write_bytes(wrap(data))
        try:
            read(str(path))
        except MIAError as error:
            if not str(error).isprintable():
                raise AssertionError(f"no sentence: {error}") from error

    options = {"custom_mutator": mutated_json} if kind == "graph" else {}
    atheris.Setup([sys.argv[0], *sys.argv[1:], str(corpus)], once, **options)
    validation(folder)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
