"""Coverage-guided fuzzing of everything that reads a file we were handed; see README.md beside it.

    python tests/fuzz/fuzz.py KIND [CORPUS] [options of libFuzzer]

KIND is one of `TARGETS`. An input may load or raise MIAError in one printable sentence; all else is a finding.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

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

    from mia_lightning.config import read_yaml
    from mia_lightning.errors import MIAError
    from mia_lightning.parsing import parse_mapping
    from mia_lightning.readers import read_records
    from mia_lightning.scores_file import read_scores
    from mia_lightning.targets.weights import check_finite, read_weights


def read_checkpoint(path: str) -> None:
    tensors, _ = read_weights(Path(path))
    check_finite(tensors, "it")


def read_configuration(path: str) -> None:
    parse_mapping(read_yaml(path))


def reading(reader: str) -> Callable[[str], object]:
    return lambda path: read_records(path, reader=reader)


TARGETS: dict[str, tuple[str, Callable[[str], object]]] = {
    "pickled": (".pt", reading("pickled")),
    "checkpoint": (".ckpt", read_checkpoint),
    "npz": (".npz", reading("arrays")),
    "safetensors": (".safetensors", reading("arrays")),
    "csv": (".csv", reading("images")),
    "archive": (".zip", reading("images")),
    "scores": (".csv", read_scores),
    "parquet": (".parquet", read_scores),
    "yaml": (".yaml", read_configuration),
}


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

    def once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(str(path))
        except MIAError as error:
            if not str(error).isprintable():
                raise AssertionError(f"no sentence: {error}") from error

    atheris.Setup([sys.argv[0], *sys.argv[1:], str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
