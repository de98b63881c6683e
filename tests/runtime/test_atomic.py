"""Atomic writes, output folders and locks: complete or absent, never through a link, never blocking."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from helpers import ROOT
from helpers.runner import wait_for

from mia_lightning.errors import MIAError
from mia_lightning.runtime.atomic import atomic_open, atomic_write, make_folder, write_atomically, write_json
from mia_lightning.runtime.locks import Lock
from mia_lightning.runtime.output_folder import OutputFolder

WRITERS = {"text": lambda path: _write_text(path), "bytes": lambda path: write_atomically(path, b"ours")}


def _write_text(path):
    with atomic_write(path.parent, path.name) as file:
        file.write("ours")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("target", ["victim", "missing"])
def test_link_is_replaced_and_its_target_unchanged(tmp_path, write, target):
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "x.csv").symlink_to(tmp_path / target)
    write(tmp_path / "x.csv")
    assert (tmp_path / "victim").read_text() == "theirs"
    assert not (tmp_path / "missing").exists()
    assert not (tmp_path / "x.csv").is_symlink()
    assert (tmp_path / "x.csv").read_text() == "ours"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_link_at_temporary_name(tmp_path, write):
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / f".x.csv.{os.getpid()}.partial").symlink_to(tmp_path / "victim")
    write(tmp_path / "x.csv")
    assert (tmp_path / "victim").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim", "x.csv"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_fifo_is_replaced(tmp_path, write):
    os.mkfifo(tmp_path / "x.csv")
    write(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "ours"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_folder_in_place_of_file_error_message(tmp_path, write):
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(MIAError, match=r"cannot write x\.csv into .*: Is a directory"):
        write(tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_failed_write_leaves_earlier_file(tmp_path):
    (tmp_path / "x.csv").write_text("earlier")
    with suppress(ZeroDivisionError), atomic_write(tmp_path, "x.csv") as file:
        file.write(str(1 / 0))
    with suppress(KeyboardInterrupt), atomic_open(tmp_path / "x.csv") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "x.csv").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_text_is_utf8_without_translation(tmp_path):
    with atomic_write(tmp_path, "x.csv") as file:
        file.write("ä\n")
    assert (tmp_path / "x.csv").read_bytes() == "ä\n".encode()


def test_linked_folder_error_message(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MIAError, match="is a symbolic link; expected a folder"):
        make_folder(tmp_path / "shards")
    with pytest.raises(MIAError, match="is a symbolic link; expected a folder"):
        write_atomically(tmp_path / "shards" / "x", b"ours")
    assert not list((tmp_path / "elsewhere").iterdir())


# ---- output folders


def test_output_folder_with_linked_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MIAError, match="tensorboard: is a symbolic link to a folder"):
        OutputFolder(str(tmp_path / "run")).atomic_write("x")


def test_output_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    folder = OutputFolder(str(tmp_path / "run"))
    folder.acquire()
    with folder.atomic_write("x") as file:
        file.write("ours")
    folder.release()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["x"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_text("x")], ids=["fifo", "file"])
def test_output_folder_that_is_none(tmp_path, make):
    make(tmp_path / "run")
    with pytest.raises(MIAError, match="output folder"):
        OutputFolder(str(tmp_path / "run"))


def test_incomplete_files_are_removed(tmp_path):
    (tmp_path / ".x.csv.1.partial").write_text("half")
    (tmp_path / ".folder.partial").mkdir()
    folder = OutputFolder(str(tmp_path))
    assert folder.names == []
    folder.acquire()
    folder.release()
    assert [path.name for path in tmp_path.iterdir()] == [".folder.partial"]


# ---- locks


def link_to_victim(path):
    victim = path.with_name("victim")
    victim.write_text("theirs")
    path.symlink_to(victim)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir(), link_to_victim], ids=["fifo", "folder", "link"])
def test_lock_file_of_another_kind(tmp_path, make):
    make(tmp_path / ".lock")
    lock = Lock(tmp_path / ".lock")
    for use in (lock.acquire, lambda: lock.is_locked, lambda: OutputFolder(str(tmp_path))):
        with pytest.raises(MIAError, match=r"\.lock: is not a regular file"):
            use()
    if (tmp_path / "victim").exists():
        assert (tmp_path / "victim").read_text() == "theirs"


def test_lock_ends_with_its_holder(tmp_path):
    script = "import sys, os, signal; from pathlib import Path; from mia_lightning.runtime.locks import Lock\n"
    script += "lock = Lock(Path(sys.argv[1])); assert lock.acquire(); print(os.getpid(), flush=True); signal.pause()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = tmp_path / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    pid = int(process.stdout.readline())
    lock = Lock(path)
    assert lock.is_locked
    assert not lock.acquire()
    assert lock.holder.startswith(f"process {pid} on ")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()  # the file of a killed holder has no effect
    assert not lock.is_locked
    assert lock.acquire()
    assert lock.holder.startswith(f"process {os.getpid()} on ")
    lock.release()
    assert not path.exists()


def test_second_holder_waits(tmp_path, caplog):
    caplog.set_level("INFO", logger="mia_lightning")
    first, order = Lock(tmp_path / "lock"), []
    assert first.acquire()

    def second():
        with Lock(tmp_path / "lock").held("references"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    wait_for(lambda: "waiting for another run" in caplog.text)
    order.append("first")
    first.release()
    thread.join(timeout=30)
    assert order == ["first", "second"]
    assert not (tmp_path / "lock").exists()


def test_one_holder_at_a_time(tmp_path):
    """Releasing removes the file, which must not let two holders in."""
    inside, most = [], []

    def work():
        for _ in range(20):
            lock = Lock(tmp_path / "lock")
            assert lock.acquire(wait=True)
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(most) == 60
    assert max(most) == 1


def test_json_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MIAError, match=r"cannot write plan\.json into .*file"):
        write_json(tmp_path / "file" / "plan.json", {})
