"""Complete searches by `tune`: files, resuming, signals, Ray, searches over reference training, mistakes."""

import csv
import json
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT
from helpers.forked import Forked, python
from helpers.runner import wait_for
from helpers.search import RATE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mia_lightning.cli import train, tune
from mia_lightning.config.command_line import parse_tuning
from mia_lightning.runtime.locks import Lock

SEARCH = """
data: {private: null}
attacks:
  loss_threshold: {class_path: Threshold, init_args: {column: loss, higher_is_member: false}}
  mlp: {class_path: MLP, init_args: {columns: [phi, entropy, loss], epochs: 2, hidden: [8], batch_size: 40}}
submission: {attack: mlp}
evaluation: {holdout: 0.4, folds: 3, fprs: [0.01, 0.1]}
search:
  trials: 5
  metric: tpr@0.1
  space:
    attacks.mlp.learning_rate: {dist: loguniform, low: 1e-4, high: 1e-1}
    attacks.mlp.dropout: {dist: uniform, low: 0.0, high: 0.5}
"""
BASE = ["--config", str(ROOT / "configs/demo.yaml"), "--evaluation.holdout", "0.2"]


@pytest.fixture(scope="module")
def quick_args(task, tmp_path_factory):
    """Arguments of a small sweep, and the folder whose store they share."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "search.yaml").write_text(SEARCH)
    return [*task.arguments, "--config", str(folder / "search.yaml")], folder


@pytest.fixture(scope="module")
def sweep(quick_args):
    arguments, folder = quick_args
    assert tune([*arguments, "--output", str(folder / "a")]) == 0
    return folder / "a"


def rows_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_best_yaml_reproduces_the_figures(sweep):
    assert train(["--config", str(sweep / "best.yaml")]) == 0
    result = json.loads((sweep / "search_result.json").read_text())
    again = json.loads((sweep.with_name("a-best") / "metrics.json").read_text())
    assert again["headline"] == "mlp"
    inner, outer = result["winner"]["inner"], again["attacks"]["mlp"]
    assert outer["auc"] == inner["auc"]
    for point in inner["points"]:
        assert point in outer["points"]
    assert again["run"]["held_out"]["mlp"] == result["winner"]["outer"]
    best = max(rows_of(sweep), key=lambda row: float(row["tpr@0.1"]))
    points = {point["fpr"]: point["tpr"] for point in outer["points"]}
    assert points[0.1] == float(best["tpr@0.1"])
    with (sweep.with_name("a-best") / "scores.csv").open(newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert (splits.count("holdout"), splits.count("public")) == (96, 144)


def test_trials_csv(sweep):
    rows = rows_of(sweep)
    assert [int(row["trial"]) for row in rows] == list(range(6))
    assert all(row["status"] == "finished" for row in rows)
    assert all(1e-4 <= float(row["attacks.mlp.learning_rate"]) <= 1e-1 for row in rows[1:])
    assert all(len(row["by_fold"].split()) == 3 for row in rows)


def test_best_yaml_records_search(sweep):
    best = yaml.safe_load((sweep / "best.yaml").read_text())
    assert best["searched"] == {"trials": 6, "attack": "mlp", "metric": "tpr@0.1", "seen_records": 144, "holdout": 96}


def test_altered_journal_ends_with_exit_code_2(quick_args, sweep, capsys):
    arguments, folder = quick_args
    output = folder / "altered"
    shutil.copytree(sweep, output)
    (output / "trials.jsonl").write_text("{}\n")
    earlier = (output / "config.yaml").read_text().replace(f"{sweep.name}\n", f"{output.name}\n", 1)
    (output / "config.yaml").write_text(earlier)
    assert "trials.jsonl is damaged" in refuse(capsys, *arguments, "--output", str(output), "--resume")


def test_tensorboard(sweep):
    row = rows_of(sweep)[3]
    events = EventAccumulator(str(sweep / "tensorboard" / "trial-0003")).Reload()
    assert events.Scalars("final/tpr@0.1")[0].value == pytest.approx(float(row["tpr@0.1"]), abs=1e-6)
    assert len(events.Scalars("tpr@0.1 by fold")) == 3
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"attacks.mlp.learning_rate" in plugin


@pytest.mark.extended
def test_two_devices(quick_args, sweep):
    arguments, folder = quick_args
    own = ["--hardware.devices", "2", "--cache_dir", str(folder / "store-of-two"), "--output", str(folder / "two")]
    process = Forked(python([ROOT / "tune.py", *arguments, *own]), cwd=ROOT)
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert stderr.count("extracted") == 1
    one, two = rows_of(sweep), rows_of(folder / "two")
    assert [row["attacks.mlp.learning_rate"] for row in one] == [row["attacks.mlp.learning_rate"] for row in two]
    assert float(two[0]["auc"]) == pytest.approx(float(one[0]["auc"]), abs=1e-3)  # batches of another process's threads


def test_resume_after_kill(quick_args, sweep):
    arguments, folder = quick_args
    output = folder / "killed"
    words = [*arguments, "--search.batch_trials", "1", "--search.trials", "20", "--output", str(output)]
    running = Forked(python([ROOT / "tune.py", *words]), cwd=ROOT)
    trials = output / "trials.jsonl"
    wait_for(lambda: trials.exists() and len(trials.read_bytes().splitlines()) >= 3, running)
    running.kill()
    running.wait()
    before = trials.read_bytes().splitlines()
    assert 3 <= len(before) < 21
    assert not (output / "best.yaml").exists()
    assert tune(words) == 2  # not without --resume
    assert tune([*words, "--resume"]) == 0
    after = (output / "trials.jsonl").read_bytes().splitlines()
    assert after[: len(before) - 1] == before[:-1]
    assert [int(row["trial"]) for row in rows_of(output)] == list(range(21))
    first = {row["trial"]: row["auc"] for row in rows_of(sweep)}
    again = {row["trial"]: row["auc"] for row in rows_of(output)}
    assert all(float(again[n]) == pytest.approx(float(value), abs=2e-3) for n, value in first.items())


@pytest.mark.parametrize(
    ("engine", "number"), [("local", signal.SIGTERM), pytest.param("ray", signal.SIGINT, marks=pytest.mark.extended)]
)
def test_signal_ends_the_search(quick_args, sweep, engine, number):
    arguments, folder = quick_args
    output = folder / f"{engine}-{number.name}"
    options = [
        "--search.engine",
        engine,
        "--search.batch_trials",
        "1",
        "--search.trials",
        "500",
        "--output",
        str(output),
    ]
    running = Forked(python([ROOT / "tune.py", *arguments, *options]), cwd=ROOT)
    wait_for(lambda: (output / "trials.jsonl").exists() and len((output / "trials.jsonl").read_bytes()) > 1000, running)
    running.send_signal(number)
    stderr = running.communicate()[1]
    assert running.returncode == 128 + number, stderr
    assert f"interrupted ({number.name}); rerun the same command with --resume to continue" in stderr
    assert "Traceback" not in stderr
    assert not (output / "best.yaml").exists()


@pytest.mark.slow
def test_ray_equals_local(quick_args, sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments, folder = quick_args
    options = [
        "--search.engine",
        "ray",
        "--search.max_concurrent",
        "1",
        "--search.scheduler",
        "asha",
        "--search.grace_period",
        "1",
    ]
    assert tune([*arguments, *options, "--output", str(folder / "ray")]) == 0
    rows, here = rows_of(folder / "ray"), {row["trial"]: row for row in rows_of(sweep)}
    assert len(rows) == 6
    assert {row["status"] for row in rows} <= {"finished", "stopped"}
    for row in rows:
        assert row["attacks.mlp.dropout"] == here[row["trial"]]["attacks.mlp.dropout"]
        if row["status"] == "finished":
            assert float(row["auc"]) == pytest.approx(float(here[row["trial"]]["auc"]), abs=2e-3)
        if int(row["trial"]) > 0:
            assert int(row["epochs"]) >= 1


def test_reference_training_search(tmp_path, capsys):
    overlay = tmp_path / "search.yaml"
    overlay.write_text(
        "extraction: {queries: 1}\nreferences: {training: {epochs: 12}}\n"
        "search:\n  goal: reference_training\n  trials: 2\n"
        "  scheduler: asha\n  grace_period: 1\n  engine: local\n  space:\n"
        "    references.training.epochs: {dist: int, low: 1, high: 3}\n"
        "    references.training.flip: {dist: choice, values: [false]}\n"
    )
    words = ["--config", "demo_references", "--config", str(overlay), "--hardware.accelerator", "cpu"]
    assert tune([*words, "--output", str(tmp_path / "search")]) == 0
    rows = rows_of(tmp_path / "search")
    mismatches = [float(row["mismatch"]) for row in rows if row["status"] == "finished"]
    # after 12 epochs references fit their records, as the over-fitted target does; after 1 to 3 they do not
    assert min(mismatches) == float(rows[0]["mismatch"])
    best = yaml.safe_load((tmp_path / "search" / "best.yaml").read_text())
    assert best["references"]["training"]["epochs"] == 12
    assert best["searched"]["metric"] == "mismatch"
    assert "on references that no trial trained" in capsys.readouterr().out


def refuse(capsys, *options):
    assert tune([*options]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--search.trials", "0"], "search.trials must be at least 1, got 0"),
        (["--search.metric", "tpr@0.02"], "--search.metric 'tpr@0.02' is not computed"),
        (["--search.attack", "mpl"], "did you mean 'mlp'"),
        (["--search.attack", "lightgbm", "--search.scheduler", "asha"], "attack 'lightgbm' has none; use none"),
        (["--evaluation.holdout", "0"], "add --evaluation.holdout 0.2"),
        (["--evaluation.holdout", "0.99"], "holdout must lie between 0 and 0.9"),
        (["--search.trails", "3"], "unknown option --search.trails; did you mean 'search.trials'"),
    ],
)
def test_option_error_message(options, sentence, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(f"search: {{space: {json.dumps(RATE)}}}")
    error = refuse(capsys, *BASE, "--config", str(tmp_path / "s.yaml"), "--output", str(tmp_path / "x"), *options)
    assert sentence in error
    assert error.count("\n") == 1


def test_folder_error_message(quick_args, sweep, capsys, tmp_path):
    arguments, _ = quick_args
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds other files" in refuse(capsys, *arguments, "--output", str(tmp_path))
    assert "holds another run" in refuse(capsys, *arguments, "--seed", "7", "--output", str(sweep))
    assert "add --resume to continue" in refuse(capsys, *arguments, "--output", str(sweep))
    lock = Lock(sweep / ".lock")
    assert lock.acquire()
    try:
        assert "is writing into" in refuse(capsys, *arguments, "--output", str(sweep), "--resume")
    finally:
        lock.release()


def test_help_imports():
    script = (
        "import sys\nfrom mia_lightning.cli import tune\n"
        "code = None\n"
        "try:\n    tune(['--help'])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(code, sorted({'torch', 'ray', 'optuna', 'sklearn', 'lightning', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "--search.trials" in done.stdout
    assert "--resume" in done.stdout


@pytest.mark.parametrize("name", ["tune", "tune_references"])
def test_shipped_configurations(name):
    from mia_lightning.search.sweep import check

    check(parse_tuning(["--config", name, "--data.public", "pub.pt"]))


def test_page_of_the_search(sweep):
    page = (sweep / "report.html").read_text()
    gain = json.loads((sweep / "search_result.json").read_text())["gain"]
    assert f"{gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" in page
    assert page.count("<svg") == 2
    assert "<script" not in page
