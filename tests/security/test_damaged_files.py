"""Any valid records come back as they were written, and any damage to a valid file loads or gives one sentence."""

import random
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.datasets import csv_text, png, write_pickled, write_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mia_lightning.config.command_line import load_config
from mia_lightning.config.files import read_yaml
from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records
from mia_lightning.scores.files import read_scores
from mia_lightning.targets.weights import read_weights

sys.path.insert(0, str(ROOT / "tests/fuzz"))
from seeds import seeds

RELAXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
WORDS = PRINTABLE.filter(lambda text: text.isprintable() and not text.startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")))


@st.composite
def columns(draw):
    """Return ids, images (N, C, H, W) uint8, labels and membership."""
    ids = draw(
        st.lists(st.integers(-(10**17), 10**17), min_size=1, max_size=4, unique=True)
        | st.lists(st.integers(0, 99).map("n{:02d}x".format), min_size=1, max_size=4, unique=True)
    )
    shape = (len(ids), draw(st.sampled_from([1, 3])), draw(st.integers(2, 5)), draw(st.integers(4, 6)))
    images = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, shape, dtype=np.uint8)
    labels = draw(st.lists(st.integers(-1, 2**40), min_size=len(ids), max_size=len(ids)))
    membership = draw(st.lists(st.integers(-1, 1), min_size=len(ids), max_size=len(ids)))
    return ids, images, labels, membership


def write(folder, form, ids, images, labels, membership):
    if form.endswith(".pt"):
        old = {} if form == "a.pt" else {"_use_new_zipfile_serialization": False}
        return write_pickled(folder / form, ids, list(torch.from_numpy(images)), labels, membership, **old)
    arrays = {"images": images, "labels": np.array(labels), "membership": np.array(membership), "ids": np.array(ids)}
    if form == "a.npz":
        np.savez(folder / form, **arrays)
    elif form == "a.safetensors":
        save_file(arrays, folder / form)
    else:
        table = csv_text({"id": ids, "label": labels, "membership": membership})
        named = {f"{key}.png": png(image) for key, image in zip(ids, images, strict=True)}
        write_store(folder / form, {"t.csv": table.encode(), **named})
    return folder / form


@settings(max_examples=120, suppress_health_check=RELAXED)
@given(st.sampled_from(["a.pt", "old.pt", "a.npz", "a.safetensors", "a.zip", "a.tar"]), columns())
def test_records_round_trip(tmp_path, form, held):
    ids, images, labels, membership = held
    if form == "a.safetensors" and isinstance(ids[0], str):
        form = "a.npz"  # safetensors hold no text
    records = read_records(str(write(tmp_path, form, *held)))
    assert records.ids.tolist() == ids
    np.testing.assert_array_equal(records.images, images)
    for values, read in ((labels, records.labels), (membership, records.membership)):
        signed = set(values) == {1, -1}  # the coding of margins; -1 means unknown otherwise
        assert read.tolist() == [max(value, 0) if signed else value for value in values]


@settings(max_examples=60, suppress_health_check=RELAXED)
@given(st.lists(WORDS, min_size=2, max_size=5, unique=True), st.data())
def test_scores_round_trip(tmp_path, ids, data):
    finite = st.floats(allow_nan=False, allow_infinity=False)
    scores = data.draw(st.lists(finite, min_size=len(ids), max_size=len(ids)))
    member = [1, 0, *data.draw(st.lists(st.integers(0, 1), min_size=len(ids) - 2, max_size=len(ids) - 2))]
    (tmp_path / "s.csv").write_text(csv_text({"id": ids, "membership": member, "s": scores}), encoding="utf-8")
    records_read = read_scores(tmp_path / "s.csv").records
    assert records_read.ids.astype(str).tolist() == ids
    assert records_read.scores["s"].tolist() == scores
    assert records_read.membership.tolist() == member


def damaged(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return the file with bits flipped, a part cut out, doubled, zeroed or taken from elsewhere, or its end lost."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        start, length = chance.randrange(len(changed) or 1), chance.choice([1, 2, 4, 8, 64, 512])
        part = slice(start, start + length)
        kind = chance.choice(["flip", "flip", "flip", "cut", "double", "zero", "fill", "splice", "truncate"])
        if kind == "flip" and changed:
            changed[start] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del changed[part]
        elif kind == "double":
            changed[start:start] = changed[part] * chance.choice([1, 1, 50])
        elif kind in ("zero", "fill"):
            changed[part] = (b"\0" if kind == "zero" else b"\xff") * len(changed[part])
        elif kind == "splice":
            place = chance.randrange(len(other))
            changed[part] = other[place : place + length]
        elif kind == "truncate":
            del changed[start:]
    return bytes(changed)


def reading(reader):
    return lambda path: read_records(str(path), reader=reader)


READS = {
    "pickled": (".pt", reading("pickled")),
    "checkpoint": (".ckpt", read_weights),
    "npz": (".npz", reading("arrays")),
    "safetensors": (".safetensors", reading("arrays")),
    "archive": (".zip", reading("images")),
    "csv": (".csv", reading("images")),
    "scores": (".csv", read_scores),
    "parquet": (".csv", read_scores),
    "yaml": (".yaml", read_yaml),
}


@pytest.mark.parametrize("kind", READS)
def test_damaged_files(kind, tmp_path):
    suffix, read = READS[kind]
    whole, chance = list(seeds(kind).values()), random.Random(kind)
    for i in range(150):
        data = damaged(whole[i % len(whole)], chance.choice(whole), chance)
        (tmp_path / f"a{suffix}").write_bytes(data)
        try:
            read(tmp_path / f"a{suffix}")
        except MIAError as error:
            assert str(error).isprintable()  # noqa: PT017 (both outcomes are right)


@pytest.mark.parametrize("kind", READS)
def test_every_seed_loads(kind, tmp_path):
    suffix, read = READS[kind]
    for data in seeds(kind).values():
        for name in ("1.png", "2.png"):
            (tmp_path / name).write_bytes(_pixel())
        (tmp_path / f"a{suffix}").write_bytes(data)
        read(tmp_path / f"a{suffix}")
    if kind == "yaml":
        load_config(tmp_path / f"a{suffix}")


def _pixel():
    from seeds import PIXEL

    return PIXEL


def test_fuzzing_regressions(tmp_path):
    end = b"PK\x06\x07" + bytes(12) + b"\x09\0\0\0" + b"PK\x05\x06" + bytes(18)  # a zip of nine disks
    (tmp_path / "a.pt").write_bytes(seeds("checkpoint")["zip"][:200] + bytes(80) + end)
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff")  # a gzip header that ends in its extra field
    latin = seeds("parquet")["plain"].replace(b"public", b"\xffublic")
    (tmp_path / "s.parquet").write_bytes(latin)
    for read, name in ((read_weights, "a.pt"), (reading("pickled"), "a.pt"), (reading("images"), "a.tar.gz")):
        with pytest.raises(MIAError):
            read(tmp_path / name)
    with pytest.raises(MIAError, match="Parquet"):
        read_scores(tmp_path / "s.parquet")
    (tmp_path / "s.csv").write_text(f"id,membership,label,s\na,1,0,{2**60 + 1}\nb,0,0,1\n")
    assert read_scores(tmp_path / "s.csv").records.scores["s"].tolist() == [2.0**60, 1.0]
    (tmp_path / "s.csv").write_text(f"id,membership,label,s\na,1,{2**60 + 1},0\nb,0,0,1\n")
    with pytest.raises(MIAError, match="label is '1"):
        read_scores(tmp_path / "s.csv")


@pytest.mark.parametrize(
    "key", ["=cmd|'/C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "a\n=1", "\x1b[2J", "a\u202eb", "\uff1d1"]
)
def test_unsafe_ids_are_refused(tmp_path, key):
    write_pickled(tmp_path / "a.pt", [key, "b"], list(torch.zeros(2, 3, 4, 4)), [0, 1], [0, 1])
    with pytest.raises(MIAError, match=r"formula|control character") as caught:
        read_records(str(tmp_path / "a.pt"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["-5", "+1.5", "a=b", "cat-1", "1e5", "é", "007"])
def test_numeric_ids_are_not_formulas(tmp_path, key):
    write_pickled(tmp_path / "a.pt", [key, "b"], list(torch.zeros(2, 3, 4, 4)), [0, 1], [0, 1])
    assert read_records(str(tmp_path / "a.pt")).ids.tolist() == [key, "b"]
