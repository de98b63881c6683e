"""Configurations in the wheel, found by name, and overlays that name what they extend."""

import os
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT

from mia_lightning import load_config
from mia_lightning.cli import train
from mia_lightning.config.shipped import FOLDER, descriptions, names
from mia_lightning.errors import MIAError


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the package's folder alone, without the checkout's other files."""
    source = tmp_path_factory.mktemp("source")
    subprocess.run(["cp", "-r", *(ROOT / name for name in ("pyproject.toml", "README.md", "mia_lightning")), source])
    for name in ("LICENSE", "CITATION.cff"):
        if (ROOT / name).exists():
            (source / name).write_bytes((ROOT / name).read_bytes())
    code = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(source / "out")], cwd=source, check=True, capture_output=True)
    return next((source / "out").glob("*.whl"))


def test_wheel_has_every_configuration(wheel):
    packed = zipfile.ZipFile(wheel).namelist()
    assert {f"mia_lightning/configs/{name}.yaml" for name in names()} <= set(packed)
    assert len(names()) >= 7


def test_installed_command_finds_configurations(wheel, tmp_path):
    script = "from mia_lightning.cli import train; train(['--config', 'references', '--print_config'])"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "lira_threshold" in done.stdout
    assert "mlp" in done.stdout  # from the configuration that it extends


def test_top_level_folder_is_the_package_folder():
    assert (ROOT / "configs").resolve() == FOLDER.resolve()


def test_list_configs_has_a_line_each(capsys):
    with pytest.raises(SystemExit) as stop:
        train(["--list_configs"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert all(len(line) <= 80 and len(line.split()) > 4 and "…" not in line for line in lines), descriptions()


@pytest.mark.parametrize("given", ["demo", "demo.yaml", "configs/demo.yaml"])
def test_shipped_name_or_path(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(given) == load_config(FOLDER / "demo.yaml")
    (tmp_path / given).parent.mkdir(exist_ok=True)
    (tmp_path / given).write_text("seed: 7")
    assert load_config(given).seed == 7  # an existing path wins


def test_overlay_alone_equals_base_and_overlay():
    assert load_config("references") == load_config("no_reference", "references")
    assert load_config("references").attacks.keys() > load_config("no_reference").attacks.keys()


def test_base_read_earlier_does_not_undo_a_file_between(tmp_path):
    (tmp_path / "mine.yaml").write_text("extraction: {queries: 18}")
    assert load_config("no_reference", tmp_path / "mine.yaml", "references").extraction.queries == 18


def test_extends_a_file_next_to_it(tmp_path):
    (tmp_path / "demo").write_text("seed: 3")
    (tmp_path / "above.yaml").write_text("extends: demo\noutput: x")
    config = load_config(tmp_path / "above.yaml")
    assert (config.seed, config.output) == (3, "x")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("extends: a.yaml", "in a circle: a.yaml -> a.yaml"),
        ("extends: b.yaml", "in a circle: a.yaml -> b.yaml -> a.yaml"),
        ("extends: demmo", "did you mean 'demo'"),
        ("extends: [demo, references]", "extends must name one configuration"),
    ],
)
def test_extends_error_messages(text, sentence, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    with pytest.raises(MIAError) as error:
        load_config(tmp_path / "a.yaml")
    assert sentence in str(error.value)


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("tune")])
def test_shipped_configurations_name_the_submitted_attack(name):
    config = load_config(name)
    assert config.submission.attack in config.attacks
