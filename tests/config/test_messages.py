"""Options named in messages exist, help is complete in itself, former names are taken with a note."""

import ast
import re
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

from mia_lightning import MIAError, cli, load_config
from mia_lightning.attacks import Attack
from mia_lightning.canary.config import AuditConfig, MakeConfig
from mia_lightning.cli import benchmark, evaluate, train, tune
from mia_lightning.config import renamed
from mia_lightning.config.arguments import option_names
from mia_lightning.config.benchmark import BenchmarkConfig
from mia_lightning.config.class_paths import PLUG_IN_BASES, components
from mia_lightning.config.command_line import parse_arguments, parse_evaluation, parse_tuning
from mia_lightning.config.commands import command_of
from mia_lightning.config.schema import RunConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.config.shipped import FOLDER, locate
from mia_lightning.config.values import option_types
from mia_lightning.errors import suggest
from mia_lightning.evaluation.config import ComparisonConfig, ScoreEvaluationConfig

COMMANDS = {train: RunConfig, tune: TuneConfig, evaluate: ScoreEvaluationConfig, benchmark: BenchmarkConfig}
OTHERS = {"logdir", "faint", "series"}
"""Options of other programs and variables of style sheets that our texts name."""


def existing():
    names = {"help", "config"}
    for cls in (*COMMANDS.values(), ComparisonConfig, MakeConfig, AuditConfig):
        names |= {*option_names(cls), *command_of(cls).flags}
    groups = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)}
    return (
        names
        | groups
        | OTHERS
        | {f"{option.removeprefix('--').removesuffix('.NAME')}.help" for option in PLUG_IN_BASES.values()}
    )


def texts(path):
    """The string constants of a source file, parts of f-strings joined, docstrings included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named_options(text):
    return {name.rstrip(".") for name in re.findall(r"(?<![\w-])--([a-z][a-z_.-]*[a-z_])(?!\0)\b", text)}


def test_options_in_messages_exist():
    legal = existing()
    wrong = set()
    for path in sorted((ROOT / "mia_lightning").rglob("*.py")):
        if path.name == "renamed.py":
            continue
        for text in texts(path):
            wrong |= {
                f"--{name} in {path.relative_to(ROOT)}"
                for name in named_options(text)
                if name not in legal
                and not re.match(r"(attacks|references\.(scores|trainer)|evaluation\.calibration)\.", name)
            }
    assert not wrong


def test_options_in_configurations_exist():
    legal = existing()
    for path in FOLDER.glob("*.yaml"):
        text = path.read_text()
        sets = {f"references.sets.{name}" for name in (yaml.safe_load(text).get("references") or {}).get("sets", {})}
        assert named_options(text) <= legal | sets, path.name


def test_scanner_finds_a_wrong_option(tmp_path):
    (tmp_path / "x.py").write_text("raise E(f'give --target.classes {n}, not --{name} or --data.mean')")
    assert set().union(*map(named_options, texts(tmp_path / "x.py"))) == {"target.classes", "data.mean"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_help_fits_one_screen(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        command(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0
    assert len(lines) < 60
    assert max(map(len, lines)) <= 90
    text = " ".join(lines)
    if command is not tune:
        assert {name for name in option_names(COMMANDS[command]) if name != "scores"} <= named_options(text)
    assert "--debug" in text
    assert "--help_all" in text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_full_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit):
        command(["--help_all"])
    text = capsys.readouterr().out
    assert set(option_names(COMMANDS[command])) - {"scores"} <= named_options(text)


VAGUE = re.compile(
    r"(?i)\blikewise\b|\bas there\b|\bwhen not given\b|\bas of \w+\b|^Of |\banew\b|\bbeside\b|\bby lot\b"
)


def help_lines():
    for cls in COMMANDS.values():
        yield from _lines(cls)
    for base in PLUG_IN_BASES:
        for component in components(base):
            if component.__module__.startswith("mia_lightning."):
                yield from _lines(component)


def _lines(cls):
    from mia_lightning.config.help import _field_docs
    from mia_lightning.config.values import is_group

    documented = {}
    for parent in reversed(cls.__mro__):
        documented |= _field_docs(parent) if parent is not object else {}
    for name, hint in option_types(cls).items():
        if is_group(hint):
            yield from _lines(hint)
        else:
            yield f"{cls.__name__}.{name}", documented.get(name, "")


def test_help_lines_are_complete_in_themselves():
    wrong = {name: text for name, text in help_lines() if not text or VAGUE.search(text)}
    assert not wrong


@pytest.mark.parametrize("name", ["LiRA", "AttackR", "OfficialLiRA", "RMIA"])
def test_class_help(name, capsys):
    with pytest.raises(SystemExit):
        train(["--references.scores.help", name])
    assert capsys.readouterr().out.strip().startswith(f"{name}:")


def test_class_help_lists_classes(capsys):
    with pytest.raises(SystemExit):
        train(["--attacks.help"])
    text = capsys.readouterr().out
    assert all(f"{kind.__name__}:" in text for kind in components(Attack) if kind.__module__.startswith("mia_light"))


@pytest.mark.parametrize(
    "call",
    [
        "train(['--help_all'])",
        "tune(['--help'])",
        "evaluate(['--help_all'])",
        "train(['--config', 'demo', '--print_config'])",
    ],
)
def test_help_imports_no_heavy_library(call):
    script = (
        f"import sys\nfrom mia_lightning.cli import train, tune, evaluate\ntry: {call}\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'scipy', 'lightning', 'ray', 'sklearn', 'lightgbm', 'matplotlib', 'pandas', 'optuna'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_importing_the_package_is_free():
    script = "import sys, mia_lightning; mia_lightning.__version__; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- former names


NOTE = "the former name was taken"

FORMER = {
    "references.recipe": ("references.recipe.epochs", "7"),
    "references.recipe.optimiser": ("references.recipe.optimiser", "adamw"),
    "references.training.optimiser": ("references.training.optimiser", "adamw"),
    "extraction.store": ("extraction.store", "there"),
    "hardware.fast": ("hardware.fast", "false"),
    "signals.queries": ("signals.queries", "first"),
    "references.address": ("references.address", "auto"),
    "search.address": ("search.address", "auto"),
    "headline": ("headline", "loss"),
    "columns": ("columns", "age"),
    "evaluation.hold_out": ("evaluation.hold_out", "0.25"),
    "references.released": ("references.released", "0.5"),
    "references.tolerance": ("references.tolerance", "0.25"),
}
"""A former option with a value that is not the default; 30 for all that are not listed."""


def former(old):
    option, value = FORMER.get(old, (old, "true" if old == "one_run.fair_coins" else "30"))
    return option, value, renamed.current_option(option)


def parser_of(name):
    if name.split(".")[0] in option_types(ScoreEvaluationConfig) or name in ("headline", "columns", "bootstrap"):
        return parse_evaluation
    return parse_tuning


@pytest.mark.parametrize("old", renamed.OPTIONS)
def test_former_option_is_taken(old, tmp_path, caplog):
    option, value, new = former(old)
    parse = parser_of(old)
    expected = parse([f"--{new}", value])
    assert expected != parse([])
    assert not caplog.records
    assert parse([f"--{option}", value]) == parse([f"--{option.replace('_', '-')}={value}"]) == expected
    assert caplog.messages[0] == f"option --{option} is now called --{new}; {NOTE}"
    if parse is parse_tuning:
        *groups, last = option.split(".")
        text = f"{last}: {value}"
        for group in reversed(groups):
            text = f"{group}: {{{text}}}"
        (tmp_path / "old.yaml").write_text(text)
        assert parse(["--config", str(tmp_path / "old.yaml")]) == expected
        (tmp_path / "above.yaml").write_text("extends: old.yaml\nseed: 3")
        assert parse(["--config", str(tmp_path / "above.yaml"), "--seed", "42"]) == expected


@pytest.mark.parametrize(
    ("option", "old"), [(option, old) for option, values in renamed.VALUES.items() for old in values]
)
def test_former_value_is_taken(option, old, caplog):
    assert parse_tuning([f"--{option}", old]) == parse_tuning([f"--{option}", renamed.VALUES[option][old]])
    assert [NOTE in message for message in caplog.messages] == [True]


def plug_in(name):
    """The option of a class, and the class."""
    for base, option in PLUG_IN_BASES.items():
        for cls in components(base):
            if cls.__name__ == name:
                return option.removeprefix("--").replace("NAME", "x"), cls
    raise AssertionError(name)


@pytest.mark.parametrize("old", renamed.CLASSES)
def test_former_class_is_taken(old, caplog):
    option, _ = plug_in(renamed.CLASSES[old])
    expected = parse_arguments([f"--{option}", renamed.CLASSES[old]])
    assert parse_arguments([f"--{option}", old]) == expected
    assert [NOTE in message for message in caplog.messages] == [True]
    assert parse_arguments([f"--{option}", f"mia_lightning.likelihoods.former.{old}"]) == expected


@pytest.mark.parametrize(("name", "old"), [(name, old) for name, fields in renamed.FIELDS.items() for old in fields])
def test_former_option_of_a_class_is_taken(name, old, caplog):
    option, cls = plug_in(name)
    new = renamed.FIELDS[name][old]
    value = "false" if option_types(cls)[new] is bool else "1"
    given = ["--seed", "1", f"--{option}", name]
    expected = parse_arguments([*given, f"--{option}.{new}", value])
    assert parse_arguments([*given, f"--{option}.{old}", value]) == expected
    assert [NOTE in message for message in caplog.messages] == [True]


def test_later_spelling_counts(tmp_path):
    (tmp_path / "old.yaml").write_text("attacks: {a: {class_path: LightGBM, init_args: {trees: 5}}}")
    (tmp_path / "new.yaml").write_text("attacks: {a: {class_path: LightGBM, init_args: {n_estimators: 5}}}")
    for file, option in (("old", "n_estimators"), ("new", "trees")):
        config = parse_arguments(["--config", str(tmp_path / f"{file}.yaml"), f"--attacks.a.{option}", "7"])
        assert config.attacks["a"].n_estimators == 7


@pytest.mark.parametrize("old", renamed.SIGNALS)
def test_former_signal_is_taken(old, caplog):
    from mia_lightning.signals import expand_names

    new = renamed.SIGNALS[old]
    assert load_config(signals={"names": [old]}) == load_config(signals={"names": [new]})
    assert expand_names([new])
    assert [NOTE in message for message in caplog.messages] == [True]
    for cls, option in (("Threshold", "column"), ("LightGBM", "columns")):
        config = parse_arguments(["--attacks.a", cls, f"--attacks.a.{option}", old])
        assert getattr(config.attacks["a"], option) in (new, [new])


@pytest.mark.parametrize("old", renamed.CONFIGURATIONS)
def test_former_configuration_is_taken(old, caplog):
    assert load_config(f"configs/{old}.yaml") == load_config(renamed.CONFIGURATIONS[old])
    assert [NOTE in message for message in caplog.messages] == [True]
    assert locate(renamed.CONFIGURATIONS[old]).exists()


def test_former_search_space_is_taken(tmp_path):
    for name in ("references.recipe.optimiser", "references.training.optimizer"):
        text = f"search: {{goal: reference_training, space: {{{name}: {{dist: choice, values: [sgd, adamw]}}}}}}"
        (tmp_path / "space.yaml").write_text(text)
        config = parse_tuning(["--config", str(tmp_path / "space.yaml")])
        assert list(config.search.space) == ["references.training.optimizer"]


@pytest.mark.parametrize("argv", [["--embedding.epochs", "3"], ["--evaluation.calibration", "Beta"]])
def test_removed_name_has_a_message(argv):
    with pytest.raises(MIAError, match="was removed"):
        parse_arguments(argv)


def test_suggestions_are_few():
    legal = [f"signal_{number}" for number in range(500)]
    for given in ("signal_7", "nothing of the kind", "x" * 100_000, ""):
        assert len(re.findall(r"signal_\d+", suggest(given, legal))) <= 3
    assert suggest("b", ["a"]) == "legal: a"


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        ("compare", ["{0}/a", "{0}/b"], "comparison of {0}/a and {0}/b"),
        ("canaries", ["make", "{0}/r.npz", "--output", "{0}/c"], "canaries from {0}/r.npz, results in {0}/c"),
        ("canaries", ["audit", "{0}/c"], "audit of the canaries in {0}/c"),
        ("planner", ["{0}/a"], "forecast of {0}/a"),
        ("evaluate", ["{0}/s.csv"], "evaluation of {0}/s.csv"),
    ],
)
def test_commands_print_what_they_do_before_they_read(command, arguments, line, tmp_path, capsys):
    assert getattr(cli, command)([argument.format(tmp_path) for argument in arguments]) == 2
    assert capsys.readouterr().out == f"mia_lightning: {line.format(tmp_path)}\n"
