"""The example scripts run as they stand."""

import re
import runpy
import sys

import pytest
from helpers import ROOT

EXAMPLES = {
    "challenge.py": ("submission.csv: 898 rows, columns ids, score", "truth, private: AUC 0."),
    "in_memory.py": ("AUC [0.",),
    "hugging_face.py": ("Audit of ViTForImageClassification", "AUC [0."),
    "label_only.py": ("labels alone", "AUC [0."),
    "own_model.py": ("verdict:",),
    "image_folder.py": ("AUC [0.",),
    "table.py": ("forest: AUC [0.",),
    "own_training.py": ("accuracy on their training records: passed", "accuracy on held-out records: passed"),
    "research.py": ("lira_offline     4", "calibration      4"),
}


def test_every_example_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch, capsys):
    arguments = {"research.py": ["4"], "table.py": ["4", "forest"]}.get(name, [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "examples" / name), str(tmp_path), *arguments])
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    printed = capsys.readouterr().out
    for text in EXAMPLES[name]:
        assert text in printed
    intervals = re.findall(r"AUC \[(.*), (.*)\], withheld \[(.*), (.*)\]", printed)
    for low, high, truth_low, truth_high in intervals:  # both are estimates: they have to agree within their errors
        assert float(low) <= float(truth_high)
        assert float(truth_low) <= float(high)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_short(name):
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 60
