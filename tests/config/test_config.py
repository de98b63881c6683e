"""One typed configuration: YAML, command line and Python agree; mistakes get one sentence."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

from mia_lightning.attacks.threshold import Threshold
from mia_lightning.config.command_line import load_config, parse_arguments
from mia_lightning.config.files import overlay, to_mapping
from mia_lightning.config.help import component_help, components
from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError

SHIPPED = sorted(set(ROOT.glob("configs/*.yaml")) - set(ROOT.glob("configs/tune*.yaml")))


def parse(*argv: str) -> RunConfig:
    return parse_arguments(list(argv), prog="train.py")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_round_trip(path, tmp_path):
    config = load_config(path)
    saved = tmp_path / "again.yaml"
    saved.write_text(yaml.safe_dump(to_mapping(config), sort_keys=False))
    assert load_config(saved) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_command_line_and_python_agree(path):
    assert parse("--config", path.stem, "--seed", "7") == load_config(path, seed=7)


def test_print_config_reloads(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        parse("--config", str(ROOT / "configs/course_baseline.yaml"), "--attacks.mlp.epochs", "3", "--print_config")
    assert stop.value.code == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert parse("--config", str(printed)) == load_config(
        ROOT / "configs/course_baseline.yaml", attacks={"mlp": {"init_args": {"epochs": 3}}}
    )


def test_later_files_lie_over_earlier_ones(tmp_path):
    below, above = tmp_path / "below.yaml", tmp_path / "above.yaml"
    below.write_text("seed: 1\nattacks: {a: {class_path: Threshold, init_args: {column: loss}}, b: {class_path: MLP}}")
    above.write_text("attacks: {a: {init_args: {higher_is_member: false}}, b: null}")
    config = parse("--config", str(below), "--config", str(above), "--output", "x")
    assert config == RunConfig(output="x", seed=1, attacks={"a": Threshold("loss", higher_is_member=False)})


def test_another_class_replaces_the_options_of_the_old_one():
    old = {"a": {"class_path": "MLP", "init_args": {"epochs": 3}}}
    assert overlay(old, {"a": {"class_path": "Threshold"}}) == {"a": {"class_path": "Threshold"}}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--data.publik", "x"], "unknown option --data.publik; did you mean 'data.public'"),
        (["--sed", "1"], "unknown option --sed; did you mean 'seed'"),
        (["--seed", "many"], "seed: expected int, got 'many'"),
        (["--extraction.queries", "3"], "extraction.queries: expected one of"),
        (["--evaluation.folds", "1"], "folds must be at least 2"),
        (["--evaluation.fprs", "[1.5]"], "fprs must lie between 0 and 1"),
        (["--data.mean", "[0.5]"], "give both mean and std"),
        (["--submission.attack", "phi_treshold"], "'phi_treshold' is not configured; did you mean 'phi_threshold'"),
        (["--config", "nowhere.yaml"], "'nowhere.yaml' is neither a file nor a shipped configuration"),
        (["--seed", "-1"], "seed must be between"),
        (["--target.num_classes", "0"], "--target.num_classes must be at least 1"),
        (["--hardware.accelerator", "abacus"], "--hardware.accelerator must be one of auto, cpu, gpu"),
        (["--attacks.a.class_path", "./mine.py:Attack"], "did you mean 'mine.Attack'"),
        (["--attacks.a.class_path", "../pack/mine.py"], "did you mean 'pack.mine.Class'"),
    ],
)
def test_bad_options_get_one_sentence(argv, sentence):
    with pytest.raises(MIAError) as error:
        parse(*argv)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sead: 1", "did you mean 'seed'"),
        ("data: {publik: x}", "unknown option --data.publik; did you mean 'data.public'"),
        ("data: 3", "data must be a mapping"),
        ("attacks: {a: {class_path: Fuson}}", "no class is named 'Fuson'; did you mean 'Fusion'"),
        ("attacks: {a: {class_path: MLP, init_args: {epoch: 3}}}", "MLP has no option 'epoch'; did you mean 'epochs'"),
        ("attacks: {a: {class_path: MLP, init_args: {epochs: x}}}", "--attacks.a.epochs: expected int"),
        (
            "attacks: {a: {class_path: os.system}}",
            "'os.system' is not a subclass of Attack but belongs to Python itself",
        ),
        ("- 1", "holds a list; expected a mapping"),
        ("a: [", "is not valid YAML"),
        ("seed: 1\ndata: {mean: [0.5]}\nseed: 2", "sets an option twice (line 3)"),
        ("x: !!python/object/apply:os.system [true]", "is not valid YAML"),
    ],
)
def test_bad_files_get_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(MIAError) as error:
        load_config(path)
    assert sentence in str(error.value)


def test_help_explains_every_option_of_every_attack():
    from dataclasses import fields

    from mia_lightning.attacks import Attack

    text = component_help()
    for kind in components(Attack):
        if kind.__module__.startswith("mia_lightning."):
            section = re.split(r"\n  (?=\S)", text.split(f"  {kind.__name__}: ")[1])[0]
            for f in fields(kind):
                if f.init:
                    explained = re.search(rf"{f.name} \(.*?\): +(\S+)", section, flags=re.DOTALL)
                    assert explained, f"{kind.__name__}.{f.name} is not explained"


def test_help_needs_none_of_the_heavy_libraries():
    script = (
        "import sys\nfrom mia_lightning.cli import train\n"
        "try: train(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'ray', 'sklearn', 'lightgbm', 'matplotlib', 'torchvision', 'pandas'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "--target.checkpoint" in done.stdout
    assert "examples:" in done.stdout


@pytest.mark.parametrize("text", ["[0.49, 0.48, 0.45]", "0.49,0.48,0.45", "0.49, 0.48, 0.45", "(0.49,0.48,0.45)"])
def test_list_syntax(text):
    assert parse("--data.mean", text, "--data.std=.2,.2,2e-1").data.mean == (0.49, 0.48, 0.45)


def test_list_of_words_and_patterns():
    config = parse(
        "--data.mean", "0.49", "0.48", "0.45", "--data.std", "1", "1", "1", "--submission.columns", "id,score"
    )
    assert config.data.mean == (0.49, 0.48, 0.45)
    assert config.submission.columns == ("id", "score")
    attack = parse("--attacks.a", "MLP", "--attacks.a.columns", "[phi, phi_[!q]*]", "--attacks.a.epochs", "3").attacks[
        "a"
    ]
    assert (attack.columns, attack.epochs) == (["phi", "phi_[!q]*"], 3)
    assert parse("--signals.names+", "phi_std").signals.names == ["standard", "phi_std"]


def test_flags_and_values_with_equals_sign():
    config = parse("--extraction.gradients", "--seed=-0", "--output=a b", "--cache-dir", "c")
    assert (config.extraction.gradients, config.seed, config.output, config.cache_dir) == (True, 0, "a b", "c")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--data.mean", "x,y"], "--data.mean: expected a number, got 'x' in a list such as [0.49, 0.48, 0.45]"),
        (["--data.mean", "[nan, 0.1]"], "--data.mean: expected a finite number"),
        (["--data.std", "[1e400]"], "--data.std: expected a finite number"),
        (["--references.training.learning_rate", "inf"], "expected a finite number, got inf"),
        (["--attacks.a", "MLP", "--attacks.a.learning_rate", "nan"], "--attacks.a.learning_rate: expected a finite"),
        (["--attacks.a", "MLP", "--attacks.a.epochs", "1" + "0" * 5000], "--attacks.a.epochs: expected int"),
        (["--references.count", "9" * 40], "is out of range"),
        (["--output", "a\x1b[31m"], "control characters"),
        (["--output", "a\0b"], "control characters"),
        (["--data.public", "x" * 5000], "5,000 characters"),
        (["--data.publi", "x"], "unknown option --data.publi; did you mean 'data.public'"),
        (["stray"], "unexpected argument 'stray'"),
        (["--data.public"], "--data.public needs a value"),
        (["--attacks.mlp.epochs", "3"], "--attacks.mlp: expected a class_path"),
        (["--target.architecture", "small.Net"], "'small:Net'"),
        (["--target.architecture", "./models.py:Net"], "'models:Net'"),
        (["--references.architecture", "small.Net"], "'small:Net'"),
        (["--signals.names", "[small.signal]"], "'small:signal'"),
    ],
)
def test_bad_values_error_message(argv, sentence):
    with pytest.raises(MIAError) as error:
        parse(*argv)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "text", ["secret: hunter2\nother: [", "root:x:0:0:root:/root:/bin/bash\n- a", "%PDF-1.4 hunter2"]
)
def test_foreign_file_is_not_echoed(text, tmp_path):
    (tmp_path / "notes.yaml").write_text(text)
    with pytest.raises(MIAError) as error:
        load_config(tmp_path / "notes.yaml")
    assert "hunter2" not in str(error.value)
    assert "root" not in str(error.value).replace(str(tmp_path), "")


def test_pipe_as_configuration_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(MIAError, match="pipe"):
        load_config(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(
    "name", ["os.system", "posix.system", "subprocess:Popen", "antigravity.X", "torch.hub.load", "noisy.NotThere"]
)
def test_class_path_is_refused_without_import(name, tmp_path, monkeypatch):
    (tmp_path / "noisy.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    with pytest.raises(MIAError, match="without importing it"):
        parse("--attacks.a.class_path", name)
    assert not {"noisy", "antigravity", "torch.hub"} & (set(sys.modules) - before)


@pytest.mark.parametrize("written", ["small_plug.Mine", "small_plug:Mine"])
def test_attack_of_the_user(written, tmp_path, monkeypatch):
    (tmp_path / "small_plug.py").write_text(
        "from dataclasses import dataclass\nfrom mia_lightning.attacks import Attack\n\n\n"
        "@dataclass\nclass Mine(Attack):\n    level: int = 1\n    '''A level.'''\n"
    )
    monkeypatch.chdir(tmp_path)  # as an installed command, which does not have the folder on its path
    assert parse("--attacks.a", written, "--attacks.a.level", "3").attacks["a"].level == 3


@pytest.mark.parametrize(
    ("below", "sentence"),
    [
        ({"attacks": {f"a{i}": {"class_path": "Threshold"} for i in range(5000)}}, "5,000 entries"),
        ({"signals": {"names": ["phi"] * 5000}}, "5,000 values"),
    ],
)
def test_large_configurations_are_refused(below, sentence):
    with pytest.raises(MIAError, match=sentence):
        load_config(**below)
