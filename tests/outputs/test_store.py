"""Extraction's store after damage: recomputed with a warning, or one sentence, whatever was done to its files."""

import json
import os
import shutil
from hashlib import sha256

import numpy as np
import pytest
from helpers.extraction import COUNT, extract
from safetensors.numpy import load, load_file, save

from mia_lightning.errors import MIAError
from mia_lightning.outputs import shards


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return store, extract(store)[0]


@pytest.fixture
def store(expected, tmp_path):
    shutil.copytree(expected[0], tmp_path / "store")
    return tmp_path / "store"


def rewrite(change):
    """Change the stored arrays, with a checksum that is right again."""

    def apply(path):
        arrays = load_file(path)
        change(arrays)
        payload = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        path.write_bytes(payload)
        description = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(description | {"sha256": sha256(payload).hexdigest()}))

    return apply


def replace_by(make):
    def apply(path):
        path.unlink()
        make(path)

    return apply


def link(path):
    path.symlink_to("/dev/zero")


OUTPUTS = {
    "fewer rows": rewrite(lambda arrays: arrays.update(logits=arrays["logits"][:-1])),
    "other width": rewrite(lambda arrays: arrays.update(logits=arrays["logits"][..., :-1])),
    "other dtype": rewrite(lambda arrays: arrays.update(logits=arrays["logits"].astype(np.float64))),
    "nan": rewrite(lambda arrays: arrays["logits"].__setitem__((3, 0, 0), np.nan)),
    "label out of range": rewrite(lambda arrays: arrays["labels"].__setitem__(3, 99)),
    "missing array": rewrite(lambda arrays: arrays.pop("features")),
    "unknown array": rewrite(lambda arrays: arrays.update(more=np.zeros(3))),
    "empty": rewrite(dict.clear),
    "flipped bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xfe"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "no bytes": lambda path: path.write_bytes(b""),
    "fifo": replace_by(os.mkfifo),
    "device": replace_by(link),
}
DESCRIPTIONS = {"list": "[]", "number": '{"sha256": 7}', "deep": "[" * 100_000, "binary": "\0" * 100, "empty": ""}


@pytest.mark.parametrize("damage", OUTPUTS.values(), ids=OUTPUTS)
def test_damaged_outputs_are_recomputed(store, expected, caplog, damage):
    (path,) = store.rglob("outputs.safetensors")
    damage(path)
    outputs, _ = extract(store)
    np.testing.assert_array_equal(outputs.logits, expected[1].logits)
    assert "are damaged; recomputing them" in caplog.text
    assert extract(store)[0].logits.shape == outputs.logits.shape  # and stored again


@pytest.mark.parametrize("text", [*DESCRIPTIONS.values(), None], ids=[*DESCRIPTIONS, "fifo"])
def test_damaged_description_is_recomputed(store, expected, caplog, text):
    (path,) = store.rglob("outputs.json")
    replace_by(os.mkfifo)(path) if text is None else path.write_text(text)
    outputs, _ = extract(store)
    np.testing.assert_array_equal(outputs.logits, expected[1].logits)
    assert "are damaged; recomputing them" in caplog.text


def rewrite_shard(change):
    def apply(path):
        arrays = load(path.read_bytes()[32:])
        change(arrays)
        payload = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        path.write_bytes(sha256(payload).digest() + payload)

    return apply


SHARDS = {
    "row out of range": rewrite_shard(lambda arrays: arrays["index"].__setitem__(0, COUNT)),
    "negative row": rewrite_shard(lambda arrays: arrays["index"].__setitem__(0, -1)),
    "row twice": rewrite_shard(lambda arrays: arrays["index"].__setitem__(0, arrays["index"][1])),
    "no rows": rewrite_shard(lambda arrays: arrays.update({n: a[:0] for n, a in arrays.items()})),
    "fewer rows": rewrite_shard(lambda arrays: arrays.update(logits=arrays["logits"][1:])),
    "other width": rewrite_shard(lambda arrays: arrays.update(features=arrays["features"][:, 1:])),
    "other dtype": rewrite_shard(lambda arrays: arrays.update(index=arrays["index"].astype(np.float32))),
    "nan": rewrite_shard(lambda arrays: arrays["logits"].__setitem__((0, 0, 0), np.nan)),
    "missing array": rewrite_shard(lambda arrays: arrays.pop("index")),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "no bytes": lambda path: path.write_bytes(b""),
    "copy": lambda path: shutil.copy(path, path.with_name("999.safetensors")),
    "fifo": replace_by(os.mkfifo),
    "device": replace_by(link),
}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A store with two shards, of 32 of the records."""
    store = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(shards, "SHARD_BYTES", 1)
        save_shard, written = shards.CacheEntry.save_shard, []

        def save_then_fail(self, name, arrays):
            save_shard(self, name, arrays)
            written.append(name)
            if len(written) == 2:
                raise KilledError

        monkeypatch.setattr(shards.CacheEntry, "save_shard", save_then_fail)
        with pytest.raises(KilledError):
            extract(store)
    return store


@pytest.mark.parametrize("damage", SHARDS.values(), ids=SHARDS)
def test_damaged_shard_is_recomputed(interrupted, expected, tmp_path, caplog, damage):
    shutil.copytree(interrupted, tmp_path / "store")
    path = sorted(tmp_path.rglob("*.safetensors"))[1]
    damage(path)
    outputs, _ = extract(tmp_path / "store")
    np.testing.assert_array_equal(outputs.logits, expected[1].logits)
    assert "is damaged" in caplog.text
    assert not list(tmp_path.rglob("shards/*"))


def test_undamaged_shards_are_resumed(interrupted, expected, tmp_path, caplog):
    caplog.set_level("INFO", logger="mia_lightning")
    shutil.copytree(interrupted, tmp_path / "store")
    outputs, _ = extract(tmp_path / "store")
    np.testing.assert_array_equal(outputs.logits, expected[1].logits)
    assert f"32 of {COUNT} records already extracted" in caplog.text


def test_linked_outputs_are_not_written_through(store, expected, tmp_path):
    (path,) = store.rglob("outputs.json")
    (tmp_path / "victim").write_text("theirs")
    path.unlink()
    path.symlink_to(tmp_path / "victim")
    np.testing.assert_array_equal(extract(store)[0].logits, expected[1].logits)
    assert (tmp_path / "victim").read_text() == "theirs"


@pytest.mark.parametrize("name", ["shards", "."])
def test_linked_folder_error_message(interrupted, tmp_path, name):
    """Shards of a linked folder would be deleted where they are."""
    shutil.copytree(interrupted, tmp_path / "store")
    (shard_folder,) = tmp_path.rglob("shards")
    folder = shard_folder if name == "shards" else shard_folder.parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").rglob("*"))
    with pytest.raises(MIAError, match="is a symbolic link; expected a folder"):
        extract(tmp_path / "store")
    assert sorted(path.name for path in (tmp_path / "elsewhere").rglob("*")) == before


@pytest.mark.parametrize("name", ["lock", "outputs.safetensors", "outputs.json", "shards"])
def test_other_kind_of_file_error_message(interrupted, tmp_path, name):
    shutil.copytree(interrupted, tmp_path / "store")
    (shard_folder,) = tmp_path.rglob("shards")
    path = shard_folder.with_name(name)
    if name == "shards":
        shutil.rmtree(path)
        os.mkfifo(path)
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    with pytest.raises(MIAError, match=f"{name}: is not a regular file|cannot write .* into the store"):
        extract(tmp_path / "store")
