"""The table over many targets: trained once by two processes, resumed, and recomputed by the published formulas."""

import csv
import os
import re

import numpy as np
import pytest
from helpers import ROOT
from helpers.forked import Forked, python

from mia_lightning.benchmarking.figures import FPRS, GRID, NAMES, figures, mean_interval
from mia_lightning.benchmarking.plot import plot_curves
from mia_lightning.benchmarking.pool import train_models
from mia_lightning.benchmarking.tables import TableRow, to_latex, to_markdown
from mia_lightning.cli import benchmark, train
from mia_lightning.config.command_line import parse_benchmark
from mia_lightning.metrics.roc import auc, tpr_at_fpr
from mia_lightning.references import workers

OPTIONS = ["--targets", "2", "--references", "1,2,4", "--training.epochs", "6", "--training.batch_size", "20"]
LEARNED = ("quantile regression", "LightGBM", "head across references")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records, and the models trained by two processes, each as a task of a SLURM array."""
    folder, draw = tmp_path_factory.mktemp("benchmark"), np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (160, 1, 8, 8), dtype=np.uint8), draw.integers(0, 4, 160)
    np.savez(folder / "records.npz", images=images, labels=labels, membership=draw.integers(0, 2, 160))
    command = python(["-m", "mia_lightning.benchmark", *arguments(folder)])
    array = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1", "PYTHONPATH": str(ROOT)}
    tasks = [Forked(command, env=os.environ | array | {"SLURM_ARRAY_TASK_ID": str(task)}) for task in (1, 2)]
    messages = [task.communicate()[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], messages
    assert all("3 of 6 to train (part" in message for message in messages), messages
    return folder


def arguments(folder, output="out"):
    return ["--data", str(folder / "records.npz"), "--output", str(folder / output), *OPTIONS]


def read(path):
    with path.open() as file:
        return {(row["attack"], int(row["references"])): row for row in csv.DictReader(file)}


def test_last_task_writes_every_file(folder):
    assert {"benchmark.csv", "benchmark.md", "benchmark.tex", "roc.pdf", "roc.svg"} <= set(os.listdir(folder / "out"))
    rows = read(folder / "out" / "benchmark.csv")
    assert {("Attack P", 0), ("LightGBM", 0), ("quantile regression", 0), ("head across references", 4)} <= set(rows)
    assert len({attack for attack, _ in rows}) >= 13
    assert all(row["targets"] == "2" and row["queries"] == "2" for row in rows.values())
    assert r"\toprule" in (folder / "out" / "benchmark.tex").read_text()
    assert (folder / "out" / "roc.pdf").read_bytes().startswith(b"%PDF")


def test_resumes(folder, monkeypatch):
    before = (folder / "out" / "benchmark.csv").read_bytes()
    monkeypatch.setattr(workers, "train_and_query", None)  # nothing is trained again
    monkeypatch.setattr("mia_lightning.benchmarking.run.scores_of_target", None)  # nor scored
    assert benchmark(arguments(folder)) == 0
    assert (folder / "out" / "benchmark.csv").read_bytes() == before


@pytest.mark.extended
def test_two_ray_nodes(folder, tmp_path):
    """Two workers on a cluster of two nodes with one CPU each: the table is that of the SLURM array's tasks."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        options = ["--workers", "2", "--ray_address", cluster.address, "--cache_dir", str(tmp_path / "store")]
        command = python(
            ["-m", "mia_lightning.benchmark", *arguments(folder), *options, "--output", str(tmp_path / "out")]
        )
        task = Forked(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert task.communicate()[1] is not None
        assert task.returncode == 0
    finally:
        cluster.shutdown()
    one, two = (read(path / "out" / "benchmark.csv") for path in (folder, tmp_path))
    assert one.keys() == two.keys()
    for row, of_one in one.items():
        assert {**two[row], "seconds": ""} == {**of_one, "seconds": ""}


def test_rows_equal_the_published_formulas(folder):
    """plot.py of mi_lira_2021 (generate_ours) and RMIA's log ratio, one record at a time."""
    models = train_models(parse_benchmark(arguments(folder))).outputs
    phi, keep = np.asarray(models.references, np.float64), models.keep
    areas = {"LiRA online, published": [], "RMIA online": []}
    for target in (0, 1):  # the pair 0, 1 plays target, so the references are the other pairs
        published, ratio = [], []
        for i in range(phi.shape[1]):
            sides = [phi[2:, i][keep[2:, i] == in_] for in_ in (True, False)]
            pdf = [
                -((phi[target, i] - np.median(s, 0)) ** 2) / (2 * (s.std(0) + 1e-30) ** 2) - np.log(s.std(0) + 1e-30)
                for s in sides
            ]
            published.append((pdf[0] - pdf[1]).mean())
            p = [1 / (1 + np.exp(-s)) for s in sides]
            mean = (p[0].mean(0) + p[1].mean(0)) / 2
            ratio.append(np.log(1 / (1 + np.exp(-phi[target, i])) / mean).mean())
        for name, scores in zip(areas, (published, ratio), strict=True):
            areas[name].append(auc(np.array(scores), keep[target].astype(np.int8)))
    rows = read(folder / "out" / "benchmark.csv")
    for name, values in areas.items():
        mean, half = mean_interval(values)
        assert float(rows[name, 4]["AUC"]) == pytest.approx(mean, abs=1e-6)
        assert float(rows[name, 4]["AUC half width"]) == pytest.approx(half, abs=1e-6)


def test_figures():
    draw = np.random.default_rng(0)
    member = draw.random(500) < 0.5
    scores = np.round(draw.normal(size=500) + member, 1)  # with ties
    found = figures(scores, member)
    assert found.values[0] == pytest.approx(auc(scores, member.astype(np.int8)))
    thresholds = np.unique(scores)
    balanced = max((np.mean(scores[member] >= t) + np.mean(scores[~member] < t)) / 2 for t in thresholds)
    assert found.values[1] == pytest.approx(balanced)
    for fpr, value in zip((*FPRS, *GRID[:-1]), (*found.values[2:], *found.roc), strict=False):
        assert value == pytest.approx(tpr_at_fpr(scores, member.astype(np.int8), fpr))
    assert found.roc[-1] == 1
    assert len(found.values) == len(NAMES)


ODD = r"_50% & $x$ #|{~^\ ±"


@pytest.fixture
def thirteen():
    """Rows of thirteen attacks on four targets, one with a name of special characters."""
    draw = np.random.default_rng(0)
    member = draw.random(400) < 0.5
    names = [ODD, *(f"attack {number}" for number in range(12))]
    results = [[figures(draw.normal(size=400) + member * k / 3, member) for _ in range(4)] for k in range(13)]
    return [
        TableRow(name, 8, tuple(f.values for f in of_targets), tuple(f.roc for f in of_targets), 2, 1.0)
        for name, of_targets in zip(names, results, strict=True)
    ]


def test_latex_and_markdown_escape_names(thirteen):
    lines = to_latex(thirteen, "two\nlines of 50%").splitlines()
    body = [line for line in lines if line.endswith(r" \\")]
    assert all(line.startswith(("%", "\\")) for line in lines if line not in body)
    assert len(body) == 14
    for line in body:
        plain = re.sub(r"\\[%&#_${}]", "", line.replace(r"$\pm$", ""))  # what is escaped or a known formula
        assert not re.findall(r"[%#_$~^±]", plain)
        assert r"\begin{tabular}{l" + "r" * plain.count("&") + "}" in lines
        assert plain.count("{") == plain.count("}")
    printed = r"\_50\% \& \$x\$ \#|\{\textasciitilde{}\textasciicircum{}\textbackslash{} $\pm$ & 8 & "
    assert body[1].startswith(printed)
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in to_markdown(thirteen, "a\nb").splitlines()[2:17]]
    assert cells == [12] * 15


def test_curves_of_thirteen_attacks_have_axes_intervals_and_names(thirteen):
    figure = plot_curves(thirteen, non_members=200)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 3
    assert "200 non-members" in figure.get_supxlabel()
    assert "mean over 4 targets" in figure.get_supylabel()
    names = []
    for axes in panels:
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlim()) == ("log", "log", (1 / 200, 1))
        handles, labels = axes.get_legend_handles_labels()
        assert len({handle.get_color() for handle in handles}) == len(labels) == len(axes.collections) <= 5
        names += [text.get_text() for text in axes.get_legend().get_texts()]
    at_one_percent = {row.attack: np.mean([values[NAMES.index("TPR@1%")] for values in row.values]) for row in thirteen}
    best_first = sorted(at_one_percent, key=lambda name: -at_one_percent[name])
    assert [name.replace(r"\$", "$").strip("\u200b") for name in names] == [f"{name}, K = 8" for name in best_first]
    at = GRID.searchsorted(0.1)
    best = next(row for row in thirteen if row.attack == best_first[0])
    mean, half = mean_interval([curve[at] for curve in best.roc])
    drawn = panels[0].collections[0].get_paths()[0].vertices
    ends = drawn[drawn[:, 0] == GRID[at], 1]
    np.testing.assert_allclose([ends.min(), ends.max()], [mean - half, min(mean + half, 1)])


@pytest.mark.parametrize(("targets", "count"), [("all", 6), ("0,3", 2)])
def test_models_of_an_import_are_targets(targets, count, folder, tmp_path):
    outputs = train_models(parse_benchmark(arguments(folder))).outputs
    np.savez(tmp_path / "pool.npz", phi=outputs.references, keep=outputs.keep, labels=outputs.labels)
    given = [f"--references.imported={tmp_path / 'pool.npz'}", "--evaluation.targets", targets]
    assert train([*given, "--output", str(tmp_path / "run")]) == 0
    rows = read(tmp_path / "run" / "benchmark.csv")
    assert rows["LiRA online", 4]["targets"] == str(count)
    if targets == "all":
        options = ["--pool", str(tmp_path / "pool.npz"), "--targets", "all", "--heads", "false", "--references", "4"]
        assert benchmark([*options, "--output", str(tmp_path / "again")]) == 0
        assert read(tmp_path / "again" / "benchmark.csv")["RMIA online", 4] == rows["RMIA online", 4]


def medmnist(folder, draw):
    """As MedMNIST stores a set: labels (N, 1), gray images without channels."""
    arrays = {
        f"{part}_images": draw.integers(0, 256, (30, 28, 28), dtype=np.uint8) for part in ("train", "val", "test")
    }
    labels = {f"{part}_labels": draw.integers(0, 3, (30, 1), dtype=np.uint8) for part in ("train", "val", "test")}
    np.savez(folder / "pneumoniamnist.npz", **arrays, **labels)
    return [f"medmnist:PneumoniaMNIST?root={folder}"], "2"


def table(folder, draw):
    rows = [f"{a:.0f},{b:.3f},{int(b > 0)},Rome" for a, b in draw.normal(size=(60, 2)) * [9, 1]]
    (folder / "table.csv").write_text("\n".join(["age,income,rich,city", *rows]))
    return [folder / "table.csv", "--columns", "{city: ignore, rich: label}"], "1"


@pytest.mark.parametrize("write", [medmnist, table])
def test_other_data(write, tmp_path, caplog):
    data, queries = write(tmp_path, np.random.default_rng(0))
    options = ["--targets", "2", "--references", "1,2", "--training.epochs", "2", "--training.batch_size", "10"]
    folder = tmp_path / "out"
    assert benchmark(["--data", *map(str, data), *options, "--heads", "false", "--output", str(folder)]) == 0
    if write is medmnist:  # whose labels are random
        assert "train longer with --training.epochs" in caplog.text
    rows = read(folder / "benchmark.csv")
    assert {row["queries"] for row in rows.values()} == {queries}
    assert ("RMIA online", 2) in rows


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "give either --data"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--pool", "nowhere"], "nowhere"),
        (["--data", "x", "--references", "0"], "--references must be at least 1"),
        (["--data", "x", "--target", "3"], "did you mean 'targets'"),
        (["--data", "x", "--targets", "0"], "--targets must be at least 1"),
        (["--data", "{folder}/text.csv"], "or leave it out: --columns '{city: ignore}'"),
        (["--data", "{folder}/text.csv", "--columns", "{city: feature}"], "--columns"),
        (["--data", "{folder}/gap.csv"], "column 'size' has missing values"),
        (["--data", "{folder}/text.csv", "--columns", "{city: nothing}"], "--columns"),
        (["--data", "medmnist:ChestMNIST?root={folder}"], "14 labels each (multi-label)"),
        (["--data", "{records}", "--architecture", "resnet999", "--training.batch_size", "20"], "resnet999"),
        (["--data", "{records}", "--training.batch_size", "500"], "lower --training.batch_size"),
    ],
)
def test_mistakes(options, sentence, folder, tmp_path, capsys):
    labels = np.random.default_rng(0).integers(0, 2, (20, 14), dtype=np.uint8)
    images = np.zeros((20, 28, 28), np.uint8)
    arrays = {f"{part}_{name}": a for part in ("train", "test") for name, a in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    (tmp_path / "text.csv").write_text("age,label,city\n1,0,Rome\n2,1,Oslo\n")
    (tmp_path / "gap.csv").write_text("age,label,size\n1,0,2\n2,1,\n")
    places = {"{records}": folder / "records.npz", "{folder}": tmp_path}
    for place, path in places.items():
        options = [option.replace(place, str(path)) for option in options]
    assert benchmark([*options, "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert "--data." not in message
