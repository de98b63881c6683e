"""The README is true: its commands and code blocks run."""

import re
import shlex
import sys

import numpy as np
import pytest
from helpers import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]


def block_with(text):
    (block,) = [block for block in BLOCKS if text in block]
    return block


def module_from(block, name, folder, monkeypatch):
    (folder / f"{name}.py").write_text(block)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_every_block_is_covered():
    marks = ["load_config", "NearestMean", "feature_sparsity", "my_target", "def matches"]
    assert len(BLOCKS) == len(marks)
    assert all(block_with(mark) for mark in marks)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert f"\n{command.split()[1]}: " in makefile


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python train.py") and "best.yaml" not in c])
def test_commands_run(command, task, tmp_path, monkeypatch):
    """The documented command with its file names, on a small task and a quick overlay."""
    from mia_lightning.cli import train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("pub.pt", "priv_out.pt", "01_MIA.pt"):
        (tmp_path / name).symlink_to(task.folder / name)
    quick = ["--hardware.accelerator", "cpu"]
    if "demo" not in command:
        quick += ["--extraction.queries", "18" if "references" in command else "2"]
    if "references" in command:
        quick += [
            "--references.workers",
            "0",
            "--references.training.epochs",
            "1",
            "--references.training.batch_size",
            "32",
        ]
    assert train([*shlex.split(command)[2:], *quick]) == 0
    assert list(tmp_path.glob("runs/*/submission.csv"))
    assert list(tmp_path.glob("runs/*/report.html"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python tune.py")])
def test_searches_run(command, task, tmp_path, monkeypatch):
    """The documented search, shortened, and the winner's run."""
    from mia_lightning.cli import train, tune

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("pub.pt", "priv_out.pt", "01_MIA.pt"):
        (tmp_path / name).symlink_to(task.folder / name)
    recipe = "--references.training."
    quick = ["--hardware.accelerator", "cpu", "--search.trials", "2", "--search.engine", "local"]
    if "references" in command:
        quick += [f"{recipe}batch_size", "32", f"{recipe}epochs", "1", "--references.workers", "0"]
        quick += ["--search.scheduler", "none", "--search.trials", "1", f"{recipe}precision", "32-true"]
        (tmp_path / "quick.yaml").write_text("search: {space: {references.training.epochs: {low: 1, high: 2}}}")
        quick += ["--config", "quick.yaml"]
    else:
        quick += ["--extraction.queries", "2", "--attacks.mlp.epochs", "1"]
    assert tune([*shlex.split(command)[2:], *quick]) == 0
    (output,) = tmp_path.glob("runs/*/best.yaml")
    winner = [c for c in COMMANDS if c.startswith("python train.py") and str(output.relative_to(tmp_path)) in c]
    assert len(winner) == ("references" not in command)
    for words in map(shlex.split, winner):
        assert train(words[2:]) == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if "mia_lightning.evaluate" in c])
def test_evaluation_commands_run(command, tmp_path, monkeypatch, capsys):
    from mia_lightning.cli import evaluate

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    member = rng.permutation(np.repeat([0, 1], 100))
    columns = "".join(f"{i},{m},{m + rng.normal()}\n" for i, m in enumerate(member))
    for name in ("runs/assignment/scores.csv", "key.csv", "submissions/a.csv", "submissions/b.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "runs/assignment/scores.csv").write_text("id,membership,phi\n" + columns)
    (tmp_path / "key.csv").write_text("ids,membership\n" + "".join(f"{i},{m}\n" for i, m in enumerate(member)))
    for name in "ab":
        rows = "".join(f"{i},{m + rng.normal()}\n" for i, m in enumerate(member))
        (tmp_path / f"submissions/{name}.csv").write_text("ids,score\n" + rows)
    words = shlex.split(command)[3:]
    words = [str(path) for word in words for path in (sorted(tmp_path.glob(word)) if "*" in word else [word])]
    assert evaluate(words) == 0, capsys.readouterr().err
    if "--output" in words:
        names = {path.name for path in (tmp_path / "runs/assignment-evaluation").iterdir()}
        assert names == {"report.html", "audit_card.md", "metrics.json", "records.csv"}


def test_python_block(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    exec(compile(block_with("load_config"), "README", "exec"), {})
    auc = float(re.search(r"AUC ([\d.]+)", capsys.readouterr().out)[1])
    assert 0.5 < auc < 1


def test_attack_block(tmp_path, monkeypatch):
    from mia_lightning.attacks import Attack
    from mia_lightning.config.command_line import load_config
    from mia_lightning.signals.table import SignalTable

    module_from(block_with("NearestMean"), "readme_attack", tmp_path, monkeypatch)
    attacks = {"mine": {"class_path": "readme_attack.NearestMean", "init_args": {"column": "phi"}}}
    attack = load_config(attacks=attacks).attacks["mine"]
    assert isinstance(attack, Attack)
    table = SignalTable({"phi": np.array([0.0, 1.0, 4.0, 5.0])}, np.zeros(4, np.int64), 1)
    scores = attack.fit(table, np.array([0, 0, 1, 1], np.int8)).score(table)
    assert (np.diff(scores) > 0).sum() >= 1
    assert scores[0] < scores[3]


def test_signal_block(tmp_path, monkeypatch):
    from mia_lightning.outputs.outputs import Outputs
    from mia_lightning.signals import build_table

    module_from(block_with("feature_sparsity"), "readme_signal", tmp_path, monkeypatch)
    features = np.array([[0, 0, 1, 1], [0, 0, 0, 1]], np.float32)
    outputs = Outputs(np.zeros((2, 1, 3), np.float32), features, np.empty((2, 0), np.float32), np.zeros(2, np.int64))
    table = build_table(outputs, names=["readme_signal:feature_sparsity"])
    (column,) = table.columns.values()
    np.testing.assert_allclose(column, [0.5, 0.75])


def test_target_block(tmp_path, monkeypatch):
    from mia_lightning.targets import check_fits, load_target

    module_from(block_with("my_target"), "readme_target", tmp_path, monkeypatch)
    target = load_target(None, architecture="readme_target:my_target")
    check_fits(target, (3, 32, 32))
    assert target.num_classes == 10


def test_format_block(tmp_path, monkeypatch):
    from mia_lightning.records.readers import read_records

    module_from(block_with("def matches"), "readme_formats", tmp_path, monkeypatch)
    package = tmp_path / "own"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "numpy_file.py").write_text(block_with("def matches"))
    images = np.zeros((3, 1, 4, 4), np.uint8)
    np.save(tmp_path / "x.npy", images)
    assert (read_records(str(tmp_path / "x.npy"), reader="own.numpy_file").images == images).all()
