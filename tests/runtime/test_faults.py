"""Commands that are killed, interrupted, run twice at once, or run on a disk that is full or cannot be written."""

import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.forked import Forked, python
from helpers.runner import make_audit, reference_options, wait_for

from mia_lightning.runtime.locks import Lock


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    return make_audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def whole(audit, tmp_path_factory):
    """The folder of a run that nothing disturbed, with a store of its own."""
    output = tmp_path_factory.mktemp("whole") / "run"
    ((code, stderr),) = audit.serve([{"arguments": audit.arguments(output)}])
    assert code == 0, stderr
    return output


def files(folder):
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name
    }


def assert_equal_runs(one, other):
    assert files(one) == files(other)
    assert_equal_scores(one, other)


def assert_equal_scores(one, other):
    for name in ("submission.csv", "scores.csv", "records.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


# ---- kill -9


def test_run_resumes_after_kill(audit, whole, tmp_path):
    stations = [
        "19-20.safetensors",
        "outputs.safetensors",
        "outputs.json",
        "submission.csv",
        "metrics.json",
        "records.csv",
        "report.html",
    ]
    output = tmp_path / "run"
    jobs = [{"arguments": audit.arguments(output), "kill_before": name} for name in stations]
    *killed, (code, stderr) = audit.serve([*jobs, {"arguments": audit.arguments(output)}])
    assert [code for code, _ in killed] == [-signal.SIGKILL] * len(stations)
    assert "ended without finishing" in stderr
    assert code == 0, stderr
    assert_equal_runs(output, whole)
    assert files(tmp_path / ".store") == files(whole.parent / ".store")


@pytest.mark.extended
def test_run_resumes_after_kill_at_random_moment(audit, whole, tmp_path):
    process = audit.start(tmp_path / "run")
    time.sleep(random.uniform(1, 8))
    process.kill()
    process.wait()
    ((code, stderr),) = audit.serve([{"arguments": audit.arguments(tmp_path / "run")}])
    assert code == 0, stderr
    assert_equal_runs(tmp_path / "run", whole)


def test_run_with_references_resumes_after_kills(audit, tmp_path):
    """The same command gives the same bytes after kill -9 at two known and three random moments."""
    options = reference_options(audit)
    whole, cut = ({"arguments": audit.arguments(tmp_path / name / "run", *options)} for name in ("whole", "cut"))
    started = time.perf_counter()
    ((code, printed),) = audit.serve([whole])
    assert code == 0, printed
    seconds = time.perf_counter() - started
    kills = [{"kill_before": name} for name in ("0001.checkpoint", "0002.json")]
    kills += [{"kill_after": random.uniform(0.05, seconds / 4)} for _ in range(3)]
    *killed, (code, printed) = audit.serve([*(cut | kill for kill in kills), cut])
    assert [code for code, _ in killed[:2]] == [-signal.SIGKILL] * 2
    assert code == 0, printed
    assert_equal_runs(tmp_path / "cut" / "run", tmp_path / "whole" / "run")
    assert_equal_references(tmp_path / "cut", tmp_path / "whole")


def assert_equal_references(one, other):
    assert (one / "run" / "references.csv").read_bytes() == (other / "run" / "references.csv").read_bytes()
    paths = [sorted(folder.glob(".store/references/*/phi-*/phi.float32")) for folder in (one, other)]
    assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]
    assert len(paths[0]) == 1


def test_evaluate_resumes_after_kill(audit, whole, tmp_path):
    output = tmp_path / "evaluation"
    arguments = [str(whole / "scores.csv"), "--resamples", "100"]
    job = {"command": "evaluate", "arguments": [*arguments, "--output", str(output)]}
    undisturbed = {"command": "evaluate", "arguments": [*arguments, "--output", str(tmp_path / "undisturbed")]}
    stations = ["records.csv", "report.html", "audit_card.md", "metrics.json"]
    jobs = [job | {"kill_before": name} for name in stations]
    *killed, (code, stderr), (other, _) = audit.serve([*jobs, job, undisturbed])
    assert [code for code, _ in killed] == [-signal.SIGKILL] * len(stations)
    assert (code, other) == (0, 0), stderr
    assert files(output) == {"records.csv", "report.html", "audit_card.md", "metrics.json"}
    for name in files(output):
        assert (output / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


# ---- SIGTERM and SIGINT


SLOW = """
import sys, time
from mia_lightning import cli
from mia_lightning.outputs import extraction, shards
step = extraction.InferenceModule.predict_step
def slow(self, *arguments):
    time.sleep(0.5)
    return step(self, *arguments)
extraction.InferenceModule.predict_step, shards.SHARD_BYTES = slow, 1
sys.exit(cli.train(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "devices"),
    [
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.extended),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.extended),
        (signal.SIGUSR1, 1),
        (signal.SIGTERM, 2),
    ],
)
def test_signal_during_extraction(audit, whole, tmp_path, number, devices):
    (tmp_path / "slow.py").write_text(SLOW)
    options = ["--hardware.devices", str(devices), "--hardware.strategy", "ddp" if devices > 1 else "auto"]
    command = [tmp_path / "slow.py", *audit.arguments(tmp_path / "run", *options)]
    process = Forked(python(command), env=audit.environment, start_new_session=True)
    wait_for(lambda: list(tmp_path.glob(".store/*/*/shards/*.safetensors")), process)
    process.send_signal(number)
    stderr = process.communicate()[1]
    assert process.returncode == 128 + number, stderr
    assert f"interrupted ({number.name}); rerun the same command to resume" in stderr
    assert "Traceback" not in stderr
    wait_for(lambda: not others_of_session(process.pid))
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / "run" / ".lock").exists()
    if (number, devices) == (signal.SIGTERM, 1):
        ((code, stderr),) = audit.serve([{"arguments": audit.arguments(tmp_path / "run", *options)}])
        assert code == 0, stderr
        assert "records already extracted" in stderr
        assert_equal_runs(tmp_path / "run", whole)


HELPER = """
import os, signal, sys, time
from pathlib import Path
from mia_lightning import cli
from mia_lightning.outputs import extraction, shards
step = extraction.InferenceModule.predict_step
fault, rank = os.environ["FAULT"], os.environ.get("LOCAL_RANK", "0")
if fault == "absent" and rank == "1":
    sys.exit(0)
def faulty(self, batch, *arguments):
    answers = step(self, batch, *arguments)
    if fault == "nan" and rank == "1":
        answers["logits"][-1] = float("nan")
    if fault == "killed" and rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "orphan" and rank == "1":
        time.sleep(0.2)
    if fault == "orphan" and rank == "0" and list(Path(os.environ["STORE"]).glob("*/*/shards/*")):
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == "0":
        time.sleep(0.5)
    return answers
extraction.InferenceModule.predict_step, shards.SHARD_BYTES = faulty, 1
sys.exit(cli.train(sys.argv[1:]))
"""


def run_with_faulty_helper(audit, folder, fault):
    (folder / "faulty.py").write_text(HELPER)
    options = ["--hardware.devices", "2", "--hardware.strategy", "ddp"]
    command = [folder / "faulty.py", *audit.arguments(folder / "run", *options)]
    environment = {**audit.environment, "FAULT": fault, "STORE": str(folder / ".store")}
    process = Forked(python(command), env=environment, start_new_session=True)
    stderr = process.communicate()[1]
    wait_for(lambda: not others_of_session(process.pid))
    return process.returncode, stderr


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param("nan", "NaN or infinite logits for record", marks=pytest.mark.extended),
        pytest.param(
            "absent",
            "process 2 of 2 ended with exit code 0; rerun the same command to resume",
            marks=pytest.mark.extended,
        ),
        ("killed", "process 2 of 2 was killed (SIGKILL), probably out of memory; rerun the same command to resume"),
    ],
)
def test_worker_error_propagates(audit, tmp_path, fault, sentence):
    code, stderr = run_with_faulty_helper(audit, tmp_path, fault)
    assert code == 2, stderr
    assert stderr.count("error: ") == 1
    assert sentence in stderr
    assert "Traceback" not in stderr


@pytest.mark.extended
def test_workers_exit_with_main_process(audit, whole, tmp_path):
    code, stderr = run_with_faulty_helper(audit, tmp_path, "orphan")
    assert code == -signal.SIGKILL, stderr
    ((code, stderr),) = audit.serve([{"arguments": audit.arguments(tmp_path / "run", "--hardware.devices", "1")}])
    assert code == 2  # another configuration
    code, stderr = run_with_faulty_helper(audit, tmp_path, "none")
    assert code == 0, stderr
    assert "records already extracted" in stderr
    assert_equal_scores(tmp_path / "run", whole)


def others_of_session(session):
    results = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != session:
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                results.append(entry.name)
    return results


# ---- two at once


def test_locked_folder_error_message(audit, whole, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    lock = Lock(output / ".lock")
    assert lock.acquire()
    evaluation = {"command": "evaluate", "arguments": [str(whole / "scores.csv"), "--output", str(output)]}
    for code, stderr in audit.serve([{"arguments": audit.arguments(output)}, evaluation]):
        assert code == 2
        assert f"another run (process {os.getpid()} on " in stderr
        assert "wait for it, or name another --output" in stderr
    lock.release()
    assert not (output / ".lock").exists()


@pytest.mark.extended
def test_concurrent_runs_extract_once(audit, whole, tmp_path):
    store = ["--cache_dir", str(tmp_path / "store")]
    (tmp_path / "slow.py").write_text(SLOW)
    processes = [
        Forked(python([tmp_path / "slow.py", *audit.arguments(tmp_path / name, *store)]), env=audit.environment)
        for name in "ab"
    ]
    stderr = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], stderr
    assert sum("extracted" in text for text in stderr) == 1
    assert (tmp_path / "a" / "scores.csv").read_bytes() == (tmp_path / "b" / "scores.csv").read_bytes()
    assert (tmp_path / "a" / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()


# ---- disks


SIZES = ["4k", "16k", "48k", "80k"]
STORE_SIZES = ["8k", "24k"]


@pytest.fixture(scope="module")
def on_disks(audit, whole, tmp_path_factory):
    """What commands say whose folders are small disks of their own, which other processes do not see."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not permit mounting a file system")
    folder = tmp_path_factory.mktemp("disks")
    known = ["--cache_dir", str(whole.parent / ".store")]
    jobs, mounts = {}, []
    for size in (*SIZES, *STORE_SIZES, "fixed"):
        disk = folder / size
        disk.mkdir()
        mounts.append(f"mount -t tmpfs -o size={'1m' if size == 'fixed' else size} tmpfs {disk}")
        jobs["output", size] = audit.arguments(disk / "run", *known)
        jobs["store", size] = audit.arguments(folder / f"run-{size}", "--cache_dir", str(disk / "store"))
    mounts += [f"mkdir {folder}/fixed/run", f"mount -o remount,ro {folder}/fixed"]
    jobs["new output", "fixed"] = audit.arguments(folder / "fixed" / "new", *known)
    wanted = [(what, size) for what, size in jobs if size in {"output": SIZES, "store": STORE_SIZES}.get(what, [])]
    wanted += [key for key in jobs if "fixed" in key]
    results = audit.serve([{"arguments": jobs[key], "mounts": mounts} for key in wanted])
    assert not list(folder.glob("run-*"))  # a run that fails takes its own folder away
    return dict(zip(wanted, results, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_full_disk_of_run_folder(on_disks, size):
    code, stderr = on_disks["output", size]
    assert code == 2, stderr
    assert "Traceback" not in stderr
    assert "No space left on device; free space" in stderr


@pytest.mark.parametrize("size", STORE_SIZES)
def test_full_disk_of_store(on_disks, size):
    code, stderr = on_disks["store", size]
    assert code == 2, stderr
    assert "Traceback" not in stderr
    assert "into the store: No space left on device; free space, or name another --cache_dir" in stderr


@pytest.mark.parametrize("what", ["output", "new output", "store"])
def test_unwritable_folder_error_message(on_disks, what):
    code, stderr = on_disks[what, "fixed"]
    assert code == 2, stderr
    assert "Traceback" not in stderr
    assert "Read-only file system" in stderr


# ---- clocks


def test_no_result_depends_on_the_clock(tmp_path, monkeypatch):
    from helpers.extraction import CPU, extract

    honest, _ = extract(tmp_path / "a")
    clock = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock, 0)))  # runs backwards
    monkeypatch.setattr(time, "time_ns", lambda: next(clock, 0))
    jumping, _ = extract(tmp_path / "b", hardware=replace(CPU))
    np.testing.assert_array_equal(honest.logits, jumping.logits)
    for path in (ROOT / "mia_lightning").rglob("*.py"):
        text = path.read_text().replace("datetime.now(UTC).strftime", "")  # the date that a report shows
        text = text.replace("status.st_mtime_ns", "")  # compared with itself: a file that changes during a run
        for word in ("time.time(", "datetime.now", "st_mtime", "utcnow", "import time\n"):
            assert word not in text, f"{path.name} reads the clock of the day; durations are by perf_counter"


# ---- what is said and shown to others


def test_run_folder_has_no_machine_paths(audit, whole, tmp_path):
    places = {str(audit.folder).encode(), str(whole.parent).encode(), str(ROOT).encode(), str(Path.home()).encode()}
    checked = 0
    for path in whole.rglob("*"):
        if path.is_file():
            checked += 1
            for index in places - {b"/"}:
                # a relative path may lead through the root of the file system, and is still relative
                assert index not in path.read_bytes().replace(b".." + index, b""), f"{path.name} holds {index}"
    assert checked >= 8
    rerun = ["--config", str(whole / "config.yaml"), "--output", str(tmp_path / "again")]
    ((code, stderr),) = audit.serve([{"arguments": rerun}])
    assert code == 0, stderr
    assert (tmp_path / "again" / "submission.csv").read_bytes() == (whole / "submission.csv").read_bytes()


LISTENING = """
import os, sys
from pathlib import Path
from mia_lightning import cli
from mia_lightning.pipeline import run

def sockets():
    inodes = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            inodes.add(str(entry.readlink()))
        except OSError:
            pass
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes:
                line = " ".join(["socket", table, fields[1], fields[2], fields[3]])
                os.write(2, (line + chr(10)).encode())  # complete lines, though two processes write

from mia_lightning.outputs import extraction
step = extraction.InferenceModule.predict_step
def stepped(self, *arguments):
    sockets()
    return step(self, *arguments)
extraction.InferenceModule.predict_step = stepped

write = run.write_report
def watched(*arguments, **options):
    sockets()
    print("looked", file=sys.stderr)
    return write(*arguments, **options)
run.write_report = watched
sys.exit(cli.train(sys.argv[1:]))
"""


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.extended), 2])
def test_network_sockets(audit, whole, tmp_path, devices):
    (tmp_path / "watched.py").write_text(LISTENING)
    options = ["--hardware.devices", str(devices)]
    command = [tmp_path / "watched.py", *audit.arguments(tmp_path / "run", *options)]
    process = Forked(python(command), env=audit.environment)
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert "looked" in stderr
    addresses = {line.split()[2].partition(":")[0] for line in stderr.splitlines() if line.startswith("socket")}
    assert addresses == (set() if devices == 1 else {"0100007F"})  # 127.0.0.1, as Linux writes it
    assert_equal_scores(tmp_path / "run", whole)


RAY = """
import os, time
from pathlib import Path
from mia_lightning.runtime.ray_cluster import ray_session

with ray_session(None, option="", num_cpus=2) as ray:
    ray.get([ray.remote(lambda: time.sleep(0.5)).remote() for _ in range(2)])
    own = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "stat").read_text().rpartition(")")[2].split()[3] == str(os.getsid(0)):
                own |= {str(file.readlink()) for file in (entry / "fd").iterdir()}
        except OSError:
            pass
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in own and (fields[3] == "0A" or table.startswith("udp")):
                print("listens", fields[1].partition(":")[0], flush=True)
"""


@pytest.mark.slow
def test_ray_listens_on_the_loopback_only(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = Forked(python(["-c", RAY]), env=environment, cwd=tmp_path, start_new_session=True)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    addresses = [line.split()[1] for line in stdout.splitlines() if line.startswith("listens")]
    assert len(addresses) >= 4
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


# ---- the same command, the same bytes

DEMO = """
data: {public: "digits:public", private: "digits:private", mean: [0.31], std: [0.37]}
target: {architecture: "mia_lightning.targets.demo:digits_target"}
references:
  count: 4
  architecture: mia_lightning.targets.demo:digits_network
  queries: 1
  training: {epochs: 4, batch_size: 64, optimizer: adamw, learning_rate: 2.0e-3, schedule: constant, flip: false}
  scores: {lira: {class_path: LiRA}}
attacks:
  lira_threshold: {class_path: Threshold, init_args: {column: lira}}
  mlp: {class_path: MLP, init_args: {columns: ["phi*", loss, "lira*"], hidden: [8], epochs: 2}}
"""


def demo(folder, name, *options):
    """Start the demo with references, shortened, with a store of its own."""
    (folder / "demo.yaml").write_text(DEMO)
    command = [ROOT / "train.py", "--config", folder / "demo.yaml", *options]
    command += ["--output", folder / name, "--cache_dir", folder / f"store-{name}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return Forked(python(command), env=environment, start_new_session=True)


@pytest.mark.slow
@pytest.mark.extended
def test_demo_is_deterministic_across_workers(tmp_path):
    two_devices = ["--hardware.accelerator", "cpu", "--hardware.devices", "2", "--hardware.strategy", "ddp"]
    ways = {"one": ["--references.workers", "1"], "two": ["--references.workers", "2", *two_devices]}
    for name, options in ways.items():
        process = demo(tmp_path, name, *options)
        stderr = process.communicate()[1]
        assert process.returncode == 0, stderr
    expected = (tmp_path / "one" / "submission.csv").read_bytes()
    assert expected.count(b"\n") > 800
    assert (tmp_path / "two" / "submission.csv").read_bytes() == expected


@pytest.mark.slow
def test_signal_ends_ray_workers(tmp_path):
    (tmp_path / "long.yaml").write_text("references: {training: {epochs: 100000}}")
    untrained = ["--target.architecture", "mia_lightning.targets.demo:digits_network"]
    process = demo(tmp_path, "run", "--references.workers", "1", "--config", tmp_path / "long.yaml", *untrained)
    wait_for(lambda: list(tmp_path.glob("store-run/references/*/0000.checkpoint")), process)
    process.send_signal(signal.SIGTERM)
    stderr = process.communicate()[1]
    assert process.returncode == 143, stderr
    assert "interrupted (SIGTERM); rerun the same command to resume" in stderr
    wait_for(lambda: not others_of_session(process.pid))
