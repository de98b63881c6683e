"""The .npz and .safetensors reader."""

import io
import os
import random
import zipfile

import numpy as np
import pytest
from helpers.datasets import make_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records


def _write(path, arrays):
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_exact_values_and_defaults(tmp_path, suffix):
    images = make_images(4) * 3 - 1  # far outside [0, 1]
    columns = {"ids": np.array([9, 2, 5, 7]), "labels": np.array([1, 0, 3, -1], np.int16)}
    records = read_records(
        _write(tmp_path / f"a{suffix}", {"images": images, **columns, "membership": np.eye(4)[0] > 0})
    )
    np.testing.assert_array_equal(records.images.view(np.uint32), images.view(np.uint32))
    assert records.ids.tolist() == [9, 2, 5, 7]
    assert records.labels.tolist() == [1, 0, 3, -1]
    assert records.membership.tolist() == [1, 0, 0, 0]
    bare = read_records(_write(tmp_path / f"b{suffix}", {"images": images}))
    assert bare.ids.tolist() == [0, 1, 2, 3]
    assert set(bare.labels) == set(bare.membership) == {-1}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("stored", "becomes"),
    [((4, 3, 6, 5), None), ((4, 6, 5, 3), (0, 3, 1, 2)), ((4, 6, 5, 1), (0, 3, 1, 2)), ((4, 3, 5, 3), None)],
)
def test_channels_last(tmp_path, suffix, stored, becomes):
    images = np.random.default_rng(0).random(stored)
    records = read_records(_write(tmp_path / f"a{suffix}", {"images": images}))
    assert records.images.dtype == np.float32
    np.testing.assert_array_equal(records.images, images.transpose(becomes or (0, 1, 2, 3)).astype(np.float32))


def test_gray_without_channel_axis(tmp_path):
    images = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
    records = read_records(_write(tmp_path / "a.npz", {"images": images, "ids": np.array(["x1", "x2"])}))
    np.testing.assert_array_equal(records.images, images[:, None])
    assert records.ids.tolist() == ["x1", "x2"]


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("column", ["images", "labels"])
def test_object_arrays_are_not_unpickled(tmp_path, column):
    canary = tmp_path / "canary"
    arrays = {"images": make_images(1), column: np.array([Runs(f"touch {canary}")], dtype=object)}
    with pytest.raises(MIAError, match=r"^a\.npz: refused, .*pickled"):
        read_records(_write(tmp_path / "a.npz", arrays))
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": np.full((2, 3, 4, 4), 300, np.int32)}, "images are int32; expected uint8 or float32"),
        ({"images": np.zeros((2, 3, 4, 4), bool)}, "images are bool"),
        ({"images": np.zeros((2, 5, 4, 4), np.uint8)}, "expected 1 or 3 channels"),
        ({"images": np.zeros(8, np.uint8)}, r"images have shape \(8,\)"),
        ({"images": np.repeat([0, 1e300], 48).reshape(2, 3, 4, 4)}, "record 2 has NaN or infinite"),
        ({"ids": np.array([3, 3])}, "occur more than once, first 3"),
        ({"ids": np.array([1.5, 2])}, "ids are of type float"),
        ({"ids": np.array([1, 2, 3])}, "3 ids but 2"),
        ({"labels": np.array([0.5, 1])}, "label holds '0.5'"),
        ({"labels": np.zeros((2, 10, 3))}, r"labels have shape \(2, 10, 3\)"),
        ({"labels": np.full((2, 10), 0.5)}, "not one-hot"),
        ({"membership": np.array([256, 0])}, "membership holds 256"),
    ],
)
def test_arrays_that_cannot_be_records(tmp_path, suffix, change, says):
    good = {"images": make_images(2, (3, 4, 4)), "ids": np.array([1, 2])}
    with pytest.raises(MIAError, match=rf"^a\{suffix}: .*{says}"):
        read_records(_write(tmp_path / f"a{suffix}", good | change))


def test_missing_images_and_checkpoints(tmp_path):
    with pytest.raises(MIAError, match=r"has no images, it has photos, z; expected arrays named images"):
        read_records(_write(tmp_path / "a.npz", {"photos": make_images(1), "z": np.zeros(1)}))
    with pytest.raises(MIAError, match="looks like a model checkpoint"):
        read_records(_write(tmp_path / "a.safetensors", {"layer1.weight": np.zeros((2, 2), np.float32)}))


def test_decompression_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 3, 224, 224)}
        )
        archive.writestr("images.npy", stream.getvalue() + bytes(5_000_000))
    with pytest.raises(MIAError, match=r"^a\.npz: "):
        read_records(str(tmp_path / "a.npz"))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24  # the size that the archive's own list claims
    data[place : place + 4] = b"\xfe\xff\xff\xff"
    (tmp_path / "b.npz").write_bytes(data)
    with pytest.raises(MIAError, match=r"^b\.npz: "):
        read_records(str(tmp_path / "b.npz"))


def _bytes(suffix):
    arrays = {"images": make_images(2, (3, 4, 4)), "ids": np.array([4, 5]), "membership": np.array([0, 1])}
    if suffix == ".safetensors":
        return save(arrays)
    stream = io.BytesIO()
    (np.savez_compressed if suffix == ".z.npz" else np.savez)(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".npz", ".z.npz", ".safetensors"])
def test_truncated_anywhere(tmp_path, suffix):
    whole, path = _bytes(suffix), tmp_path / f"a{suffix}"
    for cut in [9, 60, 100, *range(150, len(whole) - 1, len(whole) // 20), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(MIAError, match=rf"^a{suffix}: .*(cut short|damaged|corrupted)"):
            read_records(str(path))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from([".npz", ".z.npz", ".safetensors"]), seed=st.integers(0, 2**32), flips=st.integers(1, 6))
def test_flipped_bits(tmp_path, suffix, seed, flips):
    data, chance = bytearray(_bytes(suffix)), random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(min(len(data), 400)) if chance.random() < 0.5 else chance.randrange(len(data))] ^= (
            1 << chance.randrange(8)
        )
    (tmp_path / f"a{suffix}").write_bytes(data)
    try:
        assert len(read_records(str(tmp_path / f"a{suffix}"), reader="arrays")) >= 1
    except MIAError as error:
        assert "\n" not in str(error)  # noqa: PT017 (both outcomes are right)
