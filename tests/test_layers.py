"""One direction of flow: what a module may import, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mia_lightning"
ORDER = [  # a module imports from its own line or the lines above it
    {"errors", "evaluation_config", "spreadsheets"},
    {
        "records",
        "tables",
        "hardware",
        "quiet",
        "atomic",
        "pixels",
        "ranks",
        "unfolding",
        "plug_ins",
        "locks",
        "mapped",
        "interruption",
    },
    {"pickles", "processes", "output_folder", "ray_cluster"},
    {"intervals"},
    {
        "readers",
        "targets",
        "signals",
        "likelihoods",
        "metrics",
        "calibration",
        "store",
        "queries",
        "inference",
        "monitor",
    },
    {"attacks", "datamodule", "assessment", "shards"},
    {"predicting"},
    {
        "crossfit",
        "extraction",
        "plots",
        "comparison",
        "claims",
        "privacy",
        "scores_file",
        "class_figures",
        "learning_curve",
    },
    {"guards", "leaderboard"},
    {"assess"},
    {"report"},
    {"evaluation_files", "evaluation_tables"},
    {"references"},
    {"config"},
    {"search_config"},
    {"parsing"},
    {"embedding"},
    {"pipeline", "demo"},
    {"run_folder", "run_report", "tensorboard", "terminal"},
    {"run", "search"},
    {"cli", "evaluate"},
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
PLUG_INS = {"readers", "targets", "signals", "likelihoods", "attacks"}


def imports(path):
    """Yield the top-level part of each of our modules that a file imports, type checking aside."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and id(node) not in guarded
            and (node.module or "").startswith("mia_lightning.")
        ):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for other in imports(path):
        lazy_loop = (own, other) == ("config", "parsing")  # load_config parses; inside the function
        assert LEVEL[other] <= LEVEL[own] or lazy_loop, f"{own} imports {other}, which stands above it"
        if own in PLUG_INS and other in PLUG_INS:
            assert own == other, f"plug-in packages must not know each other: {own} imports {other}"


def test_importing_the_package_is_free():
    script = "import sys, mia_lightning; print(sorted({'torch', 'numpy', 'lightning', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_extraction_and_attacks_run_without_ray():
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "import mia_lightning.extraction, mia_lightning.pipeline, mia_lightning.run, mia_lightning.cli\n"
        "print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr
