"""The extensions of docs/extending.md, pasted into the place they name: one file each, and every check stays green."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT
from helpers.forked import Forked, python

PAGE = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r'```python title="([^"]+)"\n(.*?)```', PAGE, flags=re.DOTALL))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with the five files added."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("mia_lightning", "tests", "configs", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "train.py", "tune.py", "README.md", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    for name, source in FILES.items():
        assert not (folder / name).exists()
        (folder / name).write_text(source)
    return folder


def run(checkout, *command):
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    process = Forked(python(command, fresh=True), cwd=checkout, env=environment)
    return process.wait(), "".join(process.communicate())


def test_there_is_one_example_of_each_kind():
    folders = {name.rpartition("/")[0].removeprefix("mia_lightning/") for name in FILES}
    assert folders == {"attacks", "signals", "targets", "records/readers", "references/scores"}


@pytest.mark.slow
@pytest.mark.parametrize("check", ["mypy", "ruff check", "ruff format --check"])
def test_package_and_examples_pass_the_checks(checkout, check):
    """The only check of types in `make test`; its cache is that of the checkout, as files are compared by content."""
    words = ["mypy", "--cache-dir", ROOT / ".mypy_cache"] if check == "mypy" else [*check.split(), *FILES]
    done = subprocess.run([sys.executable, "-m", *words], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


CONTRACTS = [
    *("test_layers.py", "attacks/test_attacks.py", "signals/test_signals.py", "references/scores/test_contracts.py"),
    *("records/readers/test_readers.py", "targets/test_contract.py"),
]
SELECTED = "imports or length or direction or NearestMean or logit_range or MedianGap or npy or format or linear"
"""Tests that an added file changes."""


@pytest.mark.slow
def test_contract_tests_stay_green(checkout):
    paths = [f"tests/{name}" for name in CONTRACTS]
    code, printed = run(checkout, "-m", "pytest", "-vv", "-p", "no:cacheprovider", *paths, "-k", SELECTED)
    assert code == 0, printed[-3000:]
    for name in ("NearestMean", "logit_range", "MedianGap", "npy", "linear"):
        assert name in printed


@pytest.mark.slow
def test_extensions_run_together(checkout, tmp_path):
    config = """
data: {public: "digits:public", mean: [0.31], std: [0.37]}
target: {architecture: "mia_lightning.targets.demo:digits_network"}
extraction: {queries: 1}
signals: {names: [phi, logit_range]}
references:
  count: 4
  architecture: mia_lightning.targets.demo:digits_network
  training: {epochs: 2, batch_size: 64, flip: false}
  scores: {gap: {class_path: MedianGap}}
attacks:
  nearest: {class_path: NearestMean, init_args: {column: gap}}
  spread: {class_path: Threshold, init_args: {column: logit_range}}
submission: {attack: nearest}
"""
    (tmp_path / "mine.yaml").write_text(config)
    code, printed = run(checkout, "train.py", "--config", tmp_path / "mine.yaml", "--output", tmp_path / "run")
    assert code == 0, printed
    assert "nearest" in printed
    assert "Signal that is compared" in run(checkout, "train.py", "--attacks.help", "NearestMean")[1]
