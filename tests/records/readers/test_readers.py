"""Readers as a whole: choosing one, forcing one, and the errors every source shares; the small readers."""

import importlib
import inspect
import os
import subprocess
import sys
import types
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.datasets import csv_text, make_images, png, write_pickled, write_store

from mia_lightning.errors import MIAError
from mia_lightning.records import readers
from mia_lightning.records.readers import read_records, reader_names
from mia_lightning.records.records import Records

REPLICA = ROOT.parent / "shared" / "replica"


def test_readers_are_discovered():
    folder = Path(sys.modules["mia_lightning.records.readers"].__file__).parent
    assert reader_names() == sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_"))


@pytest.mark.parametrize("name", reader_names())
def test_reader_contract(name):
    module = importlib.import_module(f"{readers.__name__}.{name}")
    assert module.FORMATS in readers.known_formats()
    assert module.FORMATS[0].islower()
    assert list(inspect.signature(module.matches).parameters) == ["source"]
    assert list(inspect.signature(module.read).parameters) in (["source"], ["source", "columns"])
    for source in ("no such source", "", "a\0b", "x" * 5000, "/dev/zero"):
        assert module.matches(source) is False


NEW_READER = """
import numpy as np
from mia_lightning.records import make_records
FORMATS = "lines of gray values (.gray)"
def matches(source):
    return source.endswith(".gray")
def read(source, columns=None):
    images = np.loadtxt(source, dtype=np.uint8).reshape(-1, 1, 2, 2)
    return make_records(source, images, membership=["member", "non-member"])
"""


def test_new_reader_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "gray.py").write_text(NEW_READER)
    (tmp_path / "a.gray").write_text("1 2 3 4\n5 6 7 8\n")
    (tmp_path / "a.unknown").write_bytes(b"\x07nothing")
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{readers.__name__}.gray", raising=False)
    assert "gray" in reader_names()
    records = read_records(str(tmp_path / "a.gray"))
    assert records.membership.tolist() == [1, 0]
    assert records.ids_invented
    with pytest.raises(MIAError, match=r"lines of gray values \(\.gray\)"):
        read_records(str(tmp_path / "a.unknown"))
    del sys.modules[f"{readers.__name__}.gray"]


def test_mapping_for_a_reader_without_columns():
    with pytest.raises(MIAError, match=r"--data\.columns: reader 'digits' takes no mapping"):
        read_records("digits:public", columns={"a": "label"})


def test_not_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    for reader in ("auto", "pickled", "arrays", "images"):
        with pytest.raises(MIAError, match=r"a\.npz: (is a named pipe|unknown or corrupted file format)"):
            read_records(str(tmp_path / "a.npz"), reader=reader)


def test_matching_imports_nothing_heavy(tmp_path):
    (tmp_path / "x.csv").write_text("id\n1\n")
    code = (
        "import importlib, sys\n"
        "import mia_lightning.records.readers as r\n"
        "for n in r.reader_names(): importlib.import_module(r.__name__ + '.' + n).matches(sys.argv[1])\n"
        "print([m for m in ('torch', 'torchvision', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.csv")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def _forms(folder: Path) -> dict[str, Path]:
    """The same three records in every form, under names that say nothing of the form."""
    pixels = (make_images(3, (3, 8, 8)) * 255).round().astype(np.uint8)
    write_pickled(folder / "a", [5, 1, 9], pixels, [2, 0, 1], [1, 0, None])
    np.savez(folder / "b.npz", ids=[5, 1, 9], images=pixels, labels=[2, 0, 1], membership=[1, 0, -1])
    (folder / "b.npz").rename(folder / "b")
    from safetensors.numpy import save_file

    columns = {"ids": np.array([5, 1, 9]), "labels": np.array([2, 0, 1]), "membership": np.array([1, 0, -1])}
    save_file({"images": pixels, **columns}, folder / "c")
    table = csv_text({"id": [5, 1, 9], "label": [2, 0, 1], "membership": [1, 0, ""]}).encode()
    contents = {"t.csv": table, **{f"{key:03d}.png": png(image) for key, image in zip((5, 1, 9), pixels, strict=True)}}
    for suffix in (".zip", ".tar", ".tar.gz", ".tar.xz"):
        write_store(folder / f"d{suffix}", contents).rename(folder / f"d{suffix.replace('.', '_')}")
    write_store(folder / "e", contents)
    return {"pixels": pixels} | {file.name: file for file in sorted(folder.iterdir())}


def test_every_format_gives_same_records(tmp_path):
    forms = _forms(tmp_path)
    pixels = forms.pop("pixels")
    assert len(forms) == 8
    for name, path in forms.items():
        records = read_records(str(path))
        assert records.ids.tolist() == [5, 1, 9], name
        assert records.labels.tolist() == [2, 0, 1], name
        assert records.membership.tolist() == [1, 0, -1], name
        assert records.images.dtype == np.uint8, name
        np.testing.assert_array_equal(records.images, pixels, err_msg=name)
        assert records.source == name
        assert (records.ids.dtype, records.labels.dtype, records.membership.dtype) == (np.int64, np.int64, np.int8), (
            name
        )


def test_missing_file_suggests_closest(tmp_path):
    (tmp_path / "public.pt").write_bytes(b"x")
    typed = str(tmp_path / "pubic.pt")
    for reader in ("auto", "pickled", "arrays", "images"):
        with pytest.raises(MIAError) as error:
            read_records(typed, reader=reader)
        assert typed in str(error.value)
        assert "did you mean" in str(error.value)
        assert "public.pt" in str(error.value)


@pytest.mark.parametrize("reader", ["pickled", "arrays"])
def test_folder_where_a_file_is_expected(tmp_path, reader):
    with pytest.raises(MIAError, match=f"{tmp_path.name}: is a folder; give the path of a file inside it"):
        read_records(str(tmp_path), reader=reader)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"\x07\x08 nothing known" * 9, "unknown or corrupted file format")]
)
def test_unrecognized_file(tmp_path, content, says):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(MIAError, match=rf"^x\.bin: .*{says}"):
        read_records(str(tmp_path / "x.bin"))


def test_reader_of_one_file(tmp_path, monkeypatch):
    (tmp_path / "one_file_reader.py").write_text("def read(source):\n    return source.upper()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MIAError, match="returned str"):
        read_records("abc", reader="one_file_reader")
    with pytest.raises(MIAError, match="'array' is unknown"):  # a module of the standard library
        read_records("abc", reader="array")


def test_unknown_reader_suggests_closest():
    with pytest.raises(MIAError, match="did you mean 'pickled'"):
        read_records("x", reader="pickle")
    with pytest.raises(MIAError, match="cannot be imported"):
        read_records("x", reader="no_such_package.reader")


def test_custom_reader(monkeypatch):
    module = types.ModuleType("theirs.mine")
    given = np.zeros((2, 1, 4, 4), np.uint8)
    module.read = lambda source: Records(
        np.arange(2), given, np.zeros(2, np.int64), np.array([0, 1], np.int8), source.upper()
    )
    monkeypatch.setitem(sys.modules, "theirs", types.ModuleType("theirs"))
    monkeypatch.setitem(sys.modules, "theirs.mine", module)
    assert read_records("abc", reader="theirs.mine").source == "ABC"
    module.read = lambda source: 7
    with pytest.raises(MIAError, match="returned int"):
        read_records("abc", reader="theirs.mine")
    del module.read
    with pytest.raises(MIAError, match="has no function read"):
        read_records("abc", reader="theirs.mine")


def test_digits_splits():
    from sklearn.datasets import load_digits

    public, private = read_records("digits:public"), read_records("digits:private")
    truth = load_digits()
    assert sorted([*public.ids, *private.ids]) == list(range(1797))
    for half in (public, private):
        assert half.images.shape[1:] == (1, 8, 8)
        assert half.images.max() == 255
        np.testing.assert_allclose(half.images[:, 0], truth.images[half.ids] / 16 * 255, atol=0.51)
        assert (
            0.05 < (half.labels != truth.target[half.ids]).mean() < 0.13
        )  # a tenth is drawn anew, one in ten of it right
        assert abs(half.membership.mean() - 0.5) < 0.001
        assert 0.3 < half.membership[: len(half) // 2].mean() < 0.7  # members do not stand in one block
    np.testing.assert_array_equal(read_records("digits:public").membership, public.membership)
    with pytest.raises(MIAError, match="did you mean 'public'"):
        read_records("digits:publik")


def _write_mnist(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write idx files of random digits where torchvision looks for MNIST's."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng, written = np.random.default_rng(3), {}
    for part, count in (("train", 7), ("t10k", 4)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        head = b"".join(int(number).to_bytes(4, "big") for number in (2051, count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = b"".join(int(number).to_bytes(4, "big") for number in (2049, count))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
        written[part] = (pixels, labels)
    return written


def test_torchvision_splits_are_membership(tmp_path):
    pytest.importorskip("torchvision", exc_type=ImportError)
    written = _write_mnist(tmp_path)
    records = read_records(f"torchvision:MNIST?root={tmp_path}")
    assert records.ids.tolist() == list(range(11))
    assert records.membership.tolist() == [1] * 7 + [0] * 4
    np.testing.assert_array_equal(records.images[:, 0], np.concatenate([written["train"][0], written["t10k"][0]]))
    np.testing.assert_array_equal(records.labels, np.concatenate([written["train"][1], written["t10k"][1]]))
    assert records.source == "MNIST"


def test_torchvision_mistakes(tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    with pytest.raises(MIAError, match="did you mean 'CIFAR10'"):
        read_records("torchvision:CIFAR-10")
    with pytest.raises(MIAError, match="did you mean 'root'"):
        read_records("torchvision:CIFAR10?rot=x")

    def no_network(*args, **kwargs):
        raise URLError("no network in this test")

    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", no_network)
    with pytest.raises(MIAError, match=r"^CIFAR10: cannot be downloaded or read .*put torchvision's files under"):
        read_records(f"torchvision:CIFAR10?root={tmp_path}")


def _write_medmnist(path, channels=()):
    draw = np.random.default_rng(0)
    sizes = {"train": 6, "val": 3, "test": 4}
    images = {f"{part}_images": draw.integers(0, 256, (n, 28, 28, *channels), np.uint8) for part, n in sizes.items()}
    labels = {f"{part}_labels": draw.integers(0, 9, (n, 1), np.uint8) for part, n in sizes.items()}
    np.savez(path, **images, **labels)
    return images, labels


def test_medmnist_splits_are_membership(tmp_path):
    images, labels = _write_medmnist(tmp_path / "pathmnist_64.npz", (3,))
    for source in (f"medmnist:PathMNIST_64?root={tmp_path}", f"medmnist:{tmp_path / 'pathmnist_64.npz'}"):
        records = read_records(source)
        assert records.membership.tolist() == [1] * 6 + [0] * 4
        both = np.concatenate([images["train_images"], images["test_images"]])
        np.testing.assert_array_equal(records.images, both.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(
            records.labels, np.concatenate([labels["train_labels"], labels["test_labels"]])[:, 0]
        )


def test_medmnist_is_downloaded_by_its_package(tmp_path, monkeypatch):
    class BloodMNIST:
        def __init__(self, split, download, root, size):
            assert (split, download, size) == ("train", True, 28)
            _write_medmnist(Path(root) / "bloodmnist.npz")

    monkeypatch.setitem(sys.modules, "medmnist", types.SimpleNamespace(BloodMNIST=BloodMNIST))
    source = f"medmnist:BloodMNIST?root={tmp_path / 'new'}"
    assert len(read_records(source)) == 10
    monkeypatch.delitem(sys.modules, "medmnist")
    assert len(read_records(source)) == 10  # the file alone is enough


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "PathMNIST?root={folder}",
            r"pathmnist\.npz is not in \S+; put it there.*pip install \"mia-lightning\[medmnist\]\"",
        ),
        ("PathMNIST", r"pathmnist\.npz is not in data or ~/\.medmnist"),
        ("PathMNITS", "did you mean 'PathMNIST'"),
        ("PathMNIST_32", "MedMNIST has no such data set"),
        ("OrganMNIST3D", "has volumes"),
        ("PathMNIST?rot=x", "did you mean 'root'"),
        ("{folder}/nothing.npz", "no such file"),
        ("", "legal names include"),
    ],
)
def test_medmnist_mistakes(name, sentence, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MIAError, match=sentence):
        read_records("medmnist:" + name.format(folder=tmp_path))


@pytest.mark.skipif(not (REPLICA / "public.csv").is_file(), reason="the replica is not on this machine")
def test_replica_matches_its_files():
    records = read_records(str(REPLICA / "private.csv"))
    assert (len(records), records.images.shape[1:], records.images.dtype) == (20_000, (3, 32, 32), np.uint8)
    assert set(records.membership) == {-1}
    rows = [line.split(",") for line in (REPLICA / "private.csv").read_text().splitlines()[1:]]
    assert records.ids.tolist() == [int(row[0]) for row in rows]
    assert records.labels.tolist() == [int(row[1]) for row in rows]
    import io
    import tarfile

    from PIL import Image

    wanted = {f"{key:05d}.jpg": row for row, key in enumerate(records.ids[:3000])}
    compared = 0
    with tarfile.open(REPLICA / "images.tar.xz", "r|xz") as archive:
        for entry in archive:
            if entry.name in wanted:
                truth = np.asarray(Image.open(io.BytesIO(archive.extractfile(entry).read())))
                np.testing.assert_array_equal(records.images[wanted[entry.name]], truth.transpose(2, 0, 1))
                compared += 1
                if compared == 50:
                    break
    assert compared == 50


@pytest.mark.skipif(not (REPLICA / "01_MIA.pt").is_file(), reason="the replica is not on this machine")
def test_replica_checkpoint_is_a_model():
    with pytest.raises(MIAError, match=r"^01_MIA\.pt: looks like a model checkpoint"):
        read_records(str(REPLICA / "01_MIA.pt"))


def test_safe_globals_are_restored(tmp_path):
    write_pickled(tmp_path / "a.pt", [1], make_images(1), [0], [1])
    before = set(torch.serialization.get_safe_globals())
    read_records(str(tmp_path / "a.pt"))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.tfrecord", "is a TFRecord file; give records as"),
        ("a.jsonl", "is a file of JSON lines; save it as CSV or Parquet"),
        ("a.beton", "is an FFCV data set"),
        ("a.arff", "is an ARFF table; save it as CSV"),
        ("a.svm", "is a LIBSVM table; save it as CSV"),
        ("a.csv.gz", "is a compressed table; decompress it: gunzip a.csv.gz"),
        ("db/data.mdb", "is the folder of an LMDB database"),
        ("images/cat/train/a.png", "a folder with images in train/CLASS/ and test/CLASS/"),
    ],
)
def test_other_forms_name_the_fix(name, sentence, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x1f\x8b" + bytes(300) if name.endswith("gz") else bytes([7]) * 300)
    source = path if path.parent == tmp_path else tmp_path / name.partition("/")[0]
    with pytest.raises(MIAError, match=sentence):
        read_records(str(source))
