"""Small valid files of every kind: what mutations start from, here and in the tests."""

import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import torch
from helpers.datasets import png, write_pickled, write_store
from PIL import Image
from pyarrow import parquet
from safetensors.numpy import save

IMAGES = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
PIXEL = png(IMAGES[0])
COLUMNS = {"images": IMAGES, "ids": np.array([1, 2]), "labels": np.array([0, 1]), "membership": np.array([1, 0])}
TABLE = b"id,label,membership\n1,0,1\n2,1,0\n"
SCORES = {"id": [1, 2, 3, 4], "membership": [1, 0, 1, 0], "label": [0, 1, 0, 1], "score": [0.5, 0.25, 0.75, 1.5]}


def saved(held: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(held, stream, **options)
    return stream.getvalue()


def data_set(**options: object) -> bytes:
    with TemporaryDirectory() as folder:
        pixels = torch.from_numpy(IMAGES).float() / 255
        return write_pickled(Path(folder) / "a.pt", [1, 2], list(pixels), [0, 1], [1, 0], **options).read_bytes()


def store(name: str) -> bytes:
    with TemporaryDirectory() as folder:
        return write_store(Path(folder) / name, {"t.csv": TABLE, "1.png": PIXEL, "2.png": PIXEL}).read_bytes()


def pictures() -> bytes:
    """Return a zip with an image of each format."""
    stream = io.BytesIO()
    kinds = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
    with zipfile.ZipFile(stream, "w") as archive:  # stored, so that mutations reach the decoders
        archive.writestr("t.csv", "id\n" + "".join(f"{i}\n" for i in range(len(kinds))))
        for i, kind in enumerate(kinds):
            data = io.BytesIO()
            Image.fromarray(IMAGES[0].transpose(1, 2, 0)).save(data, kind)
            archive.writestr(f"{i}.png", data.getvalue())
    return stream.getvalue()


def npz(write: object) -> bytes:
    stream = io.BytesIO()
    write(stream, **COLUMNS)
    return stream.getvalue()


def column_store(**options: object) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table(SCORES | {"split": ["public"] * 4}), stream, **options)
    return stream.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    """Return what a zip holds, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_member(data: bytes, ending: str, content: bytes) -> bytes:
    """Return a zip with one member's content replaced, under a checksum that fits it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # stored, as torch's own are
        for name, before in members(data).items():
            archive.writestr(name, content if name.endswith(ending) else before)
    return stream.getvalue()


def member(data: bytes, ending: str) -> bytes:
    return next(content for name, content in members(data).items() if name.endswith(ending))


def program(*layers: torch.nn.Module) -> bytes:
    """Return an exported program from images (any, 3, 4, 4) to logits."""
    stream = io.BytesIO()
    network = torch.nn.Sequential(*layers).eval()
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=sizes), stream)
    return stream.getvalue()


def linear_program() -> bytes:
    return program(torch.nn.Flatten(), torch.nn.Linear(48, 2))


def convolutional_program() -> bytes:
    layers = (torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    return program(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2))


def seeds(kind: str) -> dict[str, bytes]:
    """Return valid files of a kind of `fuzz.TARGETS`, by name."""
    weights = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    lightning = {
        "state_dict": weights,
        "pytorch-lightning_version": "2.6",
        "epoch": 1,
        "hyper_parameters": {"a": [1.5]},
    }
    old = {"_use_new_zipfile_serialization": False}
    rows = "".join(",".join(map(str, row)) + "\n" for row in zip(*SCORES.values(), strict=True))
    made = {
        "pickled": lambda: {
            "zip": data_set(),
            "old": data_set(**old),
            "dict": saved({"ids": ["a", "b"], "data": IMAGES, "targets": np.array([0, 1])}),
            "pil": saved({"ids": [1, 2], "imgs": [Image.fromarray(i.transpose(1, 2, 0)) for i in IMAGES]}, **old),
        },
        "checkpoint": lambda: {
            "zip": saved(weights),
            "old": saved(lightning, **old),
            "lightning": saved(lightning),
            "safetensors": save({"fc.weight": np.ones((2, 3), np.float32)}),
        },
        "pickle": lambda: {
            "weights": member(saved(weights), "data.pkl"),
            "lightning": member(saved(lightning), "data.pkl"),
            "records": member(data_set(), "data.pkl"),
        },
        "program": lambda: {"linear": linear_program(), "convolutional": convolutional_program()},
        "graph": lambda: {
            "linear": member(linear_program(), "model.json"),
            "convolutional": member(convolutional_program(), "model.json"),
        },
        "npz": lambda: {"stored": npz(np.savez), "packed": npz(np.savez_compressed)},
        "safetensors": lambda: {"whole": save(COLUMNS)},
        "csv": lambda: {"plain": TABLE, "file": b'ID,file\n"1",1.png\r\n2,2.png\n'},
        "archive": lambda: {"zip": store("a.zip"), "tar": store("a.tar"), "gz": store("a.tar.gz"), "all": pictures()},
        "scores": lambda: {
            "plain": (",".join(SCORES) + "\n" + rows).encode(),
            "words": b"ID,member,s\na,in,1\nb,out,0\n",
        },
        "parquet": lambda: {"plain": column_store(), "zstd": column_store(compression="zstd", version="1.0")},
        "yaml": lambda: {
            "some": b"seed: 1\nattacks: {a: {class_path: Threshold, init_args: {column: loss}}}\ndata: {mean: null}\n",
            "json": json.dumps({"data": {"public": "a", "mean": [0.5], "std": [1.0]}, "output": "b"}).encode(),
            "alias": b"data: &a {public: x}\nsubmission: {columns: [ids, score]}\nextraction: {queries: 2}\n",
        },
    }
    return made[kind]()
