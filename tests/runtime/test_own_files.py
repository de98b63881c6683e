"""Reading back files of our own, whatever became of them: another value, another kind of file, a link."""

import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from mia_lightning.runtime.own_files import ArraySpec, DamagedFileError, read_array, read_bytes, read_json


@dataclass(frozen=True)
class Part:
    name: str
    weights: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    number: int
    status: Literal["trained", "diverged"]
    seconds: float = 0.0
    done: bool = False
    reason: str | None = None
    size: tuple[int, int] = (0, 0)
    columns: tuple[str, ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)
    extra: Any = None


GOOD = {
    **{"number": 3, "status": "trained", "seconds": 2, "done": True, "reason": None, "size": [1, 2]},
    **{"columns": ["a", "b"], "parts": {"x": {"name": "n", "weights": [1, 0.5]}}, "extra": {"any": ["thing"]}},
}


def test_json_of_a_dataclass(tmp_path):
    (tmp_path / "row.json").write_text(json.dumps(GOOD))
    row = read_json(tmp_path / "row.json", Row)
    assert row == Row(3, "trained", 2, True, None, (1, 2), ("a", "b"), {"x": Part("n", [1, 0.5])}, {"any": ["thing"]})


WRONG = {
    "text for number": {"number": "3"},
    "float for integer": {"number": 3.5},
    "true for integer": {"number": True},
    "null": {"number": None},
    "nan": {"seconds": float("nan")},
    "infinite": {"seconds": float("inf")},
    "list for number": {"seconds": [1]},
    "number for boolean": {"done": 1},
    "not a choice": {"status": "lost"},
    "unhashable choice": {"status": ["trained"]},
    "short pair": {"size": [1]},
    "text in list": {"size": [1, "2"]},
    "mapping for list": {"columns": {"a": 1}},
    "list for mapping": {"parts": [1]},
    "nested": {"parts": {"x": {"name": 5}}},
    "nested unknown": {"parts": {"x": {"name": "n", "nmae": "n"}}},
    "unknown": {"nmuber": 3},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_json_that_does_not_fit(tmp_path, change):
    (tmp_path / "row.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(DamagedFileError, match=r"row\.json: is damaged \(.*\); delete it and rerun"):
        read_json(tmp_path / "row.json", Row)


TEXTS = {
    "empty": b"",
    "list": b"[]",
    "number": b"7",
    "missing": b"{}",
    "cut": json.dumps(GOOD).encode()[:-3],
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "deep mapping": b'{"extra":' * 100_000,
    "long number": b'{"number": ' + b"9" * 10_000 + b', "status": "trained"}',
    "huge float": b'{"number": 1, "status": "trained", "seconds": 1e999}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_that_is_not_a_row(tmp_path, text):
    (tmp_path / "row.json").write_bytes(text)
    with pytest.raises(DamagedFileError, match=r"row\.json"):
        read_json(tmp_path / "row.json", Row)


def make_fifo(path):
    os.mkfifo(path)


def make_link(path):
    target = path.with_name("target")
    target.write_text(json.dumps(GOOD))
    path.symlink_to(target)


OTHER_FILES = {
    "fifo": make_fifo,
    "folder": lambda path: path.mkdir(),
    "link": make_link,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", OTHER_FILES.values(), ids=OTHER_FILES)
@pytest.mark.parametrize(
    "read", [read_bytes, lambda path: read_json(path, Row), lambda path: read_array(path, ArraySpec("f4", (None,)))]
)
def test_other_kinds_of_files(tmp_path, make, read):
    make(tmp_path / "row.json")
    with pytest.raises(DamagedFileError, match=r"row\.json"):
        read(tmp_path / "row.json")


def test_missing_and_large_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "row.json", Row)
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "x.npy", ArraySpec("f4", (None,)))
    (tmp_path / "row.json").write_bytes(b"12345")
    assert read_bytes(tmp_path / "row.json", limit=5) == b"12345"
    with pytest.raises(DamagedFileError, match="larger than 4 bytes"):
        read_bytes(tmp_path / "row.json", limit=4)


def test_array(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "x.npy", ArraySpec(np.float32, (2, None))), array)


ARRAYS = {
    "dtype": (np.zeros((2, 3)), {}),
    "shape": (np.zeros((3, 3), np.float32), {}),
    "dimensions": (np.zeros(2, np.float32), {}),
    "nan": (np.array([[0, 1, np.nan]] * 2, np.float32), {"is_finite": True}),
    "range": (np.array([[0, 1, 9]] * 2, np.float32), {"bounds": (0, 8)}),
    "objects": (np.array([[None] * 3] * 2), {}),
}


@pytest.mark.parametrize(("array", "options"), ARRAYS.values(), ids=ARRAYS)
def test_array_that_does_not_fit(tmp_path, array, options):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DamagedFileError, match=r"x\.npy: is damaged"):
        read_array(tmp_path / "x.npy", ArraySpec(np.float32, (2, 3), **options))


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_array_that_is_cut(tmp_path, keep):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:keep])
    with pytest.raises(DamagedFileError, match=r"x\.npy: is damaged"):
        read_array(tmp_path / "x.npy", ArraySpec(np.float32, (2, 3)))


def test_array_larger_than_its_file(tmp_path):
    """A header of petabytes is refused before memory is allocated."""
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": (2**50,), "fortran_order": False, "descr": "<f4"})
    with pytest.raises(DamagedFileError, match="wrong size"):
        read_array(tmp_path / "x.npy", ArraySpec(np.float32, (None,)))
