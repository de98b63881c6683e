"""The benchmark for graphics cards, rehearsed on the CPU so that it runs when a card appears."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT
from helpers.forked import Forked, python

from benchmarks import gpu


def rehearsed(tmp_path, *options):
    output = tmp_path / "gpu.json"
    command = python([ROOT / "benchmarks/gpu.py", "--rehearse", "--output", output, *options])
    process = Forked(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert process.wait() == 0, process.stderr.read()[-3000:]
    content = json.loads(output.read_text())
    assert not [row for row in content["rows"] if row["value"] == "failed"]
    assert not [row for row in content["rows"] if "NOT" in row["note"]]
    return content


@pytest.mark.slow
def test_rehearsal(tmp_path):
    listed = set(gpu.SECTIONS) - {"devices"}
    content = rehearsed(tmp_path, "--only", *sorted(listed, key=list(gpu.SECTIONS).index))
    assert {"date", "devices", "driver", "torch", "rehearsal"} <= set(content)
    sections = {row["section"] for row in content["rows"]}
    assert sections == listed
    values = {(row["section"], row["name"]): row for row in content["rows"]}
    gaps = [row for (section, name), row in values.items() if section == "equality" and name.startswith("largest")]
    assert len(gaps) == 3
    assert values["training", "difference of the last mean loss of the two"]["value"] == 0  # recorded and not
    assert values["memory", "largest difference of a logit after halving"]["value"] < 1e-3
    assert "of the roofline" in values["extraction", "resnet18, CIFAR stem, 16x16, bf16-mixed"]["note"]


@pytest.mark.extended
def test_two_processes_stand_in_for_devices(tmp_path):
    rows = {row["name"]: row for row in rehearsed(tmp_path, "--only", "devices")["rows"]}
    assert rows["outputs"]["value"] == "equal"
    assert rows["difference of the references' last mean losses"]["value"] == 0
    assert any(name.startswith("references, one on each of 2 devices") for name in rows)


@pytest.mark.parametrize("failing", gpu.SECTIONS)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), SystemExit(0)])
def test_sections_survive_the_failure_of_another(failing, error, monkeypatch):
    def section(name):
        def rows(bench):
            assert not torch.backends.cuda.matmul.allow_tf32  # as the section before has found it
            torch.backends.cuda.matmul.allow_tf32 = True
            yield gpu.Row(name, "value", 1.0)
            if name == failing:
                raise error

        return rows

    monkeypatch.setattr(gpu, "SECTIONS", {name: section(name) for name in gpu.SECTIONS})
    rows = list(gpu.measure(gpu.Bench("cpu", True, float("inf"), None), list(gpu.SECTIONS)))
    assert [row.section for row in rows if row.value == 1] == list(gpu.SECTIONS)
    assert [row.section for row in rows if row.value == "failed"] == [failing]


def test_new_process_goes_on_after_an_error_that_leaves_the_device_unusable(monkeypatch):
    def run(command, **_):
        assert command[command.index("--only") + 1 :] == ["peaks", "memory", "scoring"]
        rows = [{"section": name, "name": "value", "value": 2.0} for name in ("peaks", "memory")]  # then it is killed
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"rows": rows}))
        return SimpleNamespace(returncode=-9)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(gpu.Bench, "is_usable", lambda _: False)
    monkeypatch.setitem(gpu.SECTIONS, "training", lambda _: 1 / 0)
    bench = gpu.Bench("cpu", True, gpu.perf_counter() + 60, None)
    rows = [(row.section, row.value) for row in gpu.measure(bench, ["training", "memory", "scoring"])]
    assert rows == [("training", "failed"), ("memory", 2.0), ("scoring", "failed")]


def test_without_a_card_it_is_one_sentence(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    process = Forked(python([ROOT / "benchmarks/gpu.py"]), cwd=tmp_path, env=environment)
    assert process.wait() == 2
    stderr = process.stderr.read()
    assert "no CUDA device is visible" in stderr
    assert "Traceback" not in stderr
