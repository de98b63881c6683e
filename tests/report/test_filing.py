import json

import pytest

from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.threshold import Threshold
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.config import FilingConfig
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.report.filing import filing_rows, previous_audit
from mia_lightning.report.methods import first_sentence, method, not_run


def test_missing_fields_are_not_stated():
    rows = dict(filing_rows(FilingConfig(auditor="A. Author", data_set="photos")))
    assert rows["Auditor"] == "A. Author"
    assert rows["Data set"] == "photos"
    assert rows["Reviewer"] == rows["Purpose"] == rows["Organization"] == "not stated"


@pytest.mark.parametrize("content", [None, "[]", "{", '{"headline": "a"}', json.dumps({"headline": []})])
def test_previous_without_metrics_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(MIAError, match=r"--report\.previous .*name the folder of an audit"):
        previous_audit(FilingConfig(previous=str(tmp_path)))


def test_sentences_name_the_paper():
    assert "Carlini et al. 2022" in first_sentence(LiRA)
    assert "Yeom et al. 2018" in method("a", Threshold).sentence
    assert method("a", LightGBM, 2.0).seconds == 2.0


def test_methods_not_run_exclude_used_classes():
    rows = not_run({Threshold}, {Threshold: "x", LightGBM: "not configured", LiRA: "needs reference models"})
    assert [(name, reason) for name, _, reason in rows] == [
        ("LiRA", "needs reference models"),
        ("LightGBM", "not configured"),
    ]
