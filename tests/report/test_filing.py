import json

import numpy as np
import pytest

from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.threshold import Threshold
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.config import FilingConfig
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.report.filing import check_class_names, filing_rows, previous_audit
from mia_lightning.report.methods import first_sentence, method, not_run
from mia_lightning.signals.uncertainty import energy
from mia_lightning.signals.vectors import features


def test_missing_fields_are_not_stated():
    rows = dict(filing_rows(FilingConfig(auditor="A. Author", data_set="photos")))
    assert rows["Auditor"] == "A. Author"
    assert rows["Data set"] == "photos"
    assert rows["Reviewer"] == rows["Purpose"] == rows["Organization"] == "not stated"


@pytest.mark.parametrize(
    ("names", "labels", "sentence"),
    [
        (["cat"], np.array([0, 1]), "has 1 names, but label 1 occurs"),
        (["cat"], None, "the records have no labels"),
        ([], np.array([0]), "has 0 names"),
    ],
)
def test_missing_class_names_are_one_sentence(names, labels, sentence):
    check_class_names(FilingConfig(), labels)
    check_class_names(FilingConfig(class_names=["cat", "dog"]), np.array([0, 1, -1]))
    with pytest.raises(MIAError, match=sentence):
        check_class_names(FilingConfig(class_names=names), labels)


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
    stated = 'free energy -logsumexp_j z_j unbounded (Liu et al. 2020, "Energy-based OOD Detection")'
    assert first_sentence(energy).startswith(stated)
    assert first_sentence(features) == "penultimate features of the stored image"  # no shape of an array


def test_methods_not_run_exclude_used_classes():
    rows = not_run({Threshold}, {Threshold: "x", LightGBM: "not configured", LiRA: "needs reference models"})
    assert [(name, reason) for name, _, reason in rows] == [
        ("LiRA", "needs reference models"),
        ("LightGBM", "not configured"),
    ]
