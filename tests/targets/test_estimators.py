"""Estimators as targets: scikit-learn, LightGBM, XGBoost, .skops files."""

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from mia_lightning.errors import MIAError
from mia_lightning.records.columns import make_records
from mia_lightning.targets import check_fits, load_target
from mia_lightning.targets.estimators import EstimatorNetwork, align_labels
from mia_lightning.targets.wrapper import unwrap

HERE = "tests.targets.test_estimators"
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)), RNG.integers(0, 3, 60)


def forest():
    return RandomForestClassifier(5, random_state=0).fit(X, Y)


def pipeline():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)


def neighbors():
    return KNeighborsClassifier(3).fit(X, Y)


def lightgbm():
    return LGBMClassifier(n_estimators=3, min_child_samples=2, verbose=-1).fit(X, Y)


def xgboost():
    return XGBClassifier(n_estimators=3).fit(X, Y)


def named():
    return RandomForestClassifier(5, random_state=0).fit(pd.DataFrame(X, columns=list("dcba")), Y)


def ridge():
    return RidgeClassifier().fit(X, Y)


def regressor():
    return LinearRegression().fit(X, Y)


def unfitted():
    return GaussianNB()


def several_outputs():
    return RandomForestClassifier(3).fit(X, np.stack([Y, Y], axis=1))


def load(name, **options):
    sample = options.pop("sample", X[:10])
    target = load_target(None, architecture=f"{HERE}:{name}", sample=sample, image_shape=sample.shape[1:], **options)
    check_fits(target, sample.shape[1:])
    return target


@pytest.mark.parametrize("name", ["forest", "pipeline", "neighbors", "lightgbm", "xgboost"])
def test_logits_are_log_probabilities(name):
    target = load(name)
    logits = target.network(torch.from_numpy(X))
    expected = globals()[name]().predict_proba(X)
    np.testing.assert_allclose(logits.softmax(dim=1), expected, atol=1e-6)
    assert target.num_classes == 3
    assert target.input_dtype == "stored"
    assert target.digest == load(name).digest


def test_columns_of_a_frame_are_matched_by_name():
    target = load("named", feature_names=("a", "b", "c", "d"), sample=X[:10, ::-1].copy())
    logits = target.network(torch.from_numpy(X[:, ::-1].copy()))
    expected = named().predict_proba(pd.DataFrame(X, columns=list("dcba")))
    np.testing.assert_allclose(logits.softmax(dim=1), expected, atol=1e-6)
    with pytest.raises(MIAError, match="was fitted on a column 'd', which the records lack"):
        load("named", feature_names=("a", "b", "c", "e"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ridge", "the RidgeClassifier has no predict_proba; fit one that has"),
        ("regressor", "the LinearRegression is a regressor; only classifiers are audited"),
        ("unfitted", "the GaussianNB has no classes_, so it is not fitted; return it fitted"),
        ("several_outputs", "RandomForestClassifier has several outputs; audit one output at a time"),
    ],
)
def test_odd_estimators_are_one_sentence(name, sentence):
    with pytest.raises(MIAError, match=sentence):
        load(name)


def test_wrong_number_of_features_is_one_sentence():
    with pytest.raises(MIAError, match="X has 3 features, but RandomForestClassifier is expecting 4"):
        load("forest", sample=X[:, :3])


def test_skops_file(tmp_path):
    path = tmp_path / "forest.skops"
    skops.io.dump(forest(), path)
    target = load_target(str(path), sample=X[:10])
    np.testing.assert_allclose(target.network(torch.from_numpy(X)).softmax(dim=1), forest().predict_proba(X), atol=1e-6)
    assert target.architecture == "skops (RandomForestClassifier)"


def test_skops_file_of_other_types_is_refused(tmp_path):
    path = tmp_path / "gbm.skops"
    skops.io.dump(lightgbm(), path)
    with pytest.raises(MIAError, match=r"gbm.skops: refused, it names .*; return the estimator from a function"):
        load_target(str(path))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(MIAError):
        load_target(str(path))


def test_class_unseen_by_a_reference_has_probability_0():
    network = unwrap(load("forest").network).untrained(1)
    network.fit(X[Y != 1], Y[Y != 1])
    probabilities = network(torch.from_numpy(X)).numpy()
    assert (probabilities[:, 1] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_clones_have_random_states_of_their_seed():
    network = EstimatorNetwork(forest())
    first, again, second = (network.untrained(seed) for seed in (1, 1, 2))
    for clone in (first, again, second):
        clone.fit(X, Y)
    inputs = torch.from_numpy(X)
    assert torch.equal(first(inputs), again(inputs))
    assert not torch.equal(first(inputs), second(inputs))


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (np.array(["<=50K", ">50K"]), [">50K", "<=50K", ""]),
        (np.array([1, 3]), [3, 1, None]),
        (np.array([False, True]), [1, 0, None]),
        (np.array([1.0, 3.0]), [3, 1, None]),
    ],
)
def test_labels_become_class_numbers(classes, labels):
    records = make_records("t", np.zeros((3, 2)), labels=labels)
    assert align_labels(records, classes, "forest").labels.tolist() == [1, 0, -1]


def test_label_unseen_in_fitting_is_one_sentence():
    records = make_records("t", np.zeros((3, 2)), labels=[0, 7, 7])
    with pytest.raises(MIAError, match=r"t: record 1 has label 7 \(2 such records\), which forest was not fitted on"):
        align_labels(records, np.array([0, 1]), "forest")
