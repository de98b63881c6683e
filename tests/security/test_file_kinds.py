"""Kinds of files: each written by its own library, or by the bytes that its format prescribes."""

import io
import json
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

from mia_lightning.security.file_kinds import file_kind, kind_sentence
from mia_lightning.security.kinds import KINDS

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 44875386\n"


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


def tar():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return stream.getvalue()


def dumped(value, **options):
    stream = io.BytesIO()
    joblib.dump(value, stream, **options)
    return stream.getvalue()


BYTES = {
    "empty": b"",
    "git-lfs pointer": LFS,
    "git-annex pointer": b"../.git/annex/objects/zz/Pk/SHA256E-s123--abc.pt/SHA256E-s123--abc.pt",
    "DVC pointer": b"outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  size: 12\n  path: model.pt\n",
    "HTML": b"\n  <!DOCTYPE html><html><body>Google Drive - Virus scan warning</body></html>",
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "error page": b"404: Not Found",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "ONNX": b"\x08\x08\x12\x07pytorch\x1a\x052.1.0",
    "TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(20),
    "GGUF": b"GGUF\x03\0\0\0",
    "SQLite": b"SQLite format 3\0",
    "MATLAB": b"MATLAB 5.0 MAT-file, Platform: GLNXA64",
    "Parquet": b"PAR1\x15\x04",
    "image": b"\x89PNG\r\n\x1a\n",
    "Keras": zipped("metadata.json", "config.json", "model.weights.h5"),
    "Office document": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "torch.export": zipped("net/models/model.json", "net/data/weights/weight_0", "net/version"),
    "TorchScript": zipped("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py"),
    "zip": zipped("a.txt"),
    "tar": tar(),
    "zlib": zlib.compress(b"plain text"),
    "pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("kind", BYTES)
def test_kind_by_bytes(tmp_path, kind):
    path = tmp_path / "model.bin"
    path.write_bytes(BYTES[kind])
    assert file_kind(path).name == kind


def test_kind_written_by_library(tmp_path):
    from safetensors.numpy import save_file
    from sklearn.linear_model import LogisticRegression

    weights = {"fc.weight": torch.zeros(2, 2)}
    torch.save(weights, tmp_path / "torch")
    torch.save(weights, tmp_path / "torch, old form", _use_new_zipfile_serialization=False)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "TorchScript")
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "torch.export.pt2")
    save_file({"a": np.zeros(2)}, tmp_path / "safetensors")
    np.savez(tmp_path / "npz.npz", a=np.zeros(2))
    np.save(tmp_path / "npy.npy", np.zeros(2))
    (tmp_path / "joblib").write_bytes(dumped({"a": np.zeros(3)}, compress=3))
    (tmp_path / "scikit-learn model").write_bytes(pickle.dumps(LogisticRegression()))
    for path in tmp_path.iterdir():
        assert file_kind(path).name == path.name.removesuffix(".npz").removesuffix(".npy").removesuffix(".pt2")


FOLDERS = {
    "save_pretrained": ("config.json", "model.safetensors"),
    "SavedModel": ("saved_model.pb", "variables"),
    "Hugging Face data set": ("dataset_info.json", "state.json", "data-00000-of-00001.arrow"),
    "sharded checkpoint": (".metadata", "__0_0.distcp"),
    "TensorFlow checkpoint": ("checkpoint", "model.index", "model.data-00000-of-00001"),
    "Lightning run": ("hparams.yaml", "checkpoints"),
    "unzipped torch file": ("data.pkl", "version", "byteorder"),
    "checkpoint folder": ("epoch=1.ckpt",),
    "folder": ("a.txt",),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_kind_of_folder(tmp_path, kind):
    for name in FOLDERS[kind]:
        (tmp_path / name).write_bytes(b"x")
    assert file_kind(tmp_path).name == kind


def test_kind_of_nothing(tmp_path):
    (tmp_path / "x").write_bytes(b"\x07\x08 nothing known" * 9)
    assert file_kind(tmp_path / "x") is None
    assert file_kind(tmp_path / "missing") is None
    assert kind_sentence("/dev/zero") == ""


def test_kind_sentence(tmp_path):
    (tmp_path / "x").write_bytes(LFS)
    assert kind_sentence(tmp_path / "x") == "is a Git LFS pointer, not the file itself; run: git lfs pull"


def test_every_kind_is_a_sentence():
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.fix[0].islower(), name
        assert json.dumps(kind.description)
        assert Path(name).name == name


@pytest.mark.parametrize(
    "content", [b'{"learner":{}}', b'{"name":"tree","version":"v4"}', b"CBM1" + bytes(99), b"{L" + bytes(99)]
)
def test_models_of_boosting_libraries(content, tmp_path):
    (tmp_path / "model").write_bytes(content)
    assert "return it fitted from a function" in kind_sentence(tmp_path / "model")
