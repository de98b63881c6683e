"""Policies: parsing, outcomes by intervals, the share of false passes, and the numbers of records that decide."""

import json
import re
import xml.etree.ElementTree as Xml

import numpy as np
import pytest
from helpers import ROOT
from scipy.special import ndtr, ndtri

from mia_lightning.cli import evaluate
from mia_lightning.config.command_line import load_config
from mia_lightning.errors import MIAError
from mia_lightning.metrics.intervals import tpr_interval
from mia_lightning.pipeline.policy import check_records, policy_of_run
from mia_lightning.policy.needed import growth, records_needed, tpr_growth
from mia_lightning.policy.policy import parse_policy
from mia_lightning.records import make_records

POLICY = "criteria:\n  - {figure: tpr, fpr: 0.05, max: %g}\n"


def scores_file(path, n=600, shift=1.0):
    rng = np.random.default_rng(3)
    member = np.arange(n) % 2
    values = rng.normal(size=n) + shift * member
    rows = [f"r{i},{m},{i % 3},{v:.6f}" for i, (m, v) in enumerate(zip(member, values, strict=True))]
    path.write_text("id,membership,label,attack\n" + "\n".join(rows) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return scores_file(tmp_path_factory.mktemp("scores") / "scores.csv")


@pytest.mark.parametrize(("margin", "code", "outcome"), [(0.5, 0, "pass"), (0.1, 3, "fail")])
def test_evaluate_policy(scores, tmp_path, capsys, margin, code, outcome):
    (tmp_path / "policy.yaml").write_text("title: gate\nattacks: [attack]\n" + POLICY % margin)
    assert evaluate([scores, "--policy", str(tmp_path / "policy.yaml"), "--resamples", "100"]) == code
    assert f"policy: gate: {outcome} (1 {outcome}; 300 members" in capsys.readouterr().out


def test_decision_files(scores, tmp_path):
    (tmp_path / "policy.yaml").write_text("title: gate\n" + POLICY % 0.27)
    options = ("--policy", str(tmp_path / "policy.yaml"), "--output", str(tmp_path / "out"), "--resamples", "100")
    assert evaluate([scores, *options]) == 4
    record = json.loads((tmp_path / "out/decision.json").read_text())
    assert record == json.loads((tmp_path / "out/metrics.json").read_text())["decision"]
    assert (record["outcome"], record["exit_code"]) == ("inconclusive", 4)
    assert set(record["digests"]) == {"policy", "scores"}
    assert "mia-lightning" in record["versions"]
    assert record["results"][0]["needed_members"] > 300
    suite = Xml.fromstring((tmp_path / "out/decision.xml").read_text())
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "1")
    line = (tmp_path / "out/decision.md").read_text()
    assert line.startswith("**INCONCLUSIVE** gate")
    assert line.count("\n") == 1
    for name in ("report.html", "audit_card.md"):
        assert "gate: inconclusive" in (tmp_path / "out" / name).read_text()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("criterion: []", "unknown key 'criterion'; did you mean 'criteria'"),
        ("criteria: []", "has no criteria"),
        ("criteria: [{figure: tpr, fpr: 0.05, max: 0.2, min: 0}]", "unknown key 'min'"),
        ("criteria: [{figure: tpr, max: 0.2}]", "fpr must be a number"),
        ("criteria: [{figure: tpr, fpr: 0.05, max: 0.05}]", "since guessing reaches 0.05"),
        ("criteria: [{figure: tpr, fpr: 0.05, max: 1.2}]", "max of tpr must lie between 0 and 1, got 1.2"),
        ("criteria: [{figure: auc, max: 0.5}]", "max of auc must lie between 0.5 and 1"),
        ("criteria: [{figure: auc, max: .nan}]", "max must be a number"),
        ("criteria: [{figure: auc, max: true}]", "max must be a number"),
        ("criteria: [{figure: auc, fpr: 0.1, max: 0.6}]", "auc has no fpr"),
        ("criteria: [{figure: f1, max: 0.6}]", "figure 'f1' is unknown"),
        ("criteria: [{figure: auc, max: 0.6}, {figure: auc, max: 0.7}]", "two criteria limit the same figure"),
        ("criteria: [{figure: auc, max: 0.6}]\nminimum_members: -1", "minimum_members must be a whole number"),
        ("criteria: [{figure: auc, max: 0.6}]\nattacks: lira", "attacks must be a list"),
        ("criteria: [{figure: auc, max: 0.6}]\nattacks: [lira]", "requires attack 'lira', which is not run"),
        ("criteria: [{figure: auc, max: 0.6}]\naccess: [root]", "access 'root' is unknown"),
        ("criteria: [{figure: auc, max: 0.6}]\naccess: [logits]", "scores alone do not show"),
        ("criteria: [{figure: generalization_gap, max: 0.1}]", "scores alone do not show"),
        ("criteria: [{figure: worst_group, fpr: 0.05, max: 0.2}]", "has no groups; add a column group"),
        ("- a", "holds a list; expected a mapping"),
    ],
)
def test_bad_policy(scores, tmp_path, capsys, text, part):
    (tmp_path / "policy.yaml").write_text(text)
    assert evaluate([scores, "--policy", str(tmp_path / "policy.yaml"), "--output", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert part in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_policy(scores, tmp_path, capsys):
    assert evaluate([scores, "--policy", str(tmp_path / "no.yaml")]) == 2
    assert "cannot read the configuration" in capsys.readouterr().err


def test_all_figures(scores, tmp_path, capsys):
    criteria = "[{figure: auc, max: 0.9}, {figure: epsilon, max: 6}, {figure: worst_class, fpr: 0.05, max: 0.6}]"
    (tmp_path / "policy.yaml").write_text(f"minimum_members: 5000\ncriteria: {criteria}")
    assert evaluate([scores, "--policy", str(tmp_path / "policy.yaml"), "--resamples", "100"]) == 4
    printed = capsys.readouterr().out
    assert "policy inconclusive: at least 5,000 members: 300 members" in printed
    assert printed.count("policy pass: ") == 3


def test_scores_the_wrong_way_round_never_pass(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY % 0.5)
    turned = scores_file(tmp_path / "scores.csv", shift=-1.0)
    assert evaluate([turned, "--policy", str(tmp_path / "policy.yaml"), "--resamples", "100"]) == 4


def test_false_passes_are_rare():
    """A TPR at its margin passes in at most 5% of audits."""
    rng, fpr, shift, times = np.random.default_rng(0), 0.05, 0.5, 400
    margin = float(ndtr(shift - ndtri(1 - fpr)))
    passed = 0
    for _ in range(times):
        members, non_members = np.sort(rng.normal(shift, 1, 800)), np.sort(rng.normal(0, 1, 800))
        passed += tpr_interval(members, non_members, fpr)[1] < margin
    assert passed / times <= 0.05


def test_needed_records_have_the_power():
    """Audits of fresh records decide in 80% at a size between 0.8 and 1.25 of the one named."""
    fpr, shift, margin = 0.05, 0.5, 0.16
    levels = (np.arange(20_000) + 0.5) / 20_000
    factor = tpr_growth(ndtri(levels) + shift, ndtri(levels), fpr, margin)
    rng, times, power = np.random.default_rng(1), 400, {}
    for change in (0.8, 1.25):
        n = int(20_000 * factor * change)
        sides = ((np.sort(rng.normal(shift, 1, n)), np.sort(rng.normal(0, 1, n))) for _ in range(times))
        power[change] = np.mean([tpr_interval(members, others, fpr)[1] < margin for members, others in sides])
    assert power[0.8] < 0.8 < power[1.25]


def test_growth_formula():
    assert growth(0.5, 0.4, 0.6, 0.7) == pytest.approx(((0.1 / 0.2) * (1 + ndtri(0.8) / ndtri(0.975))) ** 2)
    assert growth(0.5, 0.4, 0.6, 0.5) is None
    assert records_needed(1000, 1.2345) == 1300
    assert records_needed(1000, None) is None


def test_policy_of_values():
    values = {"criteria": [{"figure": "tpr", "fpr": 0.01, "max": 0.05}], "access": ["references"]}
    policy = parse_policy(values, "p.yaml")
    assert policy.criteria[0].name == "TPR at FPR 1% below 5%"
    with pytest.raises(MIAError, match=r"requires access 'references'.*--references\.count"):
        policy.check_access(["logits"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("attacks: [lira]", "requires attack 'lira', which is not run"),
        ("access: [references]", "requires access 'references', which no attack of this audit has (it has logits"),
        ("access: [gradients]", "give --extraction.gradients true"),
    ],
)
def test_policy_is_checked_against_a_run(tmp_path, text, part):
    (tmp_path / "policy.yaml").write_text(f"{text}\n{POLICY % 0.2}")
    with pytest.raises(MIAError, match=re.escape(part)):
        policy_of_run(load_config("demo", policy=str(tmp_path / "policy.yaml")))


def test_example_policy_fits_the_demo():
    assert policy_of_run(load_config("demo", policy=str(ROOT / "examples/policy.yaml"))).title == "Release gate"


def test_multi_label_records_have_a_gap_but_no_classes():
    labels = np.array([[1, 0], [0, 1], [1, 1]])
    records = make_records("several", np.zeros((3, 5)), labels=labels, membership=[1, 0, 1])
    assert records.multi_hot is not None
    gap = parse_policy({"criteria": [{"figure": "generalization_gap", "max": 0.1}]}, "p")
    classes = parse_policy({"criteria": [{"figure": "worst_class", "fpr": 0.1, "max": 0.5}]}, "p")
    check_records(gap, records)
    with pytest.raises(MIAError, match="worst_class, but several has no labels"):
        check_records(classes, records)
    unlabeled = make_records("unlabeled", np.zeros((3, 5)), membership=[1, 0, 1])
    with pytest.raises(MIAError, match="generalization_gap, which unlabeled does not show"):
        check_records(gap, unlabeled)
