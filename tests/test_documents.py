"""README and docs are true: their commands and code blocks run, their links lead somewhere."""

import re
import shlex

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.datasets import write_pickled

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
COMMANDS = sorted(
    {
        line.partition("#")[0].strip()
        for text in TEXT.values()
        for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
    }
    - {""}
)
TRAIN = [c for c in COMMANDS if c.startswith(("python train.py", "mia-train --config"))]
TUNE = [c for c in COMMANDS if c.startswith("python tune.py")]
EVALUATE = [c for c in COMMANDS if c.startswith("python -m mia_lightning.evaluate")]
COMPARE = [c for c in COMMANDS if c.startswith("python -m mia_lightning.compare")]
CANARIES = [c for c in COMMANDS if c.startswith("python -m mia_lightning.canaries")]
PLANNER = ["python -m mia_lightning.planner runs/references"]
INFORMATION = [c for c in COMMANDS if c.startswith("mia-train") and c not in TRAIN]


def arguments(command):
    words = shlex.split(command)
    return words[3:] if words[1:2] == ["-m"] else words[2 if words[0] == "python" else 1 :]


def test_every_command_is_covered():
    makes = [c for c in COMMANDS if c.startswith("make ")]
    assert sorted([*TRAIN, *TUNE, *EVALUATE, *COMPARE, *CANARIES, *PLANNER, *INFORMATION, *makes]) == COMMANDS
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{command.split()[1]}: " in makefile for command in makes)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Outputs of the target that the commands share."""
    return ["--cache_dir", str(tmp_path_factory.mktemp("store"))]


@pytest.fixture
def folder(task, tmp_path, monkeypatch):
    """A working directory with the files that the commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "01_MIA.pt").symlink_to(task.folder / "01_MIA.pt")
    half = len(task.ids) // 2
    for name, start, known in (("pub.pt", 0, task.membership), ("priv_out.pt", half, [None] * 2 * half)):
        rows = slice(start, start + RECORDS)
        images = list(torch.from_numpy(task.images[rows]))
        write_pickled(tmp_path / name, task.ids[rows].tolist(), images, task.labels[rows].tolist(), list(known[rows]))
    return tmp_path


RECORDS = 120
"""Public and private ones, of those of the shared task."""


QUICK = ["--hardware.accelerator", "cpu"]
QUICK_REFERENCES = [
    *("--references.workers", "0", "--references.training.epochs", "1", "--references.training.batch_size", "32"),
    *("--references.training.precision", "32-true"),
]
QUICK_ARCHITECTURE = [
    *("--references.count", "4", "--references.architecture", "mia_lightning.references.small_network:SmallNetwork")
]
OWN = {"records.npz": "pub.pt", "model.pt": "01_MIA.pt", "target.pt": "01_MIA.pt", "cifar10.npz": "pub.pt"}
"""Files of the guides that stand for any of their kind."""


def test_the_demo_is_run_by_an_example():
    assert '"--config", "demo"' in (ROOT / "examples/challenge.py").read_text()


REPEATED = [c for c in TRAIN if "records.npz" in c]
"""Commands of a guide whose configuration another command runs."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.extended if c in REPEATED else ())
        for c in TRAIN
        if "best.yaml" not in c and "demo" not in c
    ],
)
def test_train_commands_run(command, folder, store):
    from mia_lightning.cli import train

    words = [*(OWN.get(word, word) for word in arguments(command)), *QUICK, *store]
    extended = any(name in command for name in ("no_reference", "references", "fine_tuned"))
    words += ["--extraction.queries", "18" if extended else "2"]
    if extended:
        words += ["--attacks.mlp.epochs", "1", "--attacks.lightgbm.n_estimators", "10"]
    if "references" in command or "cifar10" in command:
        words += QUICK_REFERENCES + QUICK_ARCHITECTURE
    if "fine_tuned" in command:
        words += QUICK_REFERENCES
    assert train(words) == 0
    assert list(folder.glob("runs/*/report.html"))


@pytest.mark.slow
@pytest.mark.parametrize("command", TUNE)
def test_tune_commands_run(command, folder, store):
    """The documented search, shortened, and the run of its winner."""
    from mia_lightning.cli import train, tune

    quick = [*QUICK, *store, "--search.trials", "2", "--search.engine", "local"]
    if "references" in command:
        quick += [*QUICK_REFERENCES, "--search.scheduler", "none", "--search.trials", "1"]
        (folder / "quick.yaml").write_text("search: {space: {references.training.epochs: {low: 1, high: 2}}}")
        quick += ["--config", "quick.yaml"]
    else:
        quick += ["--extraction.queries", "18", "--attacks.mlp.epochs", "1"]
    assert tune([*arguments(command), *quick]) == 0
    (best,) = folder.glob("runs/*/best.yaml")
    for winner in [c for c in TRAIN if str(best.relative_to(folder)) in c]:
        assert train(arguments(winner)) == 0


@pytest.mark.parametrize("command", EVALUATE)
def test_evaluate_commands_run(command, folder, capsys):
    from mia_lightning.cli import evaluate

    rng = np.random.default_rng(0)
    member = rng.permutation(np.repeat([0, 1], 100))
    scores = "id,membership,phi\n" + "".join(f"{i},{m},{m + rng.normal()}\n" for i, m in enumerate(member))
    for name in ("scores.csv", "runs/fine_tuned/scores.csv", "runs/audit/scores.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(scores)
    (folder / "key.csv").write_text("ids,membership\n" + "".join(f"{i},{m}\n" for i, m in enumerate(member)))
    (folder / "unlabeled.csv").write_text("id,score\n" + "".join(f"u{i},{rng.normal()}\n" for i in range(100)))
    (folder / "policy.yaml").write_text("criteria: [{figure: auc, max: 0.95}]")
    (folder / "submissions").mkdir()
    for name in "ab":
        rows = "".join(f"{i},{m + rng.normal()}\n" for i, m in enumerate(member))
        (folder / f"submissions/{name}.csv").write_text("ids,score\n" + rows)
    words = arguments(command)
    words = [str(path) for word in words for path in (sorted(folder.glob(word)) if "*" in word else [word])]
    assert evaluate(words) == 0, capsys.readouterr().err
    if "--output" in words:
        output = folder / words[words.index("--output") + 1]
        assert {"report.html", "audit_card.md", "metrics.json", "records.csv"} <= {p.name for p in output.iterdir()}


@pytest.mark.parametrize("command", COMPARE)
def test_compare_commands_run(command, folder):
    from mia_lightning.cli import compare

    for seed, name in enumerate(word for word in arguments(command)[:2]):
        rng = np.random.default_rng(seed)
        (folder / name).mkdir(parents=True)
        rows = "".join(f"{i},{i % 2},{i % 2 + rng.normal()}\n" for i in range(100))
        (folder / name / "scores.csv").write_text("id,membership,phi\n" + rows)
    assert compare(arguments(command)) == 0


def test_canary_commands_run(tmp_path, monkeypatch):
    from mia_lightning.canary.manifest import read_manifest
    from mia_lightning.cli import canaries

    monkeypatch.chdir(tmp_path)
    np.savez("records.npz", images=np.random.default_rng(0).random((100, 1, 4, 4)), labels=np.arange(100) % 4)
    audit, make = CANARIES
    assert canaries(arguments(make)) == 0
    manifest = read_manifest("canaries")
    pairs = list(zip(manifest.ids, manifest.coins, strict=True))
    (tmp_path / "canary_scores.csv").write_text("ids,score\n" + "".join(f"{i},{coin}\n" for i, coin in pairs))
    (tmp_path / "trained.csv").write_text("id\n" + "".join(f"{i}\n" for i, coin in pairs if coin))
    assert canaries(arguments(audit)) == 0


@pytest.mark.parametrize("command", INFORMATION)
def test_information_commands_run(command, capsys):
    from mia_lightning.cli import train

    try:
        code = train(arguments(command))
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_python_of_the_research_guide(folder, capsys):
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", TEXT["docs/guides/research.md"], flags=re.DOTALL)]
    exec(compile(block, "research.md", "exec"), {})
    auc = float(re.search(r"AUC ([\d.]+)", capsys.readouterr().out)[1])
    assert 0.5 < auc < 1


def test_links_lead_to_files():
    for name, text in TEXT.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text, flags=re.DOTALL):
            if not link.startswith("https://"):
                assert ((ROOT / name).parent / link.partition("#")[0]).exists(), f"{name}: {link}"


def test_configurations_are_documented():
    page = TEXT["docs/reference/configurations.md"]
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"| `{path.stem}` |" in page, path.name
