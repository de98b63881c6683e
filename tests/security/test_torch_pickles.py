"""The static check of torch pickles: what takes forever to hash is refused before it is loaded."""

import pickle
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from helpers import hostile_pickles as pickles

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records
from mia_lightning.security import torch_pickles
from mia_lightning.security.pickle_instructions import MOST_COLLIDING
from mia_lightning.security.plain import plain_dict
from mia_lightning.security.torch_pickles import survey
from mia_lightning.targets import load_target

PRIME = 2**61 - 1
"""The modulus of Python's hash of integers."""

N = 3 * MOST_COLLIDING


class Call:
    """An object that is pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tuples(count):
    """Return distinct tuples of one hash: hash(-1) == hash(-2)."""
    width = count.bit_length()
    return [tuple(-1 - (i >> bit & 1) for bit in range(width)) for i in range(count)]


HOSTILE = {
    "dict of large integers": {k * PRIME: 0 for k in range(1, N)},
    "dict of tuples": dict.fromkeys(tuples(N), 0),
    "nested dict": {"a": [{"b": {k * PRIME: 0 for k in range(1, N)}}]},
    "set": Call(set, [k * PRIME for k in range(1, N)]),
    "set of a tuple": Call(set, tuple(k * PRIME for k in range(1, N))),
    "OrderedDict": Call(OrderedDict, [(key, 0) for key in tuples(N)]),
    "Counter": Call(Counter, [k * PRIME for k in range(1, N)]),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_keys_of_one_hash_are_refused(tmp_path, name, zipped):
    torch.save(HOSTILE[name], tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(MIAError, match=r"^a\.pt: refused, its pickle (hashes|nests)"):
        survey(tmp_path / "a.pt").check_calls()


DEEP = {
    "lists": b"](" * 100_000 + b"N" + b"e" * 100_000,
    "dicts": pickles.deep(b"}(X\x01\0\0\0a", b"u", 100_000),
    "appended lists": b"]" * 100_000 + b"a" * 99_999,
    "lists from within": b"]q\x00" + b"]h\x00aq\x00" * 100_000,
    "lists in tuples": b"]" * 100_001 + b"\x85a" * 100_000,
    "marks": b"(" * 100_000,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", DEEP)
def test_deep_containers_are_refused(tmp_path, name, zipped):
    (pickles.zipped if zipped else pickles.legacy)(tmp_path / "a.pt", DEEP[name])
    for read in (read_records, load_target):
        with pytest.raises(MIAError, match=r"^a\.pt: refused, its pickle nests (containers|tuples)"):
            read(str(tmp_path / "a.pt"))


@pytest.mark.parametrize("body", [b"]q\x00" + b"h\x00" * 200_000, b"](" + b"K\x01" * 200_000 + b"e"])
@pytest.mark.parametrize("zipped", [True, False])
def test_instructions_are_bounded(tmp_path, monkeypatch, body, zipped):
    monkeypatch.setattr(torch_pickles, "SPARE_INSTRUCTIONS", 100_000)
    (pickles.zipped if zipped else pickles.legacy)(tmp_path / "a.pt", body)
    for read in (read_records, load_target):
        with pytest.raises(MIAError, match=r"^a\.pt: refused, its pickle has over 1\d\d,\d\d\d instructions"):
            read(str(tmp_path / "a.pt"))


def test_nesting_as_deep_as_pickle_writes_it_passes(tmp_path):
    value = 1
    for _ in range(200):
        value = [value]
    torch.save(value, tmp_path / "a.pt")
    survey(tmp_path / "a.pt").check_calls()


def test_honest_containers_pass(tmp_path):
    honest = {
        "ids": [2**63 + i for i in range(N)],
        "by number": {i: i for i in range(N)},
        "by name": OrderedDict((str(i), torch.zeros(1)) for i in range(200)),
        "pairs": [(i, i) for i in range(N)],
        "set": set(range(N)),
        "default": defaultdict(int),
        "by tuple": {(i, 0): i for i in range(100)},
    }
    torch.save(honest, tmp_path / "a.pt")
    survey(tmp_path / "a.pt").check_calls()


def test_attributes_that_shadow_methods(tmp_path):
    items = {"images": torch.zeros(2, 1, 4, 4), "labels": [0, 1], "membership": [0, 1]}
    names = ("get", "items", "keys", "values", "__getitem__", "__iter__", "pop")
    shadowed = OrderedDict(items)
    shadowed.__dict__.update(dict.fromkeys(names, "not callable"))
    assert plain_dict(shadowed) == items

    class Pickled:
        def __reduce__(self):
            return OrderedDict, (), dict.fromkeys(names, "not callable"), None, iter(items.items())

    torch.save(Pickled(), tmp_path / "a.pt")
    np.testing.assert_array_equal(read_records(str(tmp_path / "a.pt")).labels, [0, 1])


def test_plain_pickles_are_named(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"images": [1]}, protocol=2))
    with pytest.raises(MIAError, match=r"^a\.pt: is a pickle that torch.save did not write"):
        read_records(str(tmp_path / "a.pt"))
