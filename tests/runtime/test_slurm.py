"""The sbatch file of the examples, run by stand-ins of SLURM's and Ray's commands."""

import os
import signal
import subprocess
import time

import pytest
from helpers import ROOT

STUBS = {
    "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\n" || echo "$@" > requeued',
    "srun": 'shift; exec "$@"',
    "ray": 'echo "$@" > ray_arguments; while [ "$1" != -- ]; do shift; done; shift; "$@"; exit $?',
    "mia-train": (
        'echo "$@" > options; trap "exit 138" USR1; touch started; '
        'for i in $(seq "$SECONDS_OF_WORK"); do sleep 0.1; done; exit "$ENDS_WITH"'
    ),
}


@pytest.fixture
def start(tmp_path):
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def start(code, tenths):
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "TMPDIR": str(tmp_path),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_ID": "77",
            "SLURM_CPUS_PER_TASK": "3",
            "ENDS_WITH": str(code),
            "SECONDS_OF_WORK": str(tenths),
        }
        script = str(ROOT / "examples" / "slurm_ray.sbatch")
        return subprocess.Popen(["bash", script, "--config", "a b"], cwd=tmp_path, env=environment)

    return start


@pytest.mark.parametrize("code", [0, 2])
def test_sbatch_runs_the_command(start, tmp_path, code):
    assert start(code, 0).wait(timeout=30) == code
    assert (tmp_path / "options").read_text() == "--config a b --ray.address auto\n"
    arguments = (tmp_path / "ray_arguments").read_text()
    assert arguments.startswith("symmetric-run --address node1:6379 --min-nodes 2 --num-cpus 3 -- ")
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_sbatch_requeues_after_a_signal(start, tmp_path, number):
    process = start(0, 300)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=30) == 138
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    assert not (tmp_path / "mia-driver-77").exists()
