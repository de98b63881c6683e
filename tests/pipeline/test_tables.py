"""Audits of tables: estimators and networks as targets, with references."""

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

from mia_lightning import audit as audit_model
from mia_lightning.attacks import Threshold
from mia_lightning.config.schema import DataConfig, EvaluationConfig, ExtractionConfig, RunConfig, TargetConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.audit import audit, prepare
from mia_lightning.pipeline.run import run
from mia_lightning.records.in_memory import read_side
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.references.scores.rmia import RMIA
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.targets.in_memory import target_from
from mia_lightning.targets.wrapper import unwrap

HERE = "tests.pipeline.test_tables"
RNG = np.random.default_rng(0)
COUNT = 120
X = RNG.normal(size=(COUNT, 5))
Y = (X[:, 0] + RNG.normal(size=COUNT) > 0).astype(int)
MEMBER = RNG.permutation(np.repeat([1, 0], COUNT // 2))
FITS = []


class CountedForest(RandomForestClassifier):
    """A forest that counts its fits."""

    def fit(self, X, y):
        FITS.append(len(y))
        return super().fit(X, y)


def forest():
    return CountedForest(8, random_state=0).fit(X[MEMBER == 1], Y[MEMBER == 1])


def mlp():
    return MLPClassifier((2,), max_iter=2).fit(X, Y)


class Net(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.layer = nn.Linear(5, num_classes)

    def forward(self, rows):
        return self.layer(rows)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.layer = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, tokens):
        return self.layer(self.embedding(tokens).mean(dim=1))


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv1d(2, 4, 3), nn.Linear(4, 2)

    def forward(self, signals):
        return self.layer(self.conv(signals).relu().mean(dim=2))


def make_config(folder, architecture, inputs=X, **options):
    np.savez(folder / "t.npz", inputs=inputs, labels=Y, membership=MEMBER)
    return RunConfig(
        output=str(folder / "run"),
        data=DataConfig(public=str(folder / "t.npz")),
        target=TargetConfig(architecture=f"{HERE}:{architecture}"),
        hardware=Hardware(accelerator="cpu"),
        evaluation=EvaluationConfig(folds=2),
        **options,
    )


def test_forest_with_references(tmp_path):
    scores = {"lira": LiRA(), "rmia": RMIA()}
    references = ReferencesConfig(count=6, scores=scores)
    attacks = {name: Threshold(column=name) for name in ("phi", "lira", "rmia")}
    config = make_config(tmp_path, "forest", references=references, attacks={f"{n}_t": a for n, a in attacks.items()})
    del FITS[:]
    result = audit(config)
    assert FITS == [COUNT // 2] * 7  # the target and six halves
    probability = forest().predict_proba(X)[np.arange(COUNT), Y]
    exact = (probability > 0) & (probability < 1)
    odds = probability[exact] / (1 - probability[exact])
    np.testing.assert_allclose(result.table.columns["phi"][exact], np.log(odds), rtol=1e-4, atol=1e-5)
    keep, matrix = result.reference_outputs.keep, result.reference_outputs.references[:, :, 0]
    assert (keep.sum(axis=0) == 3).all()
    assert matrix.shape == (6, COUNT)
    assert np.median(matrix[keep]) > np.median(matrix[~keep])
    assert result.attacks["lira_t"].public.auc > 0.6
    del FITS[:]
    again = audit(config)
    assert FITS == [COUNT // 2]  # only the target; the references are in the store
    np.testing.assert_array_equal(again.attacks["lira_t"].public_scores, result.attacks["lira_t"].public_scores)


@pytest.mark.parametrize(
    ("architecture", "inputs"),
    [
        ("Net", X),
        ("Net", X.astype(np.float32)),
        ("Tokens", RNG.integers(0, 9, (COUNT, 7))),
        ("Signal", RNG.normal(size=(COUNT, 2, 20))),
    ],
)
def test_network_on_records_of_any_shape(architecture, inputs, tmp_path):
    scores = {"gap": DifficultyCalibration()}
    references = ReferencesConfig(count=2, training=ReferenceTraining(epochs=1, batch_size=20), scores=scores)
    attacks = {"gap_t": Threshold(column="gap")}
    result = audit(make_config(tmp_path, architecture, inputs, references=references, attacks=attacks))
    assert result.config.extraction.queries == 1
    assert np.isfinite(result.attacks["gap_t"].public_scores).all()


def test_run_of_a_table_has_a_report(tmp_path):
    config = make_config(tmp_path, "forest")
    frame = pd.DataFrame(X, columns=list("abcde")).assign(label=Y, member=MEMBER)
    frame.to_parquet(tmp_path / "t.parquet")
    config.data.public = str(tmp_path / "t.parquet")
    run(config)
    text = (tmp_path / "run" / "audit_card.md").read_text()
    assert "label, a, b, c, d, e" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"extraction": ExtractionConfig(queries=18)}, "--extraction.queries: only images are shifted and mirrored"),
        ({"extraction": ExtractionConfig(gradients=True)}, "an estimator has no gradients"),
        ({"references": ReferencesConfig(count=4, architecture=f"{HERE}:Net")}, "leave --references.architecture out"),
    ],
)
def test_options_that_tables_lack(change, sentence, tmp_path):
    with pytest.raises(MIAError, match=sentence):
        prepare(make_config(tmp_path, "forest", **change))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"mean": (0.5,), "std": (0.5,)}, "--data.mean and --data.std apply to stored images alone"),
        ({"resize": 32}, "--data.resize 32: t.npz has 5 values per record; leave it out"),
        ({"gray_to_rgb": True}, "--data.gray_to_rgb true: t.npz has 5 values per record, no images"),
    ],
)
def test_image_options_of_a_table(data, sentence, tmp_path):
    config = make_config(tmp_path, "Net")
    config.data = DataConfig(public=config.data.public, **data)
    with pytest.raises(MIAError, match=sentence):
        prepare(config)


def mixed(count=COUNT):
    text = pd.Series(np.where(Y[:count] == 1, " yes", " no")).where(X[:count, 1] < 1)
    return pd.DataFrame({"answer": text, "age": np.where(X[:count, 2] > 1, np.nan, X[:count, 0]), "size": X[:count, 3]})


def pipeline():
    encode = ColumnTransformer([("text", OneHotEncoder(), ["answer"]), ("numbers", SimpleImputer(), ["age", "size"])])
    return make_pipeline(encode, RandomForestClassifier(5, random_state=0)).fit(mixed()[MEMBER == 1], Y[MEMBER == 1])


def test_pipeline_on_text_and_missing_values(tmp_path):
    skops.io.dump(pipeline(), tmp_path / "t.skops")
    mixed().assign(label=Y, member=MEMBER).to_csv(tmp_path / "t.csv", index=False)
    references = ReferencesConfig(count=2, scores={"gap": DifficultyCalibration()})
    config = make_config(tmp_path, "", references=references, attacks={"gap_t": Threshold(column="gap")})
    config.data.public, config.target = str(tmp_path / "t.csv"), TargetConfig(checkpoint=str(tmp_path / "t.skops"))
    result = audit(config)
    probability = pipeline().predict_proba(mixed())[np.arange(COUNT), Y]
    exact = (probability > 0) & (probability < 1)
    odds = probability[exact] / (1 - probability[exact])
    np.testing.assert_allclose(result.table.columns["phi"][exact], np.log(odds), rtol=1e-4, atol=1e-4)
    assert result.reference_outputs.references.std(axis=0).any()


@pytest.mark.parametrize("dtype", ["category", object])
@pytest.mark.parametrize(
    "model", [LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1), HistGradientBoostingClassifier(max_iter=3)]
)
def test_dtypes_of_a_frame_in_memory(model, dtype):
    frame = mixed().astype({"answer": dtype})
    if dtype is object:
        model = make_pipeline(ColumnTransformer([("t", OneHotEncoder(), ["answer"])], remainder="passthrough"), model)
    model.fit(frame[MEMBER == 1], Y[MEMBER == 1])
    side = read_side(frame, "members")
    inputs = torch.from_numpy(side.inputs)
    target = target_from(model, [inputs[:9]], features=side.features)
    np.testing.assert_allclose(target.network(inputs).softmax(dim=1), model.predict_proba(frame), atol=1e-6)
    refitted = unwrap(target.network).untrained(0)
    refitted.fit(side.inputs, Y)
    assert not torch.allclose(refitted(inputs), target.network(inputs).softmax(dim=1).double())


def test_array_with_missing_values_in_memory():
    inputs = np.where(X > 1, np.nan, X)
    model = HistGradientBoostingClassifier(max_iter=3).fit(inputs, Y)
    with pytest.raises(MIAError, match=r"record 19 has a missing value of column 0 .*it returns NaN\); .* or drop it$"):
        audit_model(Net(), (inputs[:60], Y[:60]), (inputs[60:], Y[60:]), evaluation={"folds": 2})
    result = audit_model(model, (inputs[:60], Y[:60]), (inputs[60:], Y[60:]), evaluation={"folds": 2})
    assert list(result.result.attacks) == ["phi_threshold"]


@pytest.mark.parametrize(
    ("architecture", "columns", "sentence"),
    [
        ("Net", {}, r"Net takes numbers, but column 'answer' is not numeric \(1 such columns\).*'\{answer: ignore\}'"),
        ("Net", {"answer": "ignore"}, r"record 8 has a missing value of age \(\d+ such records\), .*it returns NaN\)"),
        ("Tokens", {"answer": "ignore"}, r"its embedding takes whole numbers"),
        ("mlp", {"answer": "ignore"}, r"missing value of age .*Input X contains NaN.*'\{age: ignore\}'"),
        ("mlp", {}, r"MLPClassifier.predict_proba does not take text, and column 'answer' is not numeric"),
    ],
)
def test_text_and_missing_values_that_a_target_does_not_take(architecture, columns, sentence, tmp_path):
    mixed().assign(a=1, b=2, c=3, label=Y, member=MEMBER).to_csv(tmp_path / "t.csv", index=False)
    config = make_config(tmp_path, architecture)
    config.data = DataConfig(public=str(tmp_path / "t.csv"), columns=columns)
    with pytest.raises(MIAError, match=sentence):
        prepare(config)
