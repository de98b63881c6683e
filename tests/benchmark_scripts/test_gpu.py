"""The benchmark for graphics cards, rehearsed on the CPU so that it runs when a card appears."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_rehearsal(tmp_path):
    output = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--rehearse", "--output", str(output)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads(output.read_text())
    assert {"date", "devices", "driver", "torch", "rehearsal"} <= set(content)
    sections = {row["section"] for row in content["rows"]}
    assert sections == {"peaks", "equality", "extraction", "training", "memory", "devices", "replica"}
    assert not [row for row in content["rows"] if row["value"] == "failed"]
    gaps = [row for row in content["rows"] if row["name"].startswith("largest difference of a logit")]
    assert len(gaps) == 3
    assert all(row["note"].startswith("equal") for row in gaps)


def test_without_a_card_it_is_one_sentence(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "no CUDA device is visible" in done.stderr
    assert "Traceback" not in done.stderr
