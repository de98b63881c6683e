"""The command on files of scores, from the table to the files, and every mistake as one sentence."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers.forked import Forked, python
from sklearn.metrics import roc_auc_score

from mia_lightning.cli import evaluate
from mia_lightning.evaluation.assess import assess
from mia_lightning.evaluation.leaderboard import rank_submissions
from mia_lightning.scores.files import read_scores
from mia_lightning.security.csv_formulas import formula_safe


def write(path, **columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def example(n=600):
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, n)
    ids = [f"=r{i}" if i == 0 else f"r{i}" for i in range(n)]
    scores = {"lira": rng.normal(size=n) + member, "loss": rng.normal(size=n) + 0.3 * member}
    return {"id": ids, "membership": member, "label": rng.integers(0, 5, n), **scores}


@pytest.fixture
def scores(tmp_path):
    return write(tmp_path / "scores.csv", **example())


QUICK = ("--resamples", "100")


def test_table_and_files(scores, tmp_path, capsys):
    assert evaluate([scores, "--output", str(tmp_path / "out"), *QUICK]) == 0
    stdout = capsys.readouterr().out
    for part in (
        "TPR at FPR 1%",
        "too few non-members",
        "loss (primary attack)",
        "verdict: Members can be recognized",
        "lira - loss",
        "Jaccard",
        "q = 5%",
        "epsilon",
        "blind baseline: pass",
    ):
        assert part in stdout
    content = json.loads((tmp_path / "out/metrics.json").read_text())
    columns = example()
    assert content["attacks"]["lira"]["auc"] == pytest.approx(roc_auc_score(columns["membership"], columns["lira"]))
    assert content["attacks"]["lira"]["partial_auc"] == pytest.approx(
        roc_auc_score(columns["membership"], columns["lira"], max_fpr=0.05)
    )
    assert {check["name"] for check in content["sanity_checks"]} >= {
        "blind baseline",
        "column audit",
        "intervals at chance",
    }
    rows = list(csv.DictReader((tmp_path / "out/records.csv").open()))
    assert [row["id"] for row in rows[:2]] == ["'=r0", "r1"]
    assert set(rows[0]) == {
        "id",
        "membership",
        *(f"{a}_{p}" for a in ("lira", "loss") for p in ("score", "p_value", "class_p_value", "q_value")),
    }
    assert float(rows[5]["lira_score"]) == columns["lira"][5]
    assert not list((tmp_path / "out").glob(".*"))


def test_same_scores_same_files(scores, tmp_path):
    for name in ("a", "b", "a"):  # the third writes over the first
        assert evaluate([scores, "--output", str(tmp_path / name), *QUICK]) == 0
    for name in ("metrics.json", "records.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_command_is_the_function(scores, tmp_path):
    assert evaluate([scores, "--output", str(tmp_path / "out"), *QUICK]) == 0
    content = json.loads((tmp_path / "out/metrics.json").read_text())
    assessment = assess(read_scores(scores).records, bootstrap=100)
    assert content["differences"][0]["p_holm"] == assessment.differences[0].p_holm
    assert content["bounds"][1]["epsilon"] == assessment.bounds[1].epsilon


def test_one_attack_alone(tmp_path, capsys):
    columns = example()
    path = write(tmp_path / "one.csv", id=columns["id"], membership=columns["membership"], lira=columns["lira"])
    assert evaluate([path, "--one_run.random_inclusion", "true", "--fprs", "[0.01]", *QUICK]) == 0
    stdout = capsys.readouterr().out
    assert "one run (Steinke" in stdout
    assert "Jaccard" not in stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "0 files of scores"),
        (["{scores}", "{scores}"], "2 files of scores"),
        (["{folder}/nowhere.csv"], "nowhere.csv: cannot be read"),
        (["{scores}", "--attacks", "[lyra]"], "did you mean 'lira'"),
        (["{scores}", "--atacks", "[lira]"], "did you mean 'attacks'"),
        (["{scores}", "--resamples", "many"], "--resamples: expected int"),
        (["{scores}", "--resamples", "10"], "10 resamples are too few"),
        (["{scores}", "--delta", "1"], "delta must lie in"),
        (["{scores}", "--fprs", "[1.5]"], "false-positive rate must lie"),
        (["{scores}", "--split", "public"], "no column split"),
        (["{scores}", "--key", "{folder}/short.csv"], "are missing"),
        (["{scores}", "--output", "{folder}"], "holds other files"),
        (["--leaderboard", "{key}"], "without submissions"),
        (["--leaderboard", "{key}", "{folder}/short.csv"], "no column score"),
        (["--leaderboard", "{key}", "{scores}", "{scores}"], "named twice"),
    ],
)
def test_mistakes_exit_with_one_sentence(arguments, said, scores, tmp_path, capsys):
    columns = example()
    key = write(tmp_path / "key.csv", id=columns["id"], membership=columns["membership"])
    write(tmp_path / "short.csv", id=columns["id"][:9], membership=[0, 1] * 4 + [0])
    filled = [text.format(scores=scores, folder=tmp_path, key=key) for text in arguments]
    assert evaluate([*filled, *(() if "--resamples" in filled else QUICK)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_help_is_quick():
    script = (
        "import sys\nfrom mia_lightning.cli import evaluate\n"
        "try: evaluate(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'lightgbm', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--leaderboard" in done.stdout


def test_module_runs(tmp_path):
    process = Forked(python(["-m", "mia_lightning.evaluate", tmp_path / "nowhere.csv"], fresh=True))
    assert process.wait() == 2
    assert process.stderr.read().startswith("error: nowhere.csv")


def test_formulas_are_made_safe():
    assert [formula_safe(cell) for cell in ("=1+1", "@x", "-a", "+a", "\ta", "a=1", -5, 0.5)] == [
        "'=1+1",
        "'@x",
        "'-a",
        "'+a",
        "'\ta",
        "a=1",
        -5,
        0.5,
    ]


# ---- leaderboard


def submissions(tmp_path, n=3000):
    rng = np.random.default_rng(1)
    member = rng.integers(0, 2, n)
    base = rng.normal(size=n)
    values = {"best": base + 2 * member, "close": base + 1.98 * member + 0.05 * rng.normal(size=n), "weak": base}
    values["copy"] = np.exp(values["best"])
    ids = rng.permutation(n)
    key = write(tmp_path / "key.csv", ids=ids, membership=member)
    order = rng.permutation(n)
    files = [write(tmp_path / f"{name}.csv", ids=ids[order], score=v[order]) for name, v in values.items()]
    return key, files, values, member


def test_leaderboard_ranks_and_ties(tmp_path, capsys):
    key, files, values, member = submissions(tmp_path)
    assert evaluate(["--leaderboard", key, *files, "--fpr", "0.05", "--output", str(tmp_path / "out"), *QUICK]) == 0
    assert "best (tied with copy)" in capsys.readouterr().out
    rows = {row["submission"]: row for row in csv.DictReader((tmp_path / "out/leaderboard.csv").open())}
    assert [rows[name]["rank"] for name in ("best", "copy", "weak")] == ["1", "1", "4"]
    for name in ("best", "copy", "close"):
        assert (rows[name]["rank_low"], rows[name]["rank_high"]) == ("1", "3")
    assert (rows["weak"]["rank_low"], rows["weak"]["rank_high"]) == ("4", "4")
    assert float(rows["close"]["gap_low"]) > 0
    assert rows["weak"]["gap_to_next"] == ""
    assert float(rows["best"]["auc"]) == pytest.approx(roc_auc_score(member, values["best"]))


def test_order_of_submissions_does_not_matter():
    rng = np.random.default_rng(2)
    member = rng.integers(0, 2, 500)
    scores = {name: rng.normal(size=500) + shift * member for name, shift in (("a", 0), ("b", 1), ("c", 2))}
    once = rank_submissions(scores, member, 0.1, resamples=100)
    again = rank_submissions(dict(reversed(scores.items())), member, 0.1, resamples=100)
    assert once == again
    assert [p.name for p in once] == ["c", "b", "a"]


def test_leaderboard_without_false_positives():
    """Equal submissions, 50 non-members, FPR 1%: the bootstrap of the highest non-member separates a third of them."""
    separated = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        member = np.repeat([1, 0], (200, 50))
        scores = {f"s{k}": rng.normal(size=250) + 1.5 * member for k in range(6)}
        places = rank_submissions(scores, member, 0.01, resamples=100)
        separated.append(any((place.rank_low, place.rank_high) != (1, 6) for place in places))
        assert all(place.gap_low is None for place in places)
    assert not any(separated)


def test_ids_that_do_not_match_the_key(tmp_path, capsys):
    key = write(tmp_path / "key.csv", ids=[1, 2, 3], membership=[0, 1, 1])
    submission = write(tmp_path / "sub.csv", ids=[1, 2, 4], score=[1, 2, 3])
    assert evaluate(["--leaderboard", key, submission]) == 2
    assert "1 ids of key.csv are missing, first 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--bound", "one_run"), "assumes independent random inclusion"),
        (
            ("--bound", "one_run_gaussian", "--one_run.random_inclusion", "true", "--delta", "0"),
            "no epsilon at delta 0",
        ),
        (("--bound", "best"), "expected one of counts, one_run"),
    ],
)
def test_a_reported_bound_is_checked_before_work(scores, capsys, options, part):
    assert evaluate([scores, *options]) == 2
    assert part in capsys.readouterr().err


def test_overwrite_replaces_an_earlier_result_only(scores, tmp_path, capsys):
    folder = tmp_path / "it"
    arguments = [str(scores), *QUICK, "--output", str(folder)]
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 1")
    (folder / "submission.csv").write_text("old")
    assert evaluate(arguments) == 2
    assert f"--output {tmp_path}/it-2, or --overwrite to replace" in capsys.readouterr().err
    assert evaluate([*arguments, "--overwrite"]) == 0
    assert not (folder / "submission.csv").exists()
    assert (folder / "metrics.json").exists()
    (folder / "leaderboard.csv").write_text("old")
    assert evaluate([*arguments, "--overwrite"]) == 0
    assert not (folder / "leaderboard.csv").exists()
    (folder / "config.yaml").write_text("seed: 1")
    (folder / "thesis.tex").write_text("mine")
    assert evaluate([*arguments, "--overwrite"]) == 2
    assert (folder / "thesis.tex").read_text() == "mine"
