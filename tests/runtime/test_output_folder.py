"""Output folders of runs and evaluations whose files were damaged, altered or replaced since they were written."""

import os
import shutil

import pytest
from helpers.runner import make_audit

from mia_lightning import load_config
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.run_folder import FILES, RunFolder
from mia_lightning.report.files import claimed_folder
from mia_lightning.runtime.atomic import atomic_write
from mia_lightning.runtime.output_folder import OutputFolder

ELSEWHERE = "of another program"


def place(form, path):
    """Replace a file by something else."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if form == "link":
        path.symlink_to(path.parents[1] / "elsewhere")
    elif form == "link to a folder":
        path.symlink_to(path.parents[1] / "other")
    elif form == "dangling link":
        path.symlink_to(path.parents[1] / "nowhere")
    elif form == "fifo":
        os.mkfifo(path)
    elif form == "folder":
        path.mkdir()
    elif form == "binary":
        path.write_bytes(bytes(range(256)))
    elif form == "escapes":
        path.write_text("\x1b]0;title\x07\x1b[31m\n" * 10)
    elif form == "empty":
        path.write_bytes(b"")


FORMS = ["link", "link to a folder", "dangling link", "fifo", "folder", "binary", "escapes", "empty"]


@pytest.fixture
def around(tmp_path):
    """A folder, a file and a folder next to the output that must not change."""
    (tmp_path / "elsewhere").write_text(ELSEWHERE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text(ELSEWHERE)
    yield tmp_path
    assert (tmp_path / "elsewhere").read_text() == ELSEWHERE
    assert (tmp_path / "other" / "file").read_text() == ELSEWHERE
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]
    assert not (tmp_path / "nowhere").exists()


def config_of(tmp_path):
    return load_config("configs/demo.yaml", output=str(tmp_path / "run"))


def write_run(tmp_path):
    """Write a folder with every file of a run."""
    folder = RunFolder(config_of(tmp_path))
    folder.acquire()
    try:
        for name in FILES:
            if name == "tensorboard":
                (folder.path / name).mkdir(exist_ok=True)
            elif name != "config.yaml":
                with folder.atomic_write(name) as file:
                    file.write(f"new {name}")
    finally:
        folder.release()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*FILES, ".lock"])
def test_altered_file_of_a_run(around, name, form):
    """Replaced by the next run, or refused by one sentence before anything is written; nothing is followed."""
    write_run(around)
    place(form, around / "run" / name)
    before = {path: path.lstat().st_mtime_ns for path in (around / "run").iterdir()}
    refusal = ""
    try:
        write_run(around)
    except MIAError as error:
        refusal = str(error)
    if refusal:
        assert name in ("tensorboard", "config.yaml", ".lock") or form in ("folder", "link to a folder")
        assert name in refusal
        assert "\x1b" not in refusal
        assert {path: path.lstat().st_mtime_ns for path in (around / "run").iterdir()} == before
        return
    for written in FILES:
        path = around / "run" / written
        assert not path.is_symlink()
        if written not in ("tensorboard", "config.yaml"):
            assert path.read_text() == f"new {written}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["records.csv", "metrics.json", "report.html", ".lock"])
def test_altered_file_of_an_evaluation(around, name, form):
    names, refusal = ("records.csv", "metrics.json", "report.html"), ""

    def write():
        with claimed_folder(str(around / "run")) as folder:
            for written in names:
                with atomic_write(folder, written) as file:
                    file.write(f"new {written}")

    (around / "run").mkdir()
    for written in names:
        (around / "run" / written).write_text("old")
    place(form, around / "run" / name)
    try:
        write()
    except MIAError as error:
        refusal = str(error)
    if refusal:
        assert form in ("folder", "link to a folder") or name == ".lock"
        assert name in refusal
    else:
        assert {(around / "run" / written).read_text() for written in names} == {f"new {written}" for written in names}


def test_escapes_in_a_lock_are_not_logged(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / ".lock").write_text("\x1b[31mprocess 7\x07")
    folder = OutputFolder(str(tmp_path))
    folder.acquire()
    folder.release()
    assert "process 7" in caplog.text
    assert not {"\x1b", "\x07"} & set(caplog.text)


def test_command_into_an_altered_folder(around):
    """The same command replaces what it finds, or exits with code 2 and one sentence."""
    audit = make_audit(around)
    jobs = [{"arguments": audit.arguments(around / "run")}]
    ((code, printed),) = audit.serve(jobs)
    assert code == 0, printed
    expected = {path.name: path.read_bytes() for path in (around / "run").iterdir() if path.is_file()}
    forms = {"report.html": "link", "roc.svg": "link", "scores.csv": "dangling link"}
    forms |= {"submission.csv": "fifo", "metrics.json": "binary", "records.csv": "empty", "audit_card.md": "escapes"}
    for name, form in forms.items():
        place(form, around / "run" / name)
    event = next((around / "run" / "tensorboard").glob("events*"))
    event.unlink()
    event.symlink_to(around / "elsewhere")
    scores, output = str(around / "run" / "scores.csv"), str(around / "run")
    evaluation = {"command": "evaluate", "arguments": [scores, "--resamples", "100", "--output", output]}
    (code, printed), (refused, _) = audit.serve([*jobs, evaluation])
    assert code == 0, printed
    assert refused == 2
    names = ("submission.csv", "scores.csv", "records.csv", "private_records.csv", "config.yaml")
    assert {name: (around / "run" / name).read_bytes() for name in names} == {name: expected[name] for name in names}
    assert not any(path.is_symlink() for path in (around / "run").rglob("*"))
    place("link to a folder", around / "run" / "tensorboard")
    ((code, printed),) = audit.serve(jobs)
    assert code == 2
    assert "tensorboard: is a symbolic link to a folder; remove it" in printed
    assert "Traceback" not in printed
