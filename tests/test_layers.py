"""One direction of flow: imports between the packages, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

from helpers.forked import Forked, python

PACKAGE = Path(__file__).parent.parent / "mia_lightning"
ORDER = [  # a package imports from itself and the packages above it in this list
    "errors",
    "security",
    "runtime",
    "metrics",
    "records",
    "targets",
    "outputs",
    "signals",
    "references",
    "attacks",
    "scores",
    "evaluation",
    "policy",
    "report",
    "canary",
    "config",
    "pipeline",
    "comparison",
    "planning",
    "search",
    "benchmarking",
    "cli",
    "evaluate",
    "compare",
    "canaries",
    "benchmark",
    "planner",
]
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300
"""Lines of a module."""


def level(name):
    """Return the place of a package in the order."""
    assert name in ORDER, f"mia_lightning/{name} is not in ORDER of tests/test_layers.py; add it above its importers"
    return ORDER.index(name)


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in MODULES}


def imports(path):
    """Yield the name of each of our modules that a file imports, type checking aside."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mia_lightning":
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in NAMES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mia_lightning")


def shown(path):
    return str(path.relative_to(PACKAGE))


def test_imports_point_one_way():
    wrong = []
    for path in MODULES:
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if package != "__init__":
            packages = {[*name.split("."), ""][1] for name in imports(path)}
            below = [other for other in sorted(packages) if level(other) > level(package)]
            wrong += [f"{shown(path)} imports {other}, which stands below it in ORDER" for other in below]
    assert not wrong, "\n".join(wrong)


def test_module_length():
    lines = {shown(path): len(path.read_text().splitlines()) for path in MODULES}
    long = [name for name, count in lines.items() if count > LONGEST]
    assert not long, f"longer than {LONGEST} lines; split them: {long}"


def test_no_import_circles():
    graph = {module_name(path): set(imports(path)) - {module_name(path)} for path in MODULES}
    graph.pop("mia_lightning")  # its names are imported on first use
    done = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_modules_next_to_packages():
    files = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert files == [
        "__init__.py",
        "benchmark.py",
        "canaries.py",
        "cli.py",
        "compare.py",
        "errors.py",
        "evaluate.py",
        "planner.py",
    ]


def test_importing_the_package_is_free():
    script = "import sys, mia_lightning; print(sorted({'torch', 'numpy', 'lightning', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_extraction_and_attacks_run_without_ray():
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "import mia_lightning.outputs.extraction, mia_lightning.pipeline.run, mia_lightning.cli\n"
        "print('fine')"
    )
    stdout, stderr = Forked(python(["-c", script], fresh=True)).communicate()
    assert stdout.strip() == "fine", stderr
