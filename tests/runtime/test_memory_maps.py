"""Files that are larger than memory: arrays that stay where they are, and peak memory that does not know N."""

import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers import ROOT
from helpers.extraction import MEAN, STD, extract, make_records
from safetensors.numpy import load_file, save_file

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import arrays, read_records
from mia_lightning.references.training_data import ImageParts, TrainingData
from mia_lightning.runtime.memory_maps import map_safetensors, new_safetensors


@pytest.fixture
def all_mapped(monkeypatch):
    monkeypatch.setattr(arrays, "MAPPED", 1)


def write(path, **changes):
    public = make_records()
    stored = {"images": public.images, "ids": public.ids, "labels": public.labels, "membership": public.membership}
    stored |= changes
    save_file(stored, path) if path.suffix == ".safetensors" else np.savez(path, **stored)


def is_in_file(array):
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = array.base if isinstance(array, np.ndarray) else None
    return False


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_mapped_arrays_give_the_same_outputs(tmp_path, all_mapped, name, dtype, order):
    public = make_records(dtype=dtype)
    images = public.images if order == "NCHW" else np.ascontiguousarray(public.images.transpose(0, 2, 3, 1))
    write(tmp_path / name, images=images)
    records_read = read_records(str(tmp_path / name))
    assert is_in_file(records_read.images)
    assert records_read.images.dtype == dtype
    for field in ("images", "ids", "labels", "membership"):
        np.testing.assert_array_equal(getattr(records_read, field), getattr(public, field))
    np.testing.assert_array_equal(
        extract(tmp_path / "a", records_read)[0].logits, extract(tmp_path / "b", make_records(dtype=dtype))[0].logits
    )
    keys = [{path.name for path in (tmp_path / store).glob("*/*")} for store in "ab"]
    assert keys[0] == keys[1]


def test_small_arrays_are_read_into_memory(tmp_path):
    write(tmp_path / "x.npz")
    assert not is_in_file(read_records(str(tmp_path / "x.npz")).images)


def test_compressed_arrays_are_read_into_memory(tmp_path, all_mapped):
    public = make_records()
    np.savez_compressed(tmp_path / "x.npz", images=public.images)
    records_read = read_records(str(tmp_path / "x.npz"))
    assert not is_in_file(records_read.images)
    np.testing.assert_array_equal(records_read.images, public.images)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damaged_mapped_entry_is_refused(tmp_path, all_mapped, damage):
    path = tmp_path / "x.npz"
    write(path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo("images.npy").header_offset + 2000
    if damage == "flip":
        data[middle] ^= 1
    else:
        del data[-400:-200]  # within the list of entries
    path.write_bytes(data)
    with pytest.raises(MIAError, match="damaged"):
        read_records(str(path))


def test_mapped_file_is_read_by_safetensors(tmp_path):
    rng = np.random.default_rng(0)
    expected = {
        "labels": rng.integers(0, 9, 7),
        "logits": rng.standard_normal((7, 2, 3)).astype(np.float32),
        "none": np.empty((7, 0), np.float32),
        "bytes": rng.integers(0, 256, (7, 3), dtype=np.uint8),
    }
    path = tmp_path / "x.safetensors"
    with new_safetensors(path, {name: (array.dtype, array.shape) for name, array in expected.items()}) as filled:
        for name, array in expected.items():
            filled[name][:] = array
    for loaded in (load_file(path), map_safetensors(path)):
        assert loaded.keys() == expected.keys()
        for name, array in expected.items():
            assert loaded[name].dtype == array.dtype
            np.testing.assert_array_equal(loaded[name], array)


def test_outputs_are_read_only_maps(tmp_path):
    outputs, _ = extract(tmp_path, mean=MEAN, std=STD)
    assert is_in_file(outputs.logits)
    assert is_in_file(extract(tmp_path)[0].logits)
    with pytest.raises(ValueError, match="read-only"):
        outputs.logits[0] = 0


@pytest.mark.extended
def test_memory_independent_of_record_count(tmp_path):
    """Sixteen times the records are 177 MiB more of images and 8 MiB more of outputs; neither is in memory."""
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--records", "4000", "64000", "--plain"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    few, many = (float(line) for line in done.stdout.split())
    assert many < few + 60, f"{few} MiB grew to {many} MiB"


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_workers_map_the_file_again(tmp_path, all_mapped, name, order):
    public = make_records()
    images = public.images if order == "NCHW" else np.ascontiguousarray(public.images.transpose(0, 2, 3, 1))
    write(tmp_path / name, images=images)
    stored = read_records(str(tmp_path / name)).images
    count = len(stored)
    parts = (stored[3:], public.images[:2])
    data = TrainingData(ImageParts(parts), np.zeros(count - 1, np.int64), (0.5,) * 3, (0.5,) * 3, 4, 1)
    pickled = pickle.dumps(data.by_file())
    assert len(pickled) < public.images[:2].nbytes + 5000
    opened = pickle.loads(pickled).images  # noqa: S301
    assert is_in_file(opened.parts[0])
    np.testing.assert_array_equal(opened[:], np.concatenate(parts))
    with (tmp_path / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(MIAError, match=f"{name}: was changed during the run"):
        pickle.loads(pickled)  # noqa: S301
    in_memory = replace(data, images=public.images)
    assert in_memory.by_file() is in_memory
