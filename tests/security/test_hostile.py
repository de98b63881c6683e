"""Hostile files: nothing in them runs, nothing is written elsewhere, memory stays bounded, one sentence comes back.

The corpus is made by `hostile_pickles` and `hostile_files`; every file is given to the command line in a process of its
own (`hostile_worker`), which has a limit of memory and an eye on what is opened and started.
"""

import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, hostile_programs
from helpers import hostile_files as files
from helpers import hostile_pickles as pickles
from helpers.hostile_worker import HEADROOM

pytestmark = pytest.mark.slow
warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
WORKER = ROOT / "tests/helpers/hostile_worker.py"
LONGEST = 1200
"""Characters of a sentence; what a file holds must not flood the terminal."""


class Corpus:
    """Hostile files of one family in a folder, with the command that each is for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cases = folder, []

    @property
    def canary(self) -> Path:
        return self.folder / "canary" / "ran"

    def place(self, kind: str, name: str, suffix: str) -> Path:
        path = self.folder / f"{len(self.cases)}{suffix}"
        self.cases.append((f"{kind}: {name}", kind, str(path)))
        return path

    def write(self, kind: str, name: str, suffix: str, data: bytes) -> None:
        self.place(kind, name, suffix).write_bytes(data.replace(b"CANARY", str(self.canary).encode()))


def pickled(corpus):
    for kind in ("records", "target"):
        bombs = pickles.executing(corpus.canary)
        held = {name: pickles.COLUMNS | {"x": bomb} for name, bomb in bombs.items()}
        held |= {"outermost": bombs["os.system"], "a key": {"x": {bombs["os.system"]: 1}}}
        for name, value in held.items():
            for zipped in (True, False):
                path = corpus.place(kind, f"{name}, zip {zipped}", ".pt")
                torch.save(value, path, _use_new_zipfile_serialization=zipped)
        for name, body in pickles.bodies(corpus.canary).items():
            pickles.zipped(corpus.place(kind, name, ".pt"), body)
            pickles.legacy(corpus.place(kind, f"{name}, old form", ".ckpt"), body)


def lying_tensors(corpus):
    for name, body in pickles.tensors().items():
        listed = pickles.listed(body, body)
        pickles.zipped(corpus.place("records", name, ".pt"), pickles.records(imgs=body))
        pickles.legacy(corpus.place("records", f"list of {name}, old form", ".pt"), pickles.records(imgs=listed))
        pickles.zipped(corpus.place("records", f"ids of {name}", ".pt"), pickles.records(ids=body))
        for key, write in (("fc.weight", pickles.zipped), ("conv1.weight", pickles.legacy)):
            write(corpus.place("target", f"{key} of {name}", ".pt"), b"}" + pickles.text(key) + body + b"s")
    shared = b"](" + pickles.tensor((1, 256, 256), count=65536) + b"q\x01" + b"h\x01" * 300_000 + b"e"
    ids = pickles.listed(*(pickles.number(i) for i in range(300_001)))
    path = corpus.place("records", "one image three hundred thousand times", ".pt")
    pickles.zipped(path, pickles.records(ids=ids, imgs=shared), data=bytes(4 * 65536))
    picture = pickles.call("PIL.Image.Image") + pickles.listed(
        b"}", pickles.text("P"), pickles.group(pickles.number(2048), pickles.number(2048)), b"N",
        pickles.call("_codecs.encode", pickles.text("\0" * 2**22), pickles.text("latin1")),
    ) + b"b"  # fmt: skip
    body = b"](" + picture + b"q\x01" + b"h\x01" * 20_000 + b"e"
    ids = pickles.listed(*(pickles.number(i) for i in range(20_001)))
    pickles.zipped(
        corpus.place("records", "one picture twenty thousand times", ".pt"), pickles.records(ids=ids, imgs=body)
    )
    laughs = pickles.listed(pickles.doubled_lists(40), pickles.number(1))
    for column in ("ids", "imgs", "labels", "membership"):
        pickles.zipped(corpus.place("records", f"{column} of 2**40 lists", ".pt"), pickles.records(**{column: laughs}))
    pickles.zipped(corpus.place("target", "2**40 lists", ".pt"), pickles.mapping(a=laughs))
    wide = b"}" + pickles.text("fc.weight") + pickles.tensor((2**28, 1), (0, 0), count=1) + b"s"
    pickles.zipped(corpus.place("target", "2**28 classes", ".pt"), wide)
    resnet = {f"layer{stage}.{block}.{part}": (1,) for stage in (1, 2, 3, 4) for block in (0, 1) for part in ("x",)}
    resnet |= {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv2.weight": (64, 64, 3, 3), "layer4.0.conv1.weight": (1,)}
    resnet["fc.weight"] = (2**27, 1)
    body = (
        b"}(" + b"".join(pickles.text(k) + pickles.tensor(v, (0,) * len(v), count=1) for k, v in resnet.items()) + b"u"
    )
    pickles.zipped(corpus.place("target", "a ResNet of 2**27 classes", ".pt"), body)


def containers(corpus):
    good = pickles.records()
    bomb = pickles.named("posix.system") + pickles.group(pickles.text(f"touch {corpus.canary}")) + b"R"
    for kind in ("records", "target"):
        path = pickles.zipped(corpus.place(kind, "two pickles of one name", ".pt"), good)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a/data.pkl", pickles.PROTOCOL + bomb + b".")
        whole = path.read_bytes()
        corpus.write(kind, "cut in the middle", ".pt", whole[: len(whole) // 2])
        corpus.write(kind, "cut at the end", ".pt", whole[:-7])
        corpus.write(kind, "locked", ".pt", files.forged(whole, flag=1))
        corpus.write(kind, "unknown compression", ".pt", files.forged(whole, method=77))
        corpus.write(kind, "sizes forged", ".pt", files.forged(whole, size=0xFFFFFFFE))
        for order in (b"big", b"middle", b"\xff" * 10, b"x" * 2**20):
            pickles.zipped(corpus.place(kind, f"byte order {order[:6]!r}", ".pt"), bomb, order=order)
        pickles.zipped(
            corpus.place(kind, "torchscript", ".pt"), good, extra={"a/constants.pkl": bomb, "a/code/x.py": b"1"}
        )
        pickles.zipped(corpus.place(kind, "protocol 5", ".pt"), bomb, start=b"\x80\x05")
        pickles.zipped(corpus.place(kind, "no protocol", ".pt"), bomb, start=b"")
        huge = pickles.records(imgs=pickles.tensor((3 * 2**18, 1, 32, 32), count=3 * 2**28))
        path = pickles.zipped(corpus.place(kind, "storage that unfolds to 3 GiB", ".pt"), huge, data=b"", extra=None)
        path.write_bytes(_with_bomb(huge, 3 << 10))
        path = corpus.place(kind, "pickle that unfolds to 3 GiB", ".pt")
        path.write_bytes(files.unfolding("a/data.pkl", 3 << 10, pickles.PROTOCOL + b"X\xff\xff\xff\xff"))
        corpus.write(kind, "zip behind a pickle", ".pt", pickles.PROTOCOL + bomb + b"." + whole)
        corpus.write(kind, "pickle alone", ".pt", pickles.PROTOCOL + bomb + b".")
        corpus.write(kind, "zip of a zip", ".pt", files.packed({"a/data.pkl": whole}))
        corpus.write(kind, "empty", ".pt", b"")
        corpus.write(kind, "a folder's name", ".pt", b"PK\x05\x06" + bytes(18))
        os.mkfifo(corpus.place(kind, "fifo", ".pt"))
        corpus.place(kind, "link to nothing", ".pt").symlink_to("/nonexistent")
        corpus.place(kind, "endless device", ".pt").symlink_to("/dev/zero")
        corpus.place(kind, "name with a line end\n\x1b[2J", "\n\x1b[2J.pt").write_bytes(b"x")


def _with_bomb(body, size):
    data = files.unfolding("a/data/0", size)
    with zipfile.ZipFile(stream := files.io.BytesIO(data), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickles.PROTOCOL + body + b".")
        archive.writestr("a/version", b"3\n")
    return stream.getvalue()


def arrays(corpus):
    evil = np.array([pickles.Calls(os.system, f"touch {corpus.canary}"), None], dtype=object)
    for name, data in files.arrays(evil).items():
        corpus.write("records", name, ".npz", data)
    corpus.write("records", "ids beyond number", ".npz", files.many_ids())
    for name, data in files.safetensors().items():
        for kind in ("records", "target"):
            corpus.write(kind, name, ".safetensors", data)


def archives(corpus):
    outside = corpus.folder / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(files.PIXEL)
    for name, data in files.archives(outside).items():
        corpus.write("records", name, name[name.index(".") :], data)


def tables(corpus):
    for name, data in files.tables().items():
        folder = corpus.folder / str(len(corpus.cases))
        files_in(folder, files.NAMED)
        corpus.cases.append((f"records: {name}", "records", str(folder / "t.csv")))
        (folder / "t.csv").write_bytes(data)
    for size, start in ((10 * files.GIB, b"id\n1"), (255 << 20, b"id,label")):
        sparse(corpus.place("records", f"a line of {size} bytes", ".csv"), start, size)


def images(corpus):
    for name, data in files.images().items():
        for index in (1, 2):
            good = {
                f"{index}.png": data.replace(b"CANARY", str(corpus.canary).encode()),
                f"{3 - index}.png": files.PIXEL,
            }
            corpus.write("records", f"{name} as image {index}", ".zip", files.packed({"t.csv": files.TABLE, **good}))


def configurations(corpus):
    for name, data in files.configurations(corpus.canary).items():
        corpus.write("config", name, ".yaml", data)
    sparse(corpus.place("config", "10 GiB", ".yaml"), b"seed: 1", 10 * files.GIB)
    corpus.place("config", "endless device", ".yaml").symlink_to("/dev/zero")


def scores(corpus):
    for name, data in files.scores().items():
        for kind in ("scores", "key", "submission"):
            corpus.write(kind, name, ".csv", data)
    for kind in ("scores", "key", "submission"):
        for start in (b"id", b"id,membership,score\n1,1,0"):
            sparse(corpus.place(kind, f"10 GiB after {start[:4]!r}", ".csv"), start, 10 * files.GIB)
        corpus.place(kind, "endless device", ".csv").symlink_to("/dev/zero")


def files_in(folder, contents):
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def sparse(path, start, size):
    """Write a file that claims `size` bytes and takes none on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def programs(corpus):
    for name, data in hostile_programs.programs(str(corpus.canary)).items():
        corpus.write("target", name, ".pt2", data)


FAMILIES = {
    f.__name__: f
    for f in (pickled, lying_tensors, containers, arrays, archives, tables, images, configurations, scores, programs)
}
HARMLESS = {
    "records: UTF-16",  # read, with a note where the delimiter is not a comma
    "records: label of digits of another script",  # a class's name
    "records: id 7",  # blanks around an id are removed
    "records: storage of an exabyte",  # the tensor is in the bytes that are there; the count next to them is not read
    "records: storage of another type",  # four-byte numbers in a record that is called eight-byte
    "records: same name twice",  # in the header of a .safetensors file, with the same content
    *(f"records: more rows than it says as image {index}" for index in (1, 2)),  # the rows that it says are read
    "scores: labels of times",  # classes by any name
    *(f"{kind}: {name} of times" for kind in ("key", "submission") for name in ("labels", "scores")),
    "target: a sample that is a pickle",  # these four are never read
    "target: guards that are code",
    "target: a call that is code",
    "target: notes that are code",
    "target: padding of 2**40",  # told of when images meet it
    "target: a weight on a device of code",  # all is read for the CPU
    "target: a compiled library",  # left where it is
    "key: scores of nothing",  # a key's other columns are not looked at
}
"""What is odd but right for the command that it is given to."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, task):
    """Write the whole corpus and run it; return the corpora and the reports by family and name."""
    folder = tmp_path_factory.mktemp("hostile")
    corpora = {}
    for family, fill in FAMILIES.items():
        corpora[family] = Corpus(folder / family)
        corpora[family].canary.parent.mkdir(parents=True)
        fill(corpora[family])
    cases = [(f"{family}/{name}", kind, path) for family, c in corpora.items() for name, kind, path in c.cases]
    before = {path for path in folder.rglob("*")}
    reports = run_all(cases, task, folder)
    made = {path for path in folder.rglob("*")} - before
    return corpora, reports, [path for path in made if path.relative_to(folder).parts[0] not in ("scratch", "good")]


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_files(family, outcomes):
    corpora, reports, made = outcomes
    corpus = corpora[family]
    found = {name: complain(name, reports[f"{family}/{name}"]) for name, _, _ in corpus.cases}
    wrong = {name: complaints for name, complaints in found.items() if complaints}
    assert not wrong, json.dumps(wrong, indent=1)
    assert not list(corpus.canary.parent.iterdir())
    assert not made


def complain(name, report):
    """Return what is wrong with the outcome of one file."""
    if "died" in report:
        return [f"the process died: {report['died']}"]
    results = []
    lines = report["error"].strip().splitlines()
    last = lines[-1] if lines else ""
    if report["crash"]:
        results.append(report["crash"][-700:])
    elif report["code"] == 0 and name in HARMLESS:
        return []
    elif report["code"] != 2 or not last.startswith("error: "):
        results.append(f"exit code {report['code']}: {report['error'][-300:]!r}")
    if len([line for line in lines if line.startswith("error: ")]) > 1 or "Traceback" in report["error"]:
        results.append(f"more than a sentence: {report['error'][-600:]}")
    if len(last) > LONGEST or not last.isprintable():
        results.append(f"{len(last)} characters: {last[:200]!r}")
    if report["seen"]:
        results.append(f"did {report['seen'][:4]}")
    if report["grown"] > HEADROOM // 2:
        results.append(f"took {report['grown'] >> 20} MiB")
    if report["seconds"] > 20:
        results.append(f"took {report['seconds']:.0f} s")
    return results


def run_all(cases, task, folder):
    """Run every case, in as few processes as survive; return a report by name."""
    from helpers.hostile_good import write_good

    scratch = folder / "scratch"
    scratch.mkdir()
    good = write_good(folder / "good", task)
    reports, left = {}, list(cases)
    while left:
        plan = {"cases": left, "good": good, "scratch": str(scratch), "bad": good["bad"]}
        (folder / "good" / "plan.json").write_text(json.dumps(plan))
        environment = os.environ | {"TMPDIR": str(scratch), "MPLCONFIGDIR": str(scratch), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-B", "-W", "ignore", str(WORKER), str(folder / "good" / "plan.json")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=scratch, timeout=600)
            code, output, error = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as late:
            code, output, error = "too slow", (late.stdout or b"").decode(), ""
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        for line in lines:
            if "start" in line:
                reports[line["start"]] = {"died": f"{code} {error[:500]}"}
            else:
                reports[line["name"]] = line
        assert lines, error
        left = [case for case in left if case[0] not in reports]
    return reports
