"""The assignment's torch files: exact values, foreign class names, and files that must be refused."""

import functools
import io
import os
import pickle
import random
import subprocess
import zipfile
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.datasets import importable_class, make_images, write_pickled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision import transforms

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records


def read(path):
    return read_records(str(path))


def test_course_data_set_is_exact(tmp_path):
    images = make_images(5)
    images[1, 0, 3:9, 4:8], images[2, 1] = -2.75, 1.5 + 1e-7  # noise patches are outside [0, 1]
    write_pickled(tmp_path / "pub.pt", [305815, 11, 7, 0, 3], images, [43, 0, 1, 2, 3], [1, 0, 1, 0, 1])
    records = read(tmp_path / "pub.pt")
    np.testing.assert_array_equal(records.images.view(np.uint32), images.view(np.uint32))
    assert records.ids.tolist() == [305815, 11, 7, 0, 3]
    assert records.labels.tolist() == [43, 0, 1, 2, 3]
    assert records.membership.tolist() == [1, 0, 1, 0, 1]
    assert records.source == "pub.pt"
    assert records.images.flags.c_contiguous


def test_membership_of_none(tmp_path):
    write_pickled(tmp_path / "priv_out.pt", [4, 2], make_images(2), [0, 1], [None, None])
    assert read(tmp_path / "priv_out.pt").membership.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("module", "name"),
    [("__mp_main__", "MembershipDataset"), ("src.data.sets", "MyPublic"), ("code", "TaskData"), ("notebook", "x")],
)
def test_any_module_and_class_name(tmp_path, module, name):
    images = make_images(2, (1, 28, 28))
    write_pickled(tmp_path / "a.pt", [1, 2], images, [0, 1], [0, 1], module=module, name=name)
    np.testing.assert_array_equal(read(tmp_path / "a.pt").images, images)


def test_old_and_compressed_containers(tmp_path):
    images = make_images(4)
    write_pickled(
        tmp_path / "old.pt", [1, 2, 3, 4], images, [0] * 4, [0, 1, 0, 1], _use_new_zipfile_serialization=False
    )
    np.testing.assert_array_equal(read(tmp_path / "old.pt").images, images)
    write_pickled(tmp_path / "new.pt", [1, 2, 3, 4], images, [0] * 4, [0, 1, 0, 1])
    with zipfile.ZipFile(tmp_path / "new.pt") as old, zipfile.ZipFile(tmp_path / "z.pt", "w", 8) as packed:
        for name in sorted(old.namelist(), reverse=True):  # so that data.pkl is not the first entry either
            packed.writestr(name, old.read(name))
    np.testing.assert_array_equal(read(tmp_path / "z.pt").images, images)


def _as_pil(images, mode):
    return [
        Image.fromarray((image * 255).round().astype(np.uint8).transpose(1, 2, 0)).convert(mode) for image in images
    ]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK"])
def test_pil_images_inside(tmp_path, mode):
    pictures = _as_pil(make_images(3, (3, 28, 20)), mode)
    write_pickled(tmp_path / "a.pt", [1, 2, 3], pictures, [0, 1, 2], [0, 1, None])
    records = read(tmp_path / "a.pt")
    gray = mode in ("L", "1")
    truth = [
        np.atleast_3d(np.asarray(picture.convert("L" if gray else "RGB"))).transpose(2, 0, 1) for picture in pictures
    ]
    np.testing.assert_array_equal(records.images, np.stack(truth))
    assert records.images.shape == (3, 1 if gray else 3, 28, 20)
    assert records.images.dtype == np.uint8


def test_pil_images_from_files(tmp_path):
    streams = []
    for kind in ("PNG", "JPEG"):
        streams.append(io.BytesIO())
        _as_pil(make_images(1), "RGB")[0].save(streams[-1], kind, dpi=(72, 72))
    opened = [Image.open(stream) for stream in streams]
    write_pickled(tmp_path / "a.pt", [1, 2], opened, [0, 1], [0, 1])
    truth = np.stack([np.asarray(image).transpose(2, 0, 1) for image in opened])
    np.testing.assert_array_equal(read(tmp_path / "a.pt").images, truth)


def _variants(images):
    bytes_ = (images * 255).round().astype(np.uint8)
    tensor = torch.from_numpy(images)
    return {
        "stacked": (tensor, images),
        "uint8": (bytes_, bytes_),
        "numpy list": (list(images), images),
        "numpy stacked": (OrderedDict(imgs=images), images),
        "channels last": ([image.transpose(1, 2, 0).copy() for image in images], images),
        "float64": (tensor.double(), images),
        "half": (tensor.half(), images.astype(np.float16).astype(np.float32)),
        "bfloat16": (tensor.bfloat16(), tensor.bfloat16().float().numpy()),
        "two dimensions": ([image[0].copy() for image in images], images[:, :1]),
        "big endian": (list(images.astype(">f4")), images),
        "a view": (torch.from_numpy(np.concatenate([images, images]))[3:6], images),
        "gradients": ([torch.from_numpy(image.copy()).requires_grad_() for image in images], images),
    }


@pytest.mark.parametrize("kind", list(_variants(make_images(3))))
def test_images_in_any_container(tmp_path, kind):
    given, truth = _variants(make_images(3))[kind]
    given = given["imgs"] if isinstance(given, OrderedDict) else given
    if isinstance(given, np.ndarray):
        torch.save({"ids": [1, 2, 3], "imgs": given, "labels": [0] * 3, "membership": [0] * 3}, tmp_path / "a.pt")
    else:
        write_pickled(tmp_path / "a.pt", [1, 2, 3], given, [0] * 3, [0, 1, 1])
    records = read(tmp_path / "a.pt")
    np.testing.assert_array_equal(records.images, truth)
    assert records.images.dtype == truth.dtype


@pytest.mark.parametrize(
    ("membership", "says"),
    [
        (torch.tensor([True, False, True]), [1, 0, 1]),
        ([torch.tensor(1), None, torch.tensor(0)], [1, -1, 0]),
        (np.array([1.0, np.nan, 0.0]), [1, -1, 0]),
        ([np.int64(1), np.bool_(False), 1.0], [1, 0, 1]),
        (None, [-1, -1, -1]),
    ],
)
def test_membership_in_any_form(tmp_path, membership, says):
    torch.save({"ids": torch.tensor([3, 1, 2]), "imgs": make_images(3), "membership": membership}, tmp_path / "a.pt")
    records = read(tmp_path / "a.pt")
    assert records.membership.tolist() == says
    assert records.ids.tolist() == [3, 1, 2]
    assert records.labels.tolist() == [-1, -1, -1]


def test_other_attribute_names_and_string_ids(tmp_path):
    columns = {"ids": ["a", "b"], "data": make_images(2), "targets": np.array([4, 5])}
    torch.save(columns, tmp_path / "a.pt")
    records = read(tmp_path / "a.pt")
    assert (records.ids.tolist(), records.labels.tolist()) == (["a", "b"], [4, 5])


GOOD = {"ids": [7, 8], "imgs": [torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)], "labels": [0, 1], "membership": [0, 1]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"imgs": [torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)]}, r"record 8 .*\(3, 5, 4\).*record 7 .*\(3, 4, 4\)"),
        ({"imgs": [torch.zeros(3, 4, 4), torch.zeros(3, 4, 4).byte()]}, "record 8 .*uint8"),
        ({"imgs": [torch.zeros(3, 4, 4), torch.full((3, 4, 4), float("nan"))]}, "record 8 has NaN or infinite"),
        ({"imgs": [torch.zeros(3, 4, 4), torch.zeros(3, 4, 4).int()]}, "record 8 .*int32"),
        ({"imgs": [torch.zeros(3, 4, 4)]}, "2 ids but 1 images"),
        ({"imgs": torch.zeros(2, 5, 4, 4)}, "expected 1 or 3 channels"),
        ({"imgs": torch.zeros(2, 3, 4, 4).long() + 300}, "expected uint8 or float32"),
        ({"imgs": torch.zeros(1).expand(2_000_000, 3, 4000, 4000)}, "GiB"),
        ({"imgs": [None, None]}, "NoneType"),
        ({"imgs": 5}, "an image has the type int"),
        ({"ids": [7, 7]}, "occur more than once, first 7"),
        ({"ids": [7, "8"]}, "ids are of type int, str"),
        ({"ids": [7, 2**70]}, "64 bits"),
        ({"imgs": None}, "has no images, it has ids, labels, membership"),
        ({"labels": [0, "cat"]}, "label holds 'cat'"),
        ({"labels": [0, -5]}, "label -5 is negative"),
        ({"labels": [0]}, "2 records but 1 labels"),
        ({"membership": [0, 257]}, "membership holds 257"),
        ({"membership": [0, 0.5]}, "membership holds '0.5'"),
    ],
)
def test_columns_that_cannot_be_records(tmp_path, change, says):
    torch.save(GOOD | change, tmp_path / "a.pt")
    with pytest.raises(MIAError, match=rf"^a\.pt: .*{says}"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (torch.nn.Linear(2, 2).state_dict() | {"a.b": torch.zeros(1)}, "looks like a model checkpoint"),
        ({"state_dict": {"w": torch.zeros(1)}, "epoch": 3}, "looks like a model checkpoint"),
        (torch.nn.Linear(2, 2), "looks like a pickled model"),
        ([1, 2], "contains a list"),
        (torch.zeros(2), "contains a Tensor"),
        ({}, "it has nothing"),
    ],
)
def test_other_torch_files(tmp_path, held, says):
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(MIAError, match=rf"^a\.pt: .*{says}"):
        read(tmp_path / "a.pt")


class Runs:
    """Pickled, it asks for a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _attacks(canary):
    command = f"touch {canary}"
    return {
        "system": (Runs(os.system, command), r"posix\.system"),
        "eval": (Runs(eval, f"open({str(canary)!r}, 'w')"), r"builtins\.eval"),
        "open": (Runs(open, str(canary), "w"), r"(_io|io)\.open"),
        "popen": (Runs(subprocess.Popen, ["touch", str(canary)]), r"subprocess\.Popen"),
        "partial": (Runs(functools.partial, os.system, command), r"functools\.partial"),
        "getattr": (Runs(getattr, 1, "real"), r"builtins\.getattr"),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["outermost", "attribute", "dict value", "dict key"])
@pytest.mark.parametrize("attack", list(_attacks("x")))
def test_code_in_torch_zip_is_refused(tmp_path, attack, place, zipped):
    canary, path = tmp_path / "canary", tmp_path / "a.pt"
    bomb, says = _attacks(canary)[attack]
    options = {"_use_new_zipfile_serialization": zipped}
    if place == "attribute":
        write_pickled(path, [1, 2], make_images(2), [0, 1], [0, bomb], **options)
    else:
        held = {"outermost": bomb, "dict value": GOOD | {"extra": bomb}, "dict key": {bomb: 1} | GOOD}[place]
        torch.save(held, path, **options)
    with pytest.raises(MIAError, match=rf"^a\.pt: refused, .*{says}"):
        read(path)
    assert not canary.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_in_bare_pickle_is_refused(tmp_path, protocol):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Runs(os.system, f"touch {tmp_path / 'canary'}"), protocol))
    with pytest.raises(MIAError, match=r"^a\.pt: refused, .*posix\.system"):
        read_records(str(tmp_path / "a.pt"), reader="pickled")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("form", ["arguments", "call with arguments", "nested", "list state", "two"])
def test_data_set_class_holds_columns_only(tmp_path, form):
    with importable_class("theirs", "Thing", object) as kind:
        plain = kind()
        plain.__dict__.update(GOOD)
        held = {
            "arguments": plain,
            "call with arguments": Runs(kind, 1),
            "nested": GOOD | {"more": plain},
            "list state": plain,
            "two": [kind(), kind()],
        }[form]
        if form == "arguments":
            kind.__new__, kind.__getnewargs__ = lambda cls, *args: object.__new__(cls), lambda self: ("an argument",)
        if form == "list state":
            kind.__getstate__ = lambda self: [1, 2]
        torch.save(held, tmp_path / "a.pt")
    with pytest.raises(MIAError, match=r"^a\.pt: refused, .*theirs\.Thing"):
        read(tmp_path / "a.pt")


def _forms(kind):
    images, labels, member = torch.from_numpy(make_images(6)), torch.arange(6), torch.tensor([1, 0, 1, 0, 0, 1])
    columns = {"ids": list(range(6)), "imgs": list(images), "labels": labels.tolist(), "membership": member.tolist()}
    rows = [
        dict(zip(("id", "image", "label", "member"), row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]

    def data_set(take=range(6), **more):
        made = kind()
        made.__dict__.update({name: [column[i] for i in take] for name, column in columns.items()} | more)
        return made

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.25])])
    pair, parts = TensorDataset(images, labels), [data_set(range(4)), data_set(range(4, 6))]
    sides = {name: Subset(pair, torch.where(member == side)[0].tolist()) for name, side in (("member", 1), ("out", 0))}
    return {
        "tuple": (torch.arange(6), images, labels, member),
        "tensors": TensorDataset(images, labels, member),
        "swapped": TensorDataset(images, member, labels),
        "rows": [tuple(row.values()) for row in rows],
        "mappings": rows,
        "by id": {f"img {row['id']}": (row["image"], row["label"], row["member"]) for row in rows},
        "subset": Subset(data_set([5, 4, 3, 2, 1, 0]), [5, 4, 3, 2, 1, 0]),
        "joined": ConcatDataset(parts),
        "sides": sides,
        "private": {f"_{name}": column for name, column in columns.items()},
        "samples": {"samples": [(row["image"], row["label"]) for row in rows], "member": member},
        "nested": {"data": columns},
        "transform": data_set(transform=transform),
    }


@pytest.mark.parametrize("form", list(_forms(type("Unused", (), {"__len__": lambda self: 6}))))
def test_forms_other_than_columns(tmp_path, form):
    with importable_class("theirs", "Thing") as kind:
        kind.__len__ = lambda self: len(self.ids)
        torch.save(_forms(kind)[form], tmp_path / "a.pt")
    records = read(tmp_path / "a.pt")
    order = np.argsort(records.labels)
    assert records.labels[order].tolist() == [0, 1, 2, 3, 4, 5]
    assert records.membership[order].tolist() == [1, 0, 1, 0, 0, 1]
    np.testing.assert_array_equal(records.images[order], make_images(6))
    if form == "transform":
        assert any("--data.mean [0.5] --data.std [0.25]) is not applied" in note for note in records.notes)


def test_subset_beyond_its_records(tmp_path):
    torch.save(Subset(TensorDataset(torch.zeros(2, 3, 4, 4), torch.zeros(2)), [0, 2]), tmp_path / "a.pt")
    with pytest.raises(MIAError, match=r"^a\.pt: its Subset has indices that are none of its 2 records"):
        read(tmp_path / "a.pt")


def test_object_array_is_refused(tmp_path):
    bomb = Runs(os.system, f"touch {tmp_path / 'canary'}")
    torch.save(GOOD | {"imgs": np.array([bomb, None], dtype=object)}, tmp_path / "a.pt")
    with pytest.raises(MIAError, match=r"posix\.system"):
        read(tmp_path / "a.pt")
    torch.save(GOOD | {"imgs": np.array([1, None], dtype=object)}, tmp_path / "a.pt")
    with pytest.raises(MIAError, match=r"^a\.pt: "):
        read(tmp_path / "a.pt")
    assert not (tmp_path / "canary").exists()


def test_other_pickle_protocols(tmp_path):
    write_pickled(tmp_path / "a.pt", [1, 2], make_images(2), [0, 1], [0, 1], pickle_protocol=4)
    with pytest.raises(MIAError, match=r"save it again with torch\.save"):
        read(tmp_path / "a.pt")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"ids": [1], "imgs": [[1.0]]}, 2))
    with pytest.raises(MIAError, match=r"torch\.save did not write"):
        read(tmp_path / "b.pkl")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_anywhere(tmp_path, zipped):
    path = write_pickled(
        tmp_path / "a.pt", [1, 2], make_images(2), [0, 1], [0, 1], _use_new_zipfile_serialization=zipped
    )
    whole = path.read_bytes()
    for cut in [1, 2, 3, 4, 29, 40, 100, *range(200, len(whole) - 1, len(whole) // 25), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(MIAError, match=r"^a\.pt: .*(cut short|damaged|corrupted)"):
            read(path)


SEEDS = {}


def _seed_file(zipped):
    if zipped not in SEEDS:
        stream = io.BytesIO()
        pictures = _as_pil(make_images(2, (3, 4, 4)), "RGB")
        columns = {"ids": [1, 2], "imgs": pictures, "labels": np.array([0, 1]), "membership": torch.tensor([0, 1])}
        torch.save(columns, stream, _use_new_zipfile_serialization=zipped)
        SEEDS[zipped] = stream.getvalue()
    return SEEDS[zipped]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(zipped=st.booleans(), seed=st.integers(0, 2**32), flips=st.integers(1, 6))
def test_flipped_bits(tmp_path, zipped, seed, flips):
    data, chance = bytearray(_seed_file(zipped)), random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    (tmp_path / "a.pt").write_bytes(data)
    try:
        assert len(read_records(str(tmp_path / "a.pt"), reader="pickled")) >= 1
    except MIAError as error:
        assert "\n" not in str(error)  # noqa: PT017 (both outcomes are right)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x80\x04\x95"]))
def test_random_bytes(tmp_path, data, start):
    (tmp_path / "a.pt").write_bytes(start + data)
    with pytest.raises(MIAError, match=r"^a\.pt: [^\n]*$"):
        read_records(str(tmp_path / "a.pt"), reader="pickled")


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (pd.DataFrame({"a": [1]}), "contains a table of pandas; save it with to_csv or to_parquet"),
        ({"public": pd.DataFrame({"a": [1]})}, "contains a table of pandas"),
        ([{"age": 3, "label": 0}], r"has no images, it has age, label; save a table as CSV or Parquet"),
        ([{"input_ids": torch.ones(4), "attention_mask": torch.ones(4)}], "has token ids with an attention_mask"),
    ],
)
def test_tables_and_tokens_name_the_fix(payload, sentence, tmp_path):
    torch.save(payload, tmp_path / "r.pt")
    with pytest.raises(MIAError, match=sentence):
        read_records(str(tmp_path / "r.pt"))
