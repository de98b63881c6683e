"""Helpers that write the files which readers read. Plain functions; none uses the package under test."""

import contextlib
import csv
import io
import sys
import tarfile
import types
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset


def make_images(count: int, shape: tuple[int, ...] = (3, 32, 32), seed: int = 0) -> NDArray[np.float32]:
    """Return (count, *shape) float32 images whose values are multiples of 1/255, as in the assignment."""
    values = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    return (values / 255).astype(np.float32)


@contextlib.contextmanager
def importable_class(module: str, name: str, base: type = Dataset) -> Iterator[type]:
    """Make a class that pickle finds as module.name while the context lasts."""
    kind = type(name, (base,), {"__module__": module, "__qualname__": name})
    parts = module.split(".")
    paths = [".".join(parts[: end + 1]) for end in range(len(parts))]
    made = [path for path in paths if path not in sys.modules]
    for path in made:
        sys.modules[path] = types.ModuleType(path)
    before = getattr(sys.modules[module], name, None)
    setattr(sys.modules[module], name, kind)
    try:
        yield kind
    finally:
        delattr(sys.modules[module], name) if before is None else setattr(sys.modules[module], name, before)
        for path in made:
            del sys.modules[path]


def write_pickled(
    path: str | Path,
    ids: Sequence[Any],
    imgs: Any,
    labels: Any,
    membership: Any,
    *,
    module: str = "__main__",
    name: str = "MembershipDataset",
    **save_options: Any,
) -> Path:
    """Write the assignment's form: a pickled data-set object, state order ids, imgs, labels, transform, membership.

    Args:
        path: where to write.
        ids: the ids; written as they are, but for an array, which becomes a list.
        imgs: an (N, ...) numpy array, which becomes a list of tensors with a storage each; else written as it is.
        labels: as ids.
        membership: as ids; a list of None for the private file.
        module: module of the class.
        name: name of the class.
        **save_options: for torch.save.
    """
    if isinstance(imgs, np.ndarray):
        imgs = [torch.from_numpy(image.copy()) for image in imgs]
    columns = [column.tolist() if isinstance(column, np.ndarray) else column for column in (ids, labels, membership)]
    with importable_class(module, name) as kind:
        data: Any = kind()
        data.ids, data.imgs, data.labels, data.transform, data.membership = (
            columns[0],
            imgs,
            columns[1],
            None,
            columns[2],
        )
        torch.save(data, path, **save_options)
    return Path(path)


def csv_text(columns: dict[str, Sequence[Any]]) -> str:
    """Return a CSV of these columns."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (H, W), (1, H, W) or (3, H, W) uint8 pixels as PNG."""
    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


def write_store(path: str | Path, contents: dict[str, bytes]) -> Path:
    """Write files into a zip, a tar (.tar, .tar.gz, .tar.xz) or, without such a suffix, a folder."""
    path = Path(path)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
    elif ".tar" in path.name:
        mode = {".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
        with tarfile.open(path, mode) as archive:
            for name, data in contents.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    else:
        for name, data in contents.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path
