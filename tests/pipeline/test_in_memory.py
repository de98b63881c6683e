"""The one call: models and records in memory give the command line's figures, and mistakes are sentences."""

import copy
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import mia_lightning
from mia_lightning import MIAError, audit, load_config
from mia_lightning.metrics import auc

SIDE, CLASSES = 6, 4
FAST = {"evaluation": {"folds": 2}}


def module():
    """Return the network that `--target.architecture` names."""
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 32), nn.ReLU(), nn.Linear(32, CLASSES))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.random((160, 1, SIDE, SIDE), dtype=np.float32)
    return images, rng.integers(0, CLASSES, 160), np.arange(160) < 80


@pytest.fixture(scope="module")
def network(data):
    images, labels, member = data
    torch.manual_seed(0)
    model = module()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.tensor(images[member])), torch.tensor(labels[member]))
        loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def sides(data):
    images, labels, member = data
    return (images[member], labels[member]), (images[~member], labels[~member])


@pytest.fixture(scope="module")
def audited(network, sides):
    return audit(network, *sides, signals={"names": ["standard"]}, extraction={"queries": 18})


def auc_of(result):
    return result.attacks["phi_threshold"].public.auc


class Records(Dataset):
    def __init__(self, side, as_mapping=False):
        self.side, self.as_mapping = side, as_mapping

    def __len__(self):
        return len(self.side[0])

    def __getitem__(self, index):
        image, label = torch.tensor(self.side[0][index]), int(self.side[1][index])
        return {"image": image, "label": label} if self.as_mapping else (image, label)


def test_audit_gives_the_figures_of_the_command_line(network, data, audited, tmp_path):
    images, labels, member = data
    torch.save(network.state_dict(), tmp_path / "model.pt")
    np.savez(tmp_path / "records.npz", images=images, labels=labels, membership=member.astype(int))
    config = load_config(
        output=str(tmp_path / "run"),
        data={"public": str(tmp_path / "records.npz"), "mean": [0.0], "std": [1.0]},
        target={"checkpoint": str(tmp_path / "model.pt"), "architecture": f"{__name__}:module"},
        signals={"names": ["standard"]},
        extraction={"queries": 18},
    )
    by_files = audit(config)
    assert by_files.table.columns.keys() == audited.result.table.columns.keys()
    for name, column in by_files.table.columns.items():
        np.testing.assert_array_equal(column, audited.result.table.columns[name], err_msg=name)
    assert by_files.attacks["phi_threshold"].public == audited.attacks["phi_threshold"].public


def test_audit_leaves_no_file_and_the_model_as_it_is(network, sides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = audit(network, *sides, **FAST)
    assert list(tmp_path.iterdir()) == []
    assert network.training
    assert next(network.parameters()).requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert any("training mode" in note for note in result.notes)


def test_interval_covers_the_truth_of_a_known_score(network, data, audited):
    images, labels, member = data
    with torch.inference_mode():
        logits = network(torch.tensor(images)).double().numpy()
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    direct = auc(-loss, member.astype(np.int8))
    single = audit(
        network, (images[member], labels[member]), (images[~member], labels[~member]), extraction={"queries": 1}
    )
    assert auc_of(single) == pytest.approx(direct, abs=1e-9)
    assert single.attacks["phi_threshold"].public.auc_low < direct < single.attacks["phi_threshold"].public.auc_high


@pytest.mark.parametrize("form", ["tensors", "dataset", "mappings", "loader", "channels_last"])
def test_containers_give_one_answer(form, network, sides):
    make = {
        "tensors": lambda side: tuple(map(torch.tensor, side)),
        "dataset": Records,
        "mappings": lambda side: Records(side, as_mapping=True),
        "loader": lambda side: DataLoader(TensorDataset(*map(torch.tensor, side)), batch_size=7),
        "channels_last": lambda side: (side[0].transpose(0, 2, 3, 1), side[1]),
    }[form]
    result = audit(network, *map(make, sides), **FAST)
    assert auc_of(result) == auc_of(audit(network, *sides, **FAST))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_estimator_receives_tables_as_it_was_fitted(library):
    import polars as pl

    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(120, 3)), columns=["a", "b", "c"])
    frame["label"] = np.where(frame.a + rng.normal(size=120) > 0, "yes", "no")
    model = LogisticRegression().fit(frame[["a", "b", "c"]], frame.label)
    convert = {"pandas": lambda table: table, "polars": pl.from_pandas, "pyarrow": pa.Table.from_pandas}[library]
    result = audit(model, convert(frame[:60]), convert(frame[60:].reset_index(drop=True)), **FAST)
    proba = model.predict_proba(frame[["a", "b", "c"]])
    p = np.where(frame.label == "yes", proba[:, 1], proba[:, 0])
    assert auc_of(result) == pytest.approx(auc(p, (np.arange(120) < 60).astype(np.int8)), abs=1e-9)


@pytest.mark.parametrize("kind", ["logits", "log-softmax", "probabilities", "mapping", "object", "labels"])
def test_output_of_a_function_is_recognized(kind, network, sides):
    class Output:
        def __init__(self, logits):
            self.logits = logits

    def logits(batch):
        with torch.inference_mode():
            return network(torch.tensor(batch))

    function = {
        "logits": logits,
        "log-softmax": lambda batch: logits(batch).log_softmax(1).numpy(),
        "probabilities": lambda batch: logits(batch).double().softmax(1).numpy(),
        "mapping": lambda batch: {"logits": logits(batch), "loss": torch.tensor(0.0)},
        "object": lambda batch: Output(logits(batch)),
        "labels": lambda batch: logits(batch).argmax(1).numpy(),
    }[kind]
    result = audit(function, *sides, **FAST)
    if kind == "labels":
        images, labels = (np.concatenate(part) for part in zip(*sides, strict=True))
        views = [logits(images).argmax(1), logits(images[..., ::-1].copy()).argmax(1)]
        votes = sum((view.numpy() == labels).astype(float) for view in views)
        assert auc_of(result) == auc(votes, (np.arange(160) < 80).astype(np.int8))
        assert any("labels alone" in note for note in result.notes)
    else:
        assert auc_of(result) == pytest.approx(auc_of(audit(network, *sides, **FAST)), abs=1e-3)
        named = {"probabilities": "returns probabilities", "log-softmax": "log-probabilities"}.get(kind, "")
        assert named in " ".join(result.notes)


def test_rounded_probabilities_note():
    rng = np.random.default_rng(4)
    inputs, labels = rng.normal(size=(400, 5)).astype(np.float32) * 6, rng.integers(0, 5, 400)
    inputs[::4, 0] += 40  # their other probabilities are below the smallest float16 number
    labels[::2] = inputs[::2].argmax(1)

    def half(batch):
        return torch.tensor(batch).softmax(1).half().float()

    result = audit(half, (inputs[:200], labels[:200]), (inputs[200:], labels[200:]), **FAST)
    p = half(inputs).numpy()
    p[np.arange(400), labels] -= 1
    exact_1 = (p == 0).all(axis=1)
    tied, non_members = exact_1.sum(), exact_1[200:].sum()
    notes = " ".join(result.notes)
    assert f"{tied} of 400 records tie at a label probability of exactly 1: they include {non_members} of 200" in notes
    assert "float16" in notes
    exact = audit(lambda batch: torch.tensor(batch), (inputs[:200], labels[:200]), (inputs[200:], labels[200:]), **FAST)
    assert "exactly" not in " ".join(exact.notes)


def test_function_is_queried_for_the_records_alone(sides):
    rows = 0

    def model(batch):
        nonlocal rows
        rows += len(batch)
        return linear(batch)

    audit(model, *sides, **FAST)
    assert rows <= 2 * 160 + 6 * 64  # two views of each, and checks of samples


def test_one_probability_per_record_is_that_of_class_1():
    rng = np.random.default_rng(2)
    inputs, labels = rng.normal(size=(80, 3)).astype(np.float32), rng.integers(0, 2, 80)
    weights = rng.normal(size=3)
    p = 1 / (1 + np.exp(-inputs @ weights))
    result = audit(
        lambda batch: 1 / (1 + np.exp(-batch @ weights)), (inputs[:40], labels[:40]), (inputs[40:], labels[40:])
    )
    expected = auc(np.where(labels == 1, p, 1 - p), (np.arange(80) < 40).astype(np.int8))
    assert auc_of(result) == pytest.approx(expected, abs=1e-6)


def test_references_are_trained_from_the_network_reset(network, sides):
    result = audit(network, *sides, references={"count": 4, "training": {"epochs": 1, "batch_size": 16}}, **FAST)
    assert set(result.attacks) == {"phi_threshold", "lira_threshold"}
    rows = result.result.references
    assert [row.status for row in rows] == ["trained"] * 4
    assert len({(row.accuracy_in, row.accuracy_out) for row in rows}) > 1
    few = audit(network, *sides, references={"count": 1, "training": {"epochs": 1, "batch_size": 64}}, **FAST)
    assert set(few.attacks) == {"phi_threshold", "calibration_threshold"}


def test_unknown_records_are_scored(network, data, sides):
    images, _, _ = data
    result = audit(network, *sides, unknown=(images[:5] * 0.9, [0, 1, 2, 3, 0]), **FAST)
    rows = result.records()
    assert rows.part.tolist() == ["member"] * 80 + ["non_member"] * 80 + ["unknown"] * 5
    assert rows.phi_threshold.notna().all()
    assert (rows.fold[-5:] == -1).all()


def test_result_shows_and_writes_itself(audited, tmp_path):
    assert "AUC" in repr(audited)
    assert len(repr(audited)) < 2000
    page = audited._repr_html_()
    assert "<script" not in page
    assert len(page) < 20_000
    assert audited.verdict.heading in page
    table = audited.table()
    assert table.loc["phi_threshold", "auc"] == auc_of(audited)
    assert table.loc["phi_threshold", "members"] == 80
    assert json.loads(audited.to_json(tmp_path / "m.json")) == json.loads((tmp_path / "m.json").read_text())
    assert audited.report(tmp_path / "one.html").read_text().startswith("<!DOCTYPE html>")
    audited.report(tmp_path / "folder")
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names >= {"report.html", "audit_card.md", "metrics.json", "records.csv"}
    assert audited.plot_roc().axes[0].get_xlabel() == "false-positive rate"


def linear(images):
    return images.reshape(len(images), -1)[:, :CLASSES]


class Widening:
    """A function whose number of classes changes after the first queries."""

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return linear(batch)[:, : CLASSES if self.calls < 4 else CLASSES - 1]

    __qualname__ = "widening"


class Shifting(Records):
    """A data set with a random transform."""

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return image + np.float32(np.random.default_rng().random()), label


BAD = {
    "wrong length": (lambda a, b: (lambda batch: linear(batch)[:-1], a, b), "return one row each"),
    "NaN": (lambda a, b: (lambda batch: linear(batch) * np.nan, a, b), "returned NaN"),
    "failing": (lambda a, b: (lambda batch: 1 / 0, a, b), "ZeroDivisionError"),
    "label": (lambda a, b: (linear, (a[0], a[1] + 9), b), "but the target has 4 classes"),
    "shapes": (lambda a, b: (linear, a, (b[0][..., 1:], b[1])), "both must fit one model"),
    "scales": (lambda a, b: (linear, a, ((255 * b[0]).astype(np.uint8), b[1])), "float32 but non_members of uint8"),
    "random": (lambda a, b: (linear, Shifting(a), b), "members: item 0 differs from call to call"),
    "empty": (lambda a, b: (linear, (a[0][:0], a[1][:0]), b), "members contains no records"),
    "lengths": (lambda a, b: (linear, (a[0], a[1][:-1]), b), "one label per record"),
    "no labels": (lambda a, b: (linear, a, b[0]), "members has labels but non_members has none"),
    "class": (lambda a, b: (nn.Linear, a, b), "pass an instance"),
    "no model": (lambda a, b: (3, a, b), "predict_proba"),
    "no records": (lambda a, b: (linear, a, None), "non_members is a NoneType"),
    "one object": (lambda a, b: (linear, a, a), "are the same object"),
    "three arrays": (lambda a, b: (linear, (*a, a[1]), b), "is a tuple of 3 arrays"),
    "regression": (lambda a, b: (linear, (a[0], a[1] + 0.5), (b[0], b[1] + 0.5)), "as of a regression"),
    "mapping": (lambda a, b: (linear, {"a": a[0], "b": a[0], "label": a[1]}, b), "have the fields a, b, label"),
    "drop_last": (
        lambda a, b: (linear, DataLoader(Records(a), batch_size=7, drop_last=True), b),
        "leaves out 3 of 80 records",
    ),
    "other classes": (lambda a, b: (Widening(), a, b), r"rows of shape \(3,\) for a batch of .*, but of \(4,\) before"),
    "meta": (lambda a, b: (module().to("meta"), a, b), "has no weights"),
    "TorchScript": (lambda a, b: (torch.jit.script(module()), a, b), "torch.export.export"),
    "NaN pixel": (lambda a, b: (linear, (a[0] * np.nan, a[1]), b), "NaN or infinite"),
}


def test_gray_images_without_channels(sides):
    gray = [((255 * images[:, 0]).astype(np.uint8), labels) for images, labels in sides]
    network, options = nn.Sequential(nn.Conv2d(1, CLASSES, 3), nn.Flatten(), nn.LazyLinear(CLASSES)), {"queries": 1}
    network(torch.zeros(1, 1, *gray[0][0].shape[1:]))
    audits = [audit(network, *given, extraction=options) for given in (gray, [(x[:, None], y) for x, y in gray])]
    np.testing.assert_array_equal(*(each.records()["phi_threshold"] for each in audits))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_sentence(name, sides):
    make, sentence = BAD[name]
    with pytest.raises(MIAError, match=sentence):
        audit(*make(*sides))


def test_mistakes_of_estimators_and_options(network, sides):
    inputs = np.random.default_rng(3).normal(size=(40, 2))
    model = LogisticRegression().fit(inputs, np.arange(40) % 2)
    with pytest.raises(MIAError, match="has not seen in fitting"):
        audit(model, (inputs, np.arange(40) % 3), (inputs, np.arange(40) % 2))
    with pytest.raises(MIAError, match="not numeric"):
        audit(model, pd.DataFrame({"a": ["x"] * 9, "b": 1.0}), pd.DataFrame({"a": ["x"] * 9, "b": 1.0}))
    with pytest.raises(MIAError, match="missing value"):
        audit(model, pd.DataFrame({"a": [np.nan] * 9, "b": 1.0}), pd.DataFrame({"a": [0.0] * 9, "b": 1.0}))
    few = ((side[0][:3], side[1][:3]) for side in sides)
    with pytest.raises(MIAError, match="folds"):
        audit(linear, *few)
    fitted = audit(model, (inputs[:20], np.arange(20) % 2), (inputs[20:], np.arange(20) % 2), references=4, **FAST)
    assert [row.status for row in fitted.result.references] == ["trained"] * 4
    with pytest.raises(MIAError, match="it is not fitted"):
        audit(LogisticRegression(), (inputs, np.arange(40) % 2), (inputs.copy(), np.arange(40) % 2))
    table = pd.DataFrame({"a": np.zeros(9), "b": 1.0, "label": 0})
    with pytest.raises(MIAError, match="column 'a' occurs twice"):
        audit(model, pd.concat([table, table[["a"]]], axis=1), table)
    with pytest.raises(MIAError, match="references is '8'"):
        audit(network, *sides, references="8")
    with pytest.raises(MIAError, match="no network that could be trained again"):
        audit(linear, *sides, references=4)
    with pytest.raises(MIAError, match="did you mean"):
        audit(network, *sides, extractoin={"queries": 1})
    with pytest.raises(MIAError, match="does not fit"):
        audit(network, *sides, output="probabilities")


class InPlace(nn.Module):
    def __init__(self, network, in_place):
        super().__init__()
        self.network, self.in_place = network, in_place

    def forward(self, images):
        return self.network(images.sub_(0.5) if self.in_place else images - 0.5)


@pytest.mark.parametrize("form", ["network", "function"])
def test_in_place_model_gets_copies(form, network, sides):
    def model(in_place):
        def function(batch):
            if in_place:
                batch -= 0.5
            return linear(batch if in_place else batch - 0.5)

        return InPlace(network, in_place) if form == "network" else function

    before = sides[0][0].copy()
    changed, plain = (
        audit(model(in_place), *sides, extraction={"queries": 18}, signals={"names": ["standard"]}, **FAST)
        for in_place in (True, False)
    )
    np.testing.assert_array_equal(sides[0][0], before)
    assert not any("deterministic" in note for note in changed.notes)
    for name, column in plain.result.table.columns.items():
        np.testing.assert_allclose(changed.result.table.columns[name], column, atol=1e-5, err_msg=name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_reduced_precision_quantized_exported(network, sides):
    expected = auc_of(audit(network, *sides, **FAST))
    half = audit(copy.deepcopy(network).bfloat16(), *sides, **FAST)
    assert auc_of(half) == pytest.approx(expected, abs=0.02)
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {nn.Linear}, dtype=torch.qint8)
    assert auc_of(audit(quantized, *sides, **FAST)) == pytest.approx(expected, abs=0.05)
    batch = torch.export.Dim("batch")
    inputs = (torch.tensor(sides[0][0][:4]),)
    program = torch.export.export(copy.deepcopy(network).eval(), inputs, dynamic_shapes=({0: batch},))
    assert auc_of(audit(program, *sides, **FAST)) == pytest.approx(expected, abs=1e-3)
    assert auc_of(audit(program.module(), *sides, **FAST)) == pytest.approx(expected, abs=1e-3)
    with pytest.raises(MIAError, match="no parameters to train"):
        audit(quantized, *sides, references=2)


def test_missing_table_labels_are_predicted():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(80, 2)), columns=["a", "b"])
    frame["label"] = np.where(frame.a > 0, "yes", "no")
    model = LogisticRegression().fit(frame[["a", "b"]], frame.label)
    blank = frame.copy()
    blank.loc[3, "label"] = None
    result = audit(model, blank[:40], blank[40:], **FAST)
    assert auc_of(result) == auc_of(audit(model, frame[:40], frame[40:], **FAST))  # it predicts the label
    assert "no label; the target's predicted class is used" in " ".join(result.notes)


@pytest.mark.parametrize("make", [iter, list])
def test_iterables_of_batches_are_taken(make, network, sides):
    batches = [[tuple(torch.tensor(part[i : i + 30]) for part in side) for i in range(0, 80, 30)] for side in sides]
    assert auc_of(audit(network, *map(make, batches), **FAST)) == auc_of(audit(network, *sides, **FAST))


def test_mapping_of_arrays_is_taken(network, sides):
    named = [dict(zip(("images", "labels"), side, strict=True)) for side in sides]
    assert auc_of(audit(network, *named, **FAST)) == auc_of(audit(network, *sides, **FAST))


def test_layers_that_cannot_be_reset_are_refused(sides):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.net = module()

        def forward(self, x):
            return self.net(x) * self.scale

    with pytest.raises(MIAError, match="has no reset_parameters; pass untrained="):
        audit(Scaled(), *sides, references=4)
    few = {"count": 1, "training": {"epochs": 1, "batch_size": 64}}
    assert len(audit(Scaled(), *sides, references=few, untrained=Scaled, **FAST).result.references) == 1


def scaled(batch, number):
    """Views of a table: every feature times a factor of its own."""
    factors = torch.rand(batch.shape[1], generator=torch.Generator().manual_seed(number)) * 0.1 + 0.95
    return batch * factors


def jittered(batch, number):
    return batch + torch.rand_like(batch)


def narrowed(batch, number):
    return batch[:, 1:]


def test_own_views_reach_references(monkeypatch):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(80, 6)).astype(np.float32), rng.integers(0, 3, 80)
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    sides = (inputs[:40], labels[:40]), (inputs[40:], labels[40:])
    options = {"signals": {"names": ["phi", "phi_queries"]}, **FAST}
    references = {"count": 2, "training": {"epochs": 1, "batch_size": 8}}

    def run(name, **further):
        views = {"views": f"{__name__}:{name}", "queries": 18} | further
        return audit(model, *sides, extraction=views, references=references, **options)

    result = run("scaled")
    expected = [phi_of(model, torch.tensor(inputs), labels)]
    expected += [phi_of(model, scaled(torch.tensor(inputs), q), labels) for q in range(1, 18)]
    phi = result.result.reference_outputs
    np.testing.assert_allclose(phi.target, np.stack(expected, 1), atol=1e-4)
    assert phi.references.shape == (2, 80, 18)
    assert phi.references.std(axis=2).min() > 0
    for name, words in (("jittered", "other views when it was called again"), ("narrowed", "return its shape")):
        with pytest.raises(MIAError, match=words):
            run(name)
    with pytest.raises(MIAError, match="needs views to compute"):
        run("scaled", queries=1)


def phi_of(model, inputs, labels):
    with torch.inference_mode():
        logits = model(inputs).double().numpy()
    label = logits[np.arange(len(labels)), labels]
    logits[np.arange(len(labels)), labels] = -np.inf
    return label - np.log(np.exp(logits).sum(axis=1))


def test_import_is_instant():
    assert "torch" not in mia_lightning.__dict__
    assert "audit" in mia_lightning.__all__
