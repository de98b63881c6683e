"""The kind of a file or folder, recognized by its first bytes and never by executing anything.

For messages about a file that is not what its name promises: ``file_kind(path)`` returns what it is and what to do
about it. Nothing is imported or unpickled; a few kilobytes and a zip's own list are read.
"""

import os
import re
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from mia_lightning.errors import MIAError
from mia_lightning.security.archives import check_list
from mia_lightning.security.file_folders import folder_kind
from mia_lightning.security.kinds import KINDS, FileKind
from mia_lightning.security.open import open_regular

HEAD = 8192
"""Bytes read from the start of a file."""

TORCH_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""The magic number of torch.save's form before 1.6."""

SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", "git-lfs pointer"),
    (0, b"version https://hawser.github.com/spec/", "git-lfs pointer"),
    (0, b"/annex/objects/", "git-annex pointer"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"PAR1", "Parquet"),
    (0, b"ARROW1\0\0", "Arrow"),
    (0, b"FEA1", "Arrow"),
    (4, b"TFL3", "TensorFlow Lite"),
    (0, b"GGUF", "GGUF"),
    (0, b"GGML", "GGUF"),
    (0, b"lmgg", "GGUF"),
    (0, b"SQLite format 3\0", "SQLite"),
    (0, b"MATLAB 5.0 MAT-file", "MATLAB"),
    (0, b"\x89PNG\r\n\x1a\n", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF8", "image"),
    (0, b"II*\0", "image"),
    (0, b"MM\0*", "image"),
    (8, b"WEBP", "image"),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PDF"),
    (0, b"\x7fELF", "program"),
    (0, b"MZ", "program"),
    (0, b"\xfe\xed\xfa", "program"),
    (0, b"\xcf\xfa\xed\xfe", "program"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"BZh", "bzip2"),
    (257, b"ustar", "tar"),
    (0, b"RDX2\n", "R data"),
    (0, b"RDX3\n", "R data"),
    (0, b"DICM", "DICOM"),
    (128, b"DICM", "DICOM"),
    (0, b"\0\0\x08\x01", "idx"),
    (0, b"\0\0\x08\x03", "idx"),
    (0, b"\0\0\x08\x04", "idx"),
    (0, b"joblib", "joblib"),
    (0, b"CBM1", "boosting model"),
    (0, b"{L", "boosting model"),
)
"""Offset, bytes, kind."""

SUFFIXES = {
    **dict.fromkeys((".tfrecord", ".tfrecords"), "TFRecord"),
    **dict.fromkeys((".jsonl", ".ndjson"), "JSON lines"),
    **dict.fromkeys((".svm", ".libsvm", ".svmlight"), "LIBSVM"),
    **{".beton": "FFCV", ".arff": "ARFF"},
}
"""Kinds without a mark of their own, by the end of a file's name."""

_PICKLE_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"joblib", "joblib"),
    (b"sklearn", "scikit-learn model"),
    (b"xgboost", "scikit-learn model"),
    (b"lightgbm", "scikit-learn model"),
    (b"pandas.", "pandas pickle"),
    (b"pandas\n", "pandas pickle"),
    (b"pytorch_lightning", "torch pickle"),
    (b"torch", "torch pickle"),
)


def file_kind(path: str | Path) -> FileKind | None:
    """Return the kind of a file or folder, or None where it is missing, unreadable or not recognized."""
    try:
        if os.path.isdir(path):
            return folder_kind(Path(path))
        with open_regular(path) as file:
            start = file.read(HEAD)
    except (OSError, MIAError):
        return None
    name = _kind_of(start, Path(path))
    return None if name is None else KINDS[name]


def kind_sentence(path: str | Path) -> str:
    """Return ``is a Git LFS pointer, ...; run git lfs pull`` for the middle of a message; empty when not recognized."""
    recognized = file_kind(path)
    return "" if recognized is None else f"is {recognized.description}; {recognized.fix}"


def bytes_kind(start: bytes, name: str = "") -> FileKind | None:
    """Return the kind of a file by its first bytes and name alone; a zip is not looked into."""
    name_of_kind = _by_bytes(start, name)
    return None if name_of_kind is None else KINDS[name_of_kind]


def _kind_of(start: bytes, path: Path) -> str | None:
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path, start)
    return _by_bytes(start, path.name)


def _by_bytes(start: bytes, name: str) -> str | None:
    if not start:
        return "empty"
    for offset, magic, format_ in SIGNATURES:
        if start[offset : offset + len(magic)] == magic:
            return format_
    for recognize in (_safetensors, _pickle, _compressed_pickle, _onnx, _text):
        if recognized := recognize(start, name):
            return recognized
    return SUFFIXES.get(os.path.splitext(name)[1].lower())


def _safetensors(start: bytes, name: str) -> str | None:
    if len(start) < 10 or start[8:9] != b"{":
        return None
    (length,) = struct.unpack("<Q", start[:8])
    return "safetensors" if 2 <= length <= 100_000_000 else None


def _pickle(start: bytes, name: str) -> str | None:
    is_pickle = start[0] == 0x80 and len(start) > 1 and start[1] <= 5
    if not is_pickle:
        is_pickle = re.match(rb"\(?[cdl(]\w*[\w.]*\n|\(dp\d|\(lp\d", start) is not None  # protocol 0
    if not is_pickle:
        return None
    if TORCH_MAGIC in start[:32]:
        return "torch, old form"
    return next((format_ for mark, format_ in _PICKLE_MARKS if mark in start), "pickle")


def _compressed_pickle(start: bytes, name: str) -> str | None:
    """Recognize joblib.dump(..., compress=True): a zlib stream, whose first bytes alone are too common."""
    is_zlib = start[0] == 0x78 and len(start) > 2 and int.from_bytes(start[:2], "big") % 31 == 0
    if not is_zlib:
        return None
    import zlib

    try:
        inner = zlib.decompressobj().decompress(start, HEAD)
    except zlib.error:
        return None
    return "joblib" if inner[:1] == b"\x80" else "zlib"


def _onnx(start: bytes, name: str) -> str | None:
    """Recognize ONNX: a protocol buffer whose first field is the IR version, then the producer's name."""
    is_protobuf = (
        start[0] == 0x08 and len(start) > 2 and 1 <= start[1] <= 20 and start[2] in (0x12, 0x1A, 0x22, 0x2A, 0x3A, 0x42)
    )
    return (
        "ONNX"
        if is_protobuf and (name.lower().endswith(".onnx") or b"onnx" in start.lower() or b"pytorch" in start)
        else None
    )


def _text(start: bytes, name: str) -> str | None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text[:1024]:
        return "HTML"
    if text.startswith(b"<?xml") or (text.startswith(b"<") and b"<error>" in text[:200]):
        return "XML"
    if text.startswith(
        (b"404: not found", b"404 not found", b"entry not found", b"access denied", b"not found", b"invalid username")
    ):
        return "error page"
    if b"/annex/objects/" in text[:200]:
        return "git-annex pointer"
    if text.startswith((b"outs:", b"md5:")) and b"md5:" in text[:400]:
        return "DVC pointer"
    if text.startswith((b'{"learner"', b'{"name":"tree"')):
        return "boosting model"
    if text.startswith((b"{", b"[")) and name.lower().endswith((".json", ".pt", ".pth", ".ckpt", ".bin")):
        return "JSON"
    if text.startswith((b"import ", b"from ", b"#!/usr/bin/env python", b"#!/usr/bin/python", b"def ", b"class ")):
        return "Python source"
    return None


def _zip_kind(path: Path, start: bytes) -> str:
    try:
        check_list(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except MIAError:
        return "zip"
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        first = start[30 : 30 + int.from_bytes(start[26:28], "little")].decode("utf-8", "replace")
        return (
            "torch, cut short" if first.endswith("/data.pkl") else "npz" if first.endswith(".npy") else "zip, damaged"
        )
    return _zip_kind_by_names(names)


def _zip_kind_by_names(names: Iterable[str]) -> str:
    tails = {name.partition("/")[2] or name for name in names} | set(names)
    has_pickle = "data.pkl" in tails
    if has_pickle and ("constants.pkl" in tails or any(name.startswith("code/") for name in tails)):
        return "TorchScript"
    if (
        any(name.startswith("models/") and name.endswith(".json") for name in tails)
        or "serialized_exported_program.json" in tails
    ):
        return "torch.export"
    if has_pickle:
        return "torch"
    if "model.weights.h5" in tails and "config.json" in tails:
        return "Keras"
    if any(name.endswith(".npy") for name in tails):
        return "npz"
    if "word/document.xml" in tails or "xl/workbook.xml" in tails or "[Content_Types].xml" in tails:
        return "Office document"
    if "META-INF/MANIFEST.MF" in tails:
        return "program"
    if any(name.endswith((".dist-info/METADATA", ".dist-info/RECORD")) for name in names):
        return "Python package"
    if "MAR-INF/MANIFEST.json" in names:
        return "TorchServe"
    return "zip"
