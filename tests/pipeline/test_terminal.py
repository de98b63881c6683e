"""Printed tables at any width, and hints that run when they are pasted into a shell."""

import io
import shlex
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from mia_lightning import MIAError, load_config
from mia_lightning.config import invocation
from mia_lightning.metrics.roc import evaluate
from mia_lightning.pipeline.run_folder import RunFolder
from mia_lightning.pipeline.terminal import evaluation_tables, print_next_commands, print_result
from mia_lightning.report.terminal import figures_table
from mia_lightning.runtime.output_folder import next_free_folder

NAMES = ("published_offline_fixed_variance_threshold", "a", "[red]brackets[/red]")


def evaluations(fprs=(0.00001, 0.0001, 0.001, 0.01, 0.05, 0.1)):
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, 400).astype(np.int8)
    return [(name, evaluate(rng.normal(size=400) + member, member, fprs=fprs)) for name in NAMES]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_tables_cut_no_name_and_no_digit(width):
    console = Console(file=io.StringIO(), width=width)
    rows = evaluations()
    for table in evaluation_tables("public records, out-of-fold", rows, width):
        console.print(table)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for name, evaluation in rows:
        assert f"{evaluation.auc:.4f}" in text
        assert f"{evaluation.auc_low:.3f}-{evaluation.auc_high:.3f}" in text
        for point in evaluation.points:
            assert f"{point.tpr:.4f}" in text
            assert f"{point.low:.3f}-{point.high:.3f}" in text
        first_cells = "".join(line[: text.splitlines()[3].find("AUC")].strip() for line in text.splitlines())
        assert name in first_cells.replace(" ", "") or name in text


@pytest.mark.parametrize("width", [80, 120])
def test_figures_of_an_attack_cut_no_digit(width):
    console = Console(file=io.StringIO(), width=width)
    member = np.repeat(np.array([0, 1], np.int8), 150)
    evaluation = evaluate(member + np.linspace(0, 0.5, 300), member, fprs=(0.01, 0.1))
    console.print(figures_table("score", evaluation))
    text = console.file.getvalue()
    assert "…" not in text
    for point in evaluation.points:
        assert f"{point.low:.4f}-{point.high:.4f}" in text


def hints(output, capsys, monkeypatch, argv0="train.py", **options):
    monkeypatch.setattr(sys, "argv", [argv0])
    config = load_config(output=str(output), **options)
    print_next_commands(config, ["submission.csv", "scores.csv"], Console(width=80))
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["run", "a b", "it's $HOME", "-dash", "ünï", "semi;rm -rf x", "star*"])
def test_hints_survive_a_shell(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = hints(name, capsys, monkeypatch)
    lines = dict(line.split(":", 1) for line in text.splitlines() if line.startswith(("report", "tensor", "repro")))
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {lines['reproduce'].strip()}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[-1].removeprefix("--output=") == f"{name}-again"
    assert any(word.removeprefix("--config=") == f"{name}/config.yaml" for word in words)
    assert shlex.split(lines["report"]) == [f"{name}/report.html"]
    assert shlex.split(lines["tensorboard"])[-1].removeprefix("--logdir=") == f"{name}/tensorboard"


def test_hints_name_the_command_that_was_typed(tmp_path, capsys, monkeypatch):
    scripts = tmp_path / "bin"
    scripts.mkdir()
    for name in ("mia-train", "mia-tune"):
        (scripts / name).write_text("#!/bin/sh\n")
        (scripts / name).chmod(0o755)
    assert " train.py --config" in hints(tmp_path / "x", capsys, monkeypatch, "train.py")
    assert "'sub dir/train.py' --config" in hints(tmp_path / "x", capsys, monkeypatch, "sub dir/train.py")
    assert "'sub dir/train.py'" in hints(tmp_path / "x", capsys, monkeypatch, "sub dir/tune.py")
    assert f"{scripts}/mia-train --config" in hints(tmp_path / "x", capsys, monkeypatch, str(scripts / "mia-train"))
    monkeypatch.setenv("PATH", str(scripts), prepend=":")
    assert "reproduce:   mia-train --config" in hints(tmp_path / "x", capsys, monkeypatch, str(scripts / "mia-tune"))


def test_interpreter_of_the_hint_is_this_one():
    words = shlex.split(invocation.command("evaluate"))
    done = subprocess.run([words[0], "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sys.prefix


def test_submitted_attack_is_named(tmp_path, capsys, monkeypatch):
    attacks = {name: {"class_path": "Threshold"} for name in ("first", "added")}
    text = hints(tmp_path / "x", capsys, monkeypatch, attacks=attacks)
    assert "submission.csv (added)" in text
    assert "added was submitted as the last attack; --submission.attack NAME" in text
    text = hints(tmp_path / "x", capsys, monkeypatch, attacks=attacks, submission={"attack": "first"})
    assert "submission.csv (first)" in text
    assert "note" not in text


def test_accuracy_is_unknown_without_labels(capsys):
    result = SimpleNamespace(
        config=load_config(),
        notes=["n"],
        private=None,
        attacks={},
        target={"architecture": "net", "accuracy_on_members": float("nan"), "accuracy_on_non_members": float("nan")},
    )
    print_result(result, Console(width=80))
    assert "accuracy unknown" in capsys.readouterr().out


def test_next_free_folder(tmp_path):
    first = str(tmp_path / "run")
    assert next_free_folder(first) == first
    for expected in ("run", "run-2", "run-3"):
        assert next_free_folder(first) == str(tmp_path / expected)
        (tmp_path / expected).symlink_to(tmp_path / "nowhere")


def test_second_run_in_a_folder_is_offered_a_way_out(tmp_path):
    folder = RunFolder(load_config(output=str(tmp_path / "a b")))
    folder.acquire()
    folder.release()
    other = load_config(output=str(tmp_path / "a b"), seed=1)
    with pytest.raises(MIAError) as error:
        RunFolder(other)
    assert f"--output '{tmp_path / 'a b-2'}'" in str(error.value)
    assert "--overwrite" in str(error.value)
    (tmp_path / "a b" / "scores.csv").write_text("old")
    replacing = RunFolder(other, overwrite=True)
    replacing.acquire()
    replacing.release()
    assert [path.name for path in replacing.path.iterdir()] == ["config.yaml"]
    assert "seed: 1" in (replacing.path / "config.yaml").read_text()


def test_overwrite_keeps_foreign_files_and_links(tmp_path):
    folder = RunFolder(load_config(output=str(tmp_path / "run")))
    folder.acquire()
    folder.release()
    other = load_config(output=str(tmp_path / "run"), seed=1)
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(MIAError, match=r"thesis\.tex"):
        RunFolder(other, overwrite=True)
    (tmp_path / "run" / "thesis.tex").rename(tmp_path / "kept")
    (tmp_path / "run" / "scores.csv").symlink_to(tmp_path / "kept")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    replacing = RunFolder(other, overwrite=True)
    replacing.acquire()
    replacing.release()
    assert (tmp_path / "kept").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "file").read_text() == "mine"
