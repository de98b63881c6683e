"""One typed configuration: YAML, command line and Python agree; mistakes get one sentence."""

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
        ("data: {publik: x}", "unknown key data.publik; did you mean 'public'"),
        ("data: 3", "data must be a mapping"),
        ("attacks: {a: {class_path: Fuson}}", "no class is named 'Fuson'; did you mean 'Fusion'"),
        ("attacks: {a: {class_path: MLP, init_args: {epoch: 3}}}", "MLP has no option 'epoch'; did you mean 'epochs'"),
        ("attacks: {a: {class_path: MLP, init_args: {epochs: x}}}", "attacks.epochs: expected int"),
        ("attacks: {a: {class_path: os.system}}", "does not correspond to a subclass of Attack"),
        ("- 1", "holds a list; expected a mapping"),
        ("a: [", "is not valid YAML"),
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
