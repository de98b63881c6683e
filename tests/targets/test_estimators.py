"""Estimators as targets: scikit-learn, LightGBM, XGBoost, .skops files."""

import re

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from lightgbm import Dataset, LGBMClassifier, train
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


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_text_with_missing_values_and_categories(classes, tmp_path):
    inputs = np.where(X > 1, np.nan, X)
    inputs[:, 1] = np.arange(60) % 7
    data = Dataset(inputs, inputs[:, 1] % classes, categorical_feature=[1])
    options = {"num_class": classes, "objective": "multiclass"} if classes > 2 else {"objective": "binary"}
    options |= {"min_data_in_leaf": 2, "min_data_per_group": 2, "max_cat_to_onehot": 1, "verbose": -1}
    booster = train(options, data, 3)
    booster.save_model(tmp_path / "m.txt")
    target = load_target(str(tmp_path / "m.txt"), sample=X[:10])
    expected = booster.predict(inputs)
    expected = np.stack([1 - expected, expected], axis=1) if classes == 2 else expected
    np.testing.assert_allclose(target.network(torch.from_numpy(inputs)).softmax(dim=1), expected, atol=1e-6)
    again = unwrap(target.network).untrained(0)
    again.fit(inputs, (inputs[:, 1] % classes).astype(int))
    np.testing.assert_allclose(again(torch.from_numpy(inputs)), expected, atol=1e-6)  # its training draws nothing
    assert "categorical_feature: 1" in (tmp_path / "m.txt").read_text()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("left_child=", "left_child=99 ", "left_child of tree 0"),
        (r"right_child=\S+", "right_child=0", "right_child of tree 0"),
        (r"split_feature=\S+", "split_feature=4", "split_feature of tree 0"),
        ("objective=.*", "objective=regression", "is a LightGBM model of objective regression; only classifiers"),
        ("num_class=3", "num_class=2", "numbers of classes differ"),
        ("feature_names=Column_0", "feature_names=Column_1", "trees or names are missing"),
        ("end of trees(.|\n)*", "", "is a LightGBM model that is cut short or damaged"),
    ],
)
def test_damaged_lightgbm_text_is_one_sentence(old, new, sentence, tmp_path):
    text = re.sub(old, new, lightgbm().booster_.model_to_string(), count=1)
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(MIAError, match=sentence):
        load_target(str(tmp_path / "m.txt"), sample=X[:10])


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


def test_named_labels_of_an_estimator_with_numbered_classes():
    records = align_labels(make_records("t", np.zeros((3, 2)), labels=["b", "a", "b"]), np.arange(2), "lightgbm")
    assert records.labels.tolist() == [1, 0, 1]
    assert records.notes[-1] == "t: lightgbm has classes 0 to 1, taken for the names in their order"


def test_label_unseen_in_fitting_is_one_sentence():
    records = make_records("t", np.zeros((3, 2)), labels=[0, 7, 7])
    with pytest.raises(MIAError, match=r"t: record 1 has label 7 \(2 such records\), which forest was not fitted on"):
        align_labels(records, np.array([0, 1]), "forest")
