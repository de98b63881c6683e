"""Files and folders that are no checkpoints: the sentence names what each is and what to do."""

import io
import os
import zipfile

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import load_target


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


def dumped(value):
    stream = io.BytesIO()
    joblib.dump(value, stream)
    return stream.getvalue()


def saved(value):
    stream = io.BytesIO()
    np.savez(stream, images=value)
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 44875386\n"
FILES = {
    "Git LFS pointer": (LFS, "git lfs pull"),
    "git-annex pointer": (b"/annex/objects/SHA256E-s12--a.pt\n", "git annex get"),
    "HTML page": (b"<!DOCTYPE html><html><body>Virus scan warning</body></html>", "download it again"),
    "error message": (b"404: Not Found", "download it again"),
    "empty": (b"", "copy or download it again"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), r"model\.state_dict\(\) or torch\.export"),
    "Keras model": (zipped("metadata.json", "config.json", "model.weights.h5"), "in its own framework"),
    "ONNX model": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "onnx2torch"),
    "joblib pickle": (dumped({"w": np.zeros(3)}), "in its own framework"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(30), "decompress it"),
    "npz": (saved(np.zeros((1, 3))), "--data.public"),
    "zip archive": (zipped("a.txt"), "unpack it"),
    "Python source": (b"import torch\n", "--target.architecture"),
}


@pytest.mark.parametrize("name", FILES)
def test_file(name, tmp_path):
    content, fix = FILES[name]
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(MIAError, match=rf"^model\.pt: is .*{name}.*; .*{fix}"):
        load_target(str(tmp_path / "model.pt"))


FOLDERS = {
    "TensorFlow SavedModel": (["saved_model.pb"], "in its own framework"),
    "distributed torch checkpoint": ([".metadata", "__0_0.distcp"], "dcp_to_torch"),
    "Lightning run": (["hparams.yaml", "checkpoints"], "ckpt"),
    "folder with checkpoints": (["a.ckpt"], "one of the files"),
    "a folder": ([], "a file inside"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder(name, tmp_path):
    names, fix = FOLDERS[name]
    (tmp_path / "model").mkdir()
    for entry in names:
        (tmp_path / "model" / entry).touch()
    with pytest.raises(MIAError, match=rf"^model: is .*{name}.*; .*{fix}"):
        load_target(str(tmp_path / "model"))


def test_pretrained_folder_without_safetensors(tmp_path):
    for entry in ("config.json", "pytorch_model.bin"):
        (tmp_path / entry).touch()
    with pytest.raises(MIAError, match=r"no model\.safetensors; .*save_pretrained"):
        load_target(str(tmp_path))


def test_torchscript(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "model.pt")
    with pytest.raises(MIAError, match="TorchScript"):
        load_target(str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere.pt", "no such file"), ("pipe", "named pipe"), ("a\0b", "NUL"), ("a" * 5000, "cannot be read")],
)
def test_no_file(name, words, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MIAError, match=words):
        load_target(str(tmp_path / name))
