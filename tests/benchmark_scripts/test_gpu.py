"""The benchmark for graphics cards, rehearsed on the CPU so that it runs when a card appears."""

import json
import os

import pytest
from helpers import ROOT
from helpers.forked import Forked, python


@pytest.mark.slow
def test_rehearsal(tmp_path):
    output = tmp_path / "gpu.json"
    command = python([ROOT / "benchmarks/gpu.py", "--rehearse", "--output", output])
    process = Forked(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.wait(600) == 0, process.stderr.read()[-3000:]
    content = json.loads(output.read_text())
    assert {"date", "devices", "driver", "torch", "rehearsal"} <= set(content)
    sections = {row["section"] for row in content["rows"]}
    listed = {"peaks", "equality", "extraction", "training", "memory", "devices", "replica", "several", "compiled"}
    assert sections == listed
    assert not [row for row in content["rows"] if row["value"] == "failed"]
    values = {(row["section"], row["name"]): row for row in content["rows"]}
    gaps = [row for (section, name), row in values.items() if section == "equality" and name.startswith("largest")]
    assert len(gaps) == 3
    assert all(row["note"].startswith("equal") for row in gaps)
    assert values["training", "difference of the last mean loss of the two"]["value"] == 0  # recorded and not
    assert values["memory", "largest difference of a logit after halving"]["value"] < 1e-3
    assert values["several", "1 references at a time, without NVIDIA MPS"]["note"] == ""


def test_without_a_card_it_is_one_sentence(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    process = Forked(python([ROOT / "benchmarks/gpu.py"]), cwd=tmp_path, env=environment)
    assert process.wait(60) == 1
    stderr = process.stderr.read()
    assert "no CUDA device is visible" in stderr
    assert "Traceback" not in stderr
