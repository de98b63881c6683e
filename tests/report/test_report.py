"""Report: verdict by its stated rules, figures of the statistics, a page that is safe to open."""

import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from mia_lightning.cli import evaluate
from mia_lightning.config.command_line import load_config
from mia_lightning.config.files import strip_paths
from mia_lightning.config.schema import SearchedConfig
from mia_lightning.evaluation.assess import assess
from mia_lightning.evaluation.assessment import CurvePoint, SanityCheck
from mia_lightning.metrics.roc import evaluate as evaluate_scores
from mia_lightning.references.fidelity import FidelityCheck
from mia_lightning.report.contents import Reference, Report, RunFacts, Source, Stage
from mia_lightning.report.evidence import _above, evidence
from mia_lightning.report.exposed import most_exposed, picture
from mia_lightning.report.figures import draw
from mia_lightning.report.files import metrics, versions
from mia_lightning.report.levels import enough_records
from mia_lightning.report.page import card, html, plain_markdown
from mia_lightning.report.verdict import verdict
from mia_lightning.report.wording import percent, seconds
from mia_lightning.scores.scored_records import ScoredRecords

HOSTILE = ("<script>alert(1)</script>", "$x_{", "_a|b", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}")
VOID = {"meta", "img", "br", "hr", "link", "input", "use", "path", "image"}


def records(n=1200, gain=1.0, seed=0, names=("lira",)):
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.repeat([0, 1], n // 2)).astype(np.int8)
    common = rng.normal(size=n)
    scores = {name: common + 0.3 * rng.normal(size=n) + gain * member for name in names}
    ids = np.array([f"<b>{i}</b>" for i in rng.permutation(n)])
    return ScoredRecords(ids, member, scores, rng.integers(0, 3, n), "scores.csv")


def facts(given):
    curve = [CurvePoint(k, 0.6, 0.5, 0.7, 0.01, 0.02, 0.01, 0.03) for k in (2, 4)]
    counts = int((given.membership == 1).sum()), int((given.membership == 0).sum())
    return RunFacts(
        target={"architecture": "net", "classes": 3, "digest": "0" * 64}
        | {"accuracy_on_members": 0.9, "accuracy_on_non_members": 0.8},
        sources=(Source("public", HOSTILE[0], len(given.ids), *counts, "1" * 64),),
        threat=("The attacker sees logits.",),
        references=(
            Reference(0, "trained", 0.9, 0.8, 2.0, "", (2.0, 1.0, 0.5)),
            Reference(1, "diverged", 0, 0, 0, HOSTILE[3]),
            Reference(2, "trained", 0.9, 0.8, 2.0, "", (0.75,)),  # was interrupted before its last epoch
        ),
        learning_curve={HOSTILE[1]: tuple(curve)},
        by_probability={},
        held_out={},
        private={},
        fit_seconds={name: 1.0 for name in given.scores},
        folds=5,
        seed=0,
        stages=(Stage("attack", 75.0, "a CPU"),),
        configuration=f"output: {HOSTILE[0]}\n",
    )


@pytest.fixture(scope="module")
def full():
    """A report with everything in it, all of whose names are hostile."""
    given = records(names=HOSTILE)
    pixels = np.random.default_rng(1).integers(0, 256, (len(given.ids), 3, 8, 8)).astype(np.uint8)
    assessment = assess(given, bootstrap=100, pixels=pixels)
    return Report(assessment, HOSTILE[0], "named", versions(), (HOSTILE[3],), facts(given), pixels)


@pytest.fixture(scope="module")
def page(full):
    return html(full, draw(full))


def of_scores(given, **changes):
    assessment = replace(assess(given, bootstrap=100), **changes)
    return Report(assessment, next(iter(given.scores)), "named", versions())


class Elements(HTMLParser):
    """Elements with their attributes, and whether every one is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def test_page_is_self_contained_without_scripts(page):
    elements = Elements(page)
    assert elements.open == []
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "a"}
    for _, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert set(re.findall(r"https?://[^\"' ]+", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert "<script>alert(1)</script>" in "".join(elements.texts)
    assert "{{ 7*7 }}" in "".join(elements.texts)


def test_page_is_accessible(page):
    elements = Elements(page)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        for name in ("aria-labeledby",):
            assert attributes.get(name) is None or attributes[name] in ids
    for reference in re.findall(r'xlink:href="#(\w+)"|url\(#(\w+)\)', page):
        assert "".join(reference) in ids
    drawings = elements.all("svg")
    assert len(drawings) == 1 + len(HOSTILE) + 2 + 2 + 3  # ROC, histograms, forest, precision, classes, ...
    assert all(drawing["role"] == "img" and "aria-labelledby" in drawing for drawing in drawings)
    assert all(image.get("alt") for image in elements.all("img"))
    assert len(elements.all("h1")) == 1
    assert elements.all("html") == [{"lang": "en"}]
    assert all("scope" in cell for cell in elements.all("th"))


def test_page_takes_its_colors_from_the_page(page):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "currentColor" in drawn
    assert "var(--series-0)" in drawn
    assert not {color for color in re.findall(r"#[0-9a-f]{6}", drawn)} & {"#24292f", "#0068a8", "#000000"}


def test_size_does_not_grow_with_the_records():
    given = records(40_000, names=("a", "b"))
    report = Report(assess(given, bootstrap=100), "a", "named", versions())
    assert len(html(report, draw(report))) < 400_000


def test_page_holds_every_figure_of_the_headline(full, page):
    text = re.sub(r"\s+", " ", "".join(Elements(page).texts))
    evaluation = full.assessment.attacks[full.headline]
    assert f"{evaluation.auc:.3f}" in text
    assert percent(evaluation.at(0.05).tpr) in text
    for check in full.assessment.checks:
        assert re.sub(r"\s+", " ", check.sentence) in text
    for part in ("Assumed:", "No bound by one run", "1 min 15 s", "a CPU", "Reference 1 is left out"):
        assert part in text


def test_report_of_scores_omits_model_sections():
    report = of_scores(records())
    text = "".join(Elements(html(report, draw(report))).texts)
    assert "made from scores alone" in text
    for part in ("Reference models", "Configuration", "Time and hardware", "Between the attacks"):
        assert part not in text
    assert "not known from scores alone" in card(report)


def test_card_has_no_markup_from_outside(full):
    text = card(full)
    assert not re.search(r"(?<!\\)<", text)
    assert "## Threat model" in text
    assert "1" * 64 in text
    assert plain_markdown("a|b\n# c*") == r"a\|b \# c\*"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_both_kinds_of_figures_keep_to_the_schema(full):
    schema = json.loads(files("mia_lightning.report").joinpath("metrics.schema.json").read_text())
    for report in (full, of_scores(records())):
        figures = json.loads(json.dumps(metrics(report), allow_nan=False))
        jsonschema.validate(figures, schema, jsonschema.Draft202012Validator)
        figures["attacks"][report.headline]["points"][0]["tpr"] = 1.5
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(figures, schema, jsonschema.Draft202012Validator)


def check(name, status, **details):
    return (SanityCheck(name, status, f"Result of {name}.", details),)


def level(report):
    return verdict(report).level


def test_verdict_levels():
    strong, none = records(gain=2.0), records(gain=0.0)
    assert level(of_scores(strong)) == "exposed"
    assert level(of_scores(none)) == "not found"
    tied = replace(strong, scores={"a": np.minimum(strong.scores["lira"], 0.5)})  # ties at the top
    assert level(of_scores(tied)) == "weak"
    for name in ("permutation test (refitted)", "intervals at chance"):
        assert level(of_scores(strong, checks=check(name, "warn"))) == "unreliable"
    carriers = check("column audit", "warn", **{"columns that carry membership": 1})
    assert level(of_scores(strong, checks=carriers)) == "unreliable"
    warned = check("blind baseline", "warn")
    assert level(of_scores(strong, checks=warned, increments=())) == "confounded"
    report = of_scores(strong, checks=warned)
    assert level(report) == "exposed"  # it adds to the baseline
    assert any(sentence.startswith("Caution") for sentence in verdict(report).sentences)
    by_chance = tuple(replace(gain, p_holm=0.2) for gain in report.assessment.increments)
    assert level(of_scores(strong, checks=warned, increments=by_chance)) == "confounded"


def test_small_effect_is_not_called_recognition():
    """TPR 1.5% at 1% FPR with 20,000 records a side is significant and still close to random guessing."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=40_000)
    member = np.repeat([1, 0], 20_000).astype(np.int8)
    scores[:100] = 6 + rng.random(100)
    given = ScoredRecords(np.arange(40_000), member, {"a": scores}, None, "scores.csv")
    conclusion = verdict(of_scores(given))
    assert conclusion.level == "slight"
    assert any("1%, 10%, 50% of all records" in sentence for sentence in conclusion.sentences)


@pytest.mark.parametrize(("members", "non_members"), [(1, 1), (1, 50), (50, 1), (5, 5), (10, 1000), (19, 19)])
def test_few_records_have_a_report_without_verdict(members, non_members):
    member = np.repeat([1, 0], [members, non_members]).astype(np.int8)
    scores = member + 0.01 * np.random.default_rng(0).random(len(member))
    report = of_scores(ScoredRecords(np.arange(len(member)), member, {"a": scores}, None, "scores.csv"))
    conclusion = verdict(report)
    assert conclusion.level == "too few"
    assert "at least 20" in conclusion.sentences[0]
    assert "Too few records" in html(report, draw(report))
    assert "Too few records" in card(report)


def test_wide_interval_is_not_evidence_of_absence():
    given = records(n=60, gain=0.0)
    conclusion = verdict(of_scores(given))
    assert conclusion.level == "too few"
    assert "would exclude" in conclusion.sentences[0]


@pytest.mark.parametrize(("members", "non_members", "attacks"), [(20, 20, 1), (10, 1000, 1), (300, 25, 3)])
def test_stated_number_of_records_excludes_a_high_auc(members, non_members, attacks):
    """Nine of ten audits of so many records have no AUC above 0.6 in any interval; of a third, fewer than half."""
    rng = np.random.default_rng(1)

    def excluded(counts):
        member = np.repeat([1, 0], counts)
        tops = [evaluate_scores(rng.normal(size=len(member)), member, ()).auc_high for _ in range(100 * attacks)]
        return np.mean(np.reshape(tops, (100, attacks)).max(axis=1) <= 0.6)

    member = np.repeat([1, 0], (members, non_members))
    enough = enough_records(evaluate_scores(rng.normal(size=len(member)), member, ()), attacks)
    assert excluded(enough) >= 0.82  # at 0.9, fewer would happen in 1% of such tests
    assert excluded([max(5, count // 3) for count in enough]) < 0.5


def test_too_few_names_the_widest_interval():
    """The headline's interval ends below 0.6, that of the other attack (AUC 0.55) above."""
    grid, member = ndtri((np.arange(150) + 0.5) / 150), np.repeat([1, 0], 150).astype(np.int8)
    scores = {name: np.concatenate([grid + shift, grid]) for name, shift in (("narrow", -0.1), ("wide", 0.18))}
    report = of_scores(ScoredRecords(np.arange(300), member, scores, None, "scores.csv"))
    highest = report.assessment.attacks["wide"].auc_high
    assert report.assessment.attacks["narrow"].auc_high < 0.6 < highest
    assert level(report) == "too few"
    assert f"up to {highest:.2f}" in verdict(report).sentences[0]


def test_reversed_scores_are_named_and_turned():
    given = records(gain=1.5)
    turned = replace(given, scores={"loss": -given.scores["lira"]})
    report = of_scores(turned)
    conclusion = verdict(report)
    assert conclusion.level == "reversed"
    assert f"AUC {1 - report.assessment.attacks['loss'].auc:.3f}" in conclusion.sentences[0]
    assert "other way" in card(report)
    assert report.assessment.turned["loss"].auc == pytest.approx(of_scores(given).assessment.attacks["lira"].auc)


def test_constant_scores_are_not_called_private():
    given = records(gain=0.0)
    conclusion = verdict(of_scores(replace(given, scores={"a": np.zeros(len(given.ids))})))
    assert conclusion.level == "inconclusive"
    assert "same score" in conclusion.heading
    assert any("same score" in sentence for sentence in conclusion.sentences)


def test_verdict_covers_all_attacks():
    """The headline is null; the other attack succeeds and decides."""
    null, strong = records(gain=0.0), records(gain=2.0)
    given = replace(strong, scores={"null": null.scores["lira"], "strong": strong.scores["lira"]})
    conclusion = verdict(of_scores(given))
    assert conclusion.level == "exposed"
    assert "decided by “strong”" in conclusion.sentences[-1]
    assert str(conclusion).splitlines()[0] == f"{conclusion.heading}."


def test_best_of_many_null_attacks():
    """At the stated 2.5% over all attacks, four or more of 20 would happen in 0.2% of such tests."""
    rng = np.random.default_rng(1)
    member = np.repeat([1, 0], 400).astype(np.int8)
    levels = []
    for _ in range(20):
        evaluations = {f"a{i}": evaluate_scores(rng.normal(size=800), member, (0.01, 0.05)) for i in range(20)}
        levels.append(any(row.at_low_rates or row.on_average for row in evidence(evaluations).values()))
    assert sum(levels) <= 3


def test_perfect_attack_is_found_among_many():
    """Every rate of the attack is 1, where a standard error on the logit scale would be arbitrary."""
    rng = np.random.default_rng(0)
    member = np.repeat([1, 0], 200).astype(np.int8)
    evaluations = {f"a{i}": evaluate_scores(rng.normal(size=400), member, (0.01,)) for i in range(30)}
    tested = evidence(evaluations | {"perfect": evaluate_scores(rng.random(400) + 2 * member, member, (0.01,))})
    assert tested["perfect"].p_auc < 1e-20
    assert tested["perfect"].p_tpr < 0.005
    assert tested["perfect"].at_low_rates
    assert tested["perfect"].on_average


@pytest.mark.parametrize("value", [0.52, 0.6, 0.9])
def test_p_value_is_that_of_the_interval(value):
    """0.025 where the interval ends at chance; far from 0 and 1 the normal p-value."""
    assert _above(value, 0.5, 0.5) == pytest.approx(0.025)
    if value < 0.9:
        assert _above(value, value - 0.015, 0.5) == pytest.approx(
            ndtr((0.5 - value) / (0.015 / 1.96)), rel=0.1, abs=1e-9
        )
    assert _above(1.0, 0.025 ** (1 / 10), 0.5) == pytest.approx(0.5**10)


def test_few_lucky_members_are_no_finding():
    """Ten members and 1,000 non-members: one lucky member must not suffice (nominal 2.5%)."""
    rng = np.random.default_rng(2)
    member = np.repeat([1, 0], [10, 1000]).astype(np.int8)
    draws = [evidence({"a": evaluate_scores(rng.normal(size=1010), member, (0.01,))})["a"] for _ in range(300)]
    assert np.mean([row.at_low_rates for row in draws]) <= 0.025 + 3 * 0.009


def test_large_gap_or_failed_references_warn():
    none = records(gain=0.0)
    large = SanityCheck("generalization gap", "pass", "A gap.", {"gap_low": 0.2})
    assert level(of_scores(none, checks=(large,))) == "inconclusive"
    report = of_scores(none)
    failed = FidelityCheck("accuracy", "failed", "References are unlike the target.")
    run = replace(facts(none), fidelity=(failed,))
    conclusion = verdict(replace(report, run=run))
    assert conclusion.level == "inconclusive"
    assert "References are unlike" in conclusion.sentences[0]


@dataclass(frozen=True)
class Warning_:
    status: str
    sentence: str


def test_no_verdict_while_the_reading_check_warns():
    strong = records(gain=2.0)
    report = of_scores(strong)
    run = replace(facts(strong), reading=Warning_("warn", "Give --data.scale 255."))
    report = replace(report, run=run)
    conclusion = verdict(report)
    assert conclusion.level == "no reading"
    assert conclusion.sentences[0] == "Give --data.scale 255."
    page = html(report, draw(report))
    assert page.index("Give --data.scale 255.") < page.index("Attack performance")
    assert "Give --data.scale 255." in card(report)


def test_searched_run_is_decided_on_held_out_records():
    strong, none = records(gain=2.0), records(gain=0.0)
    held_out = {"lira": evaluate_scores(none.scores["lira"], none.membership, (0.01, 0.05))}
    searched = SearchedConfig(trials=100, attack="lira", metric="auc", seen_records=1200, holdout=300)
    run = replace(facts(strong), held_out=held_out, searched=searched)
    report = replace(of_scores(strong), run=run)
    conclusion = verdict(report)
    assert conclusion.level == "not found"
    assert "100 trials" in conclusion.sentences[-1]
    assert "held-out" in conclusion.sentences[0]
    assert report.decisive["lira"] is held_out["lira"]


def test_verdict_states_figures_and_headline():
    given = records(names=("a", "b"), n=4000)
    assessment = assess(given, bootstrap=100)
    first, *rest = verdict(Report(assessment, "a", "named beforehand", versions())).sentences
    point = assessment.attacks["a"].at(0.01)
    assert f"“a” identifies {percent(point.tpr)}" in first
    assert "At 1% FPR" in first
    assert "2,000 members" in first
    assert "2 attacks were run" in rest[-1]
    assert "named beforehand" in rest[-1]


def test_most_exposed_by_score_with_p_values(full):
    exposed, scores = most_exposed(full), full.assessment.records.scores[full.headline]
    best = np.argsort(-scores)[: len(exposed)]
    assert [record.id for record in exposed] == full.assessment.records.ids[best].tolist()
    non_members = scores[full.assessment.records.membership == 0]
    expected = [
        (1 + (non_members >= scores[row]).sum() - m) / (1 + len(non_members) - m)
        for row in best
        for m in [full.assessment.records.membership[row] == 0]
    ]
    assert [record.p_value for record in exposed] == pytest.approx(expected)
    named = most_exposed(replace(full, class_names=[f"kind {label}" for label in range(100)]))
    assert [record.label for record in named] == [f"{record.label} kind {record.label}" for record in exposed]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_are_the_pixels(channels):
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.uint8)
    for given in (pixels, (pixels / 255).astype(np.float32)):
        image = np.asarray(Image.open(BytesIO(b64decode(picture(given).split(",")[1]))))
        np.testing.assert_array_equal(image, pixels.transpose(1, 2, 0) if channels == 3 else pixels[0])


def test_command_names_the_headline(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = "".join(f"{i},{i % 2},{ndtri(rng.random()) + i % 2},{rng.random()}\n" for i in range(300))
    (tmp_path / "s.csv").write_text(f"id,membership,good,bad\n{rows}")
    command = [str(tmp_path / "s.csv"), "--resamples", "100", "--output", str(tmp_path / "out")]
    for options, headline in (([], "bad"), (["--primary_attack", "good"], "good")):
        assert evaluate([*command, *options]) == 0
        assert json.loads((tmp_path / "out/metrics.json").read_text())["headline"] == headline
        assert f"“{headline}”" in (tmp_path / "out/report.html").read_text()
    assert evaluate([*command, "--primary_attack", "goods"]) == 2
    assert "did you mean 'good'" in capsys.readouterr().err


def test_configuration_is_shared_without_folders():
    data = {"public": "/home/a b/pub.pt", "private": "torchvision:CIFAR10?root=/data/x", "reader": "auto"}
    shared = strip_paths(load_config(data=data, output="runs/x"))
    assert shared["data"]["public"] == "pub.pt"
    assert shared["data"]["private"] == "torchvision:CIFAR10?root=x"
    assert shared["output"] == "x"


def test_numbers_in_words():
    assert [percent(value) for value in (0, 1e-6, 0.00012, 0.0123, 0.5, 1)] == [
        "0%", "0%", "0.012%", "1.23%", "50.0%", "100.0%",
    ]  # fmt: skip
    assert [seconds(value) for value in (1.23, 75, 7300)] == ["1.2 s", "1 min 15 s", "2 h 1 min"]


def test_target_at_chance_is_no_evidence_of_safety():
    weak = Warning_("chance", "The target is no better than chance.")
    for gain, expected in ((0.0, "at chance"), (2.0, "exposed")):
        scored = records(gain=gain)
        report = replace(of_scores(scored), run=replace(facts(scored), reading=weak))
        conclusion = verdict(report)
        assert conclusion.level == expected
        assert conclusion.sentences[0] == weak.sentence
        assert weak.sentence in card(report)
