"""Audits of multi-label models, of single logits, and of labels alone."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import nn
from torch.utils.data import TensorDataset

from mia_lightning import MIAError, audit, load_config
from mia_lightning.metrics import auc

D, C = 12, 4
FAST = {"evaluation": {"folds": 2}}


def network():
    """Return what `--target.architecture` names."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 48), nn.ReLU(), nn.Linear(48, C))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1600, D)).astype(np.float32)
    labels = (inputs @ rng.normal(size=(D, C)) + rng.normal(scale=3, size=(1600, C)) > 0).astype(np.int64)
    return inputs, labels, rng.random(1600) < 0.5


@pytest.fixture(scope="module")
def trained(data):
    inputs, labels, member = (torch.tensor(part) for part in data)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(inputs[member]), labels[member].float()).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def sides(data):
    """Return members and non-members among the first 800 records."""
    inputs, labels, member = (part[:800] for part in data)
    return (inputs[member], labels[member]), (inputs[~member], labels[~member])


def test_withheld_membership_is_covered(trained, data, sides):
    inputs, labels, member = data
    threshold = {"class_path": "Threshold", "init_args": {"column": "log_confidence"}}
    options = {"attacks": {"bce": threshold}, "signals": {"names": ["log_confidence"]}}
    result = audit(trained, *sides, unknown=(inputs[800:], labels[800:]), **options)
    figures = result.attacks["bce"].public
    records = result.records()
    withheld = records["bce"][records.part == "unknown"].to_numpy()
    assert 0.6 < figures.auc_low < auc(withheld, member[800:].astype(np.int8)) < figures.auc_high
    z = trained(torch.tensor(inputs[800:])).detach().double().numpy()
    assert np.allclose(withheld, -np.logaddexp(0, np.where(labels[800:] == 1, -z, z)).sum(axis=1), atol=1e-4)
    ladder = result.ladder()
    assert list(ladder.access) == ["label", "probabilities_2", "probabilities_4", "logits", "features"]
    assert "top1 and topk do not apply" in result.contents.run.ladder.notes[0]
    assert "Audit of Sequential" in result._repr_html_()
    assert '"auc"' in result.to_json()


def test_every_door_gives_the_same_figures(trained, data, sides, tmp_path, monkeypatch):
    figure = audit(trained, *sides, **FAST).attacks["phi_threshold"].public.auc
    sigmoid = nn.Sequential(trained, nn.Sigmoid())
    datasets = [TensorDataset(*(torch.tensor(part) for part in side)) for side in sides]
    for model, records in ((sigmoid, sides), (trained, datasets)):
        again = audit(model, *records, **FAST).attacks["phi_threshold"].public.auc
        assert again == pytest.approx(figure, abs=3e-3)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    (tmp_path / "several_labels.py").write_text(
        f"from torch import nn\ndef net():\n return nn.Sequential(nn.Linear({D}, 48), nn.ReLU(), nn.Linear(48, {C}))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    arrays = {"inputs": data[0][:800], "labels": data[1][:800], "membership": data[2][:800].astype(int)}
    order = np.argsort(~data[2][:800], kind="stable")
    np.savez(tmp_path / "records.npz", **{name: values[order] for name, values in arrays.items()})
    config = load_config(
        data={"public": str(tmp_path / "records.npz")},
        target={"architecture": "several_labels:net", "checkpoint": str(tmp_path / "model.pt")},
        output=str(tmp_path / "run"),
        hardware={"devices": 1},
        **FAST,
    )
    assert audit(config).attacks["phi_threshold"].public.auc == figure


def test_multi_label_reference_training(trained, sides):
    training = {"epochs": 40, "batch_size": 100, "learning_rate": 0.1}
    result = audit(trained, *sides, references={"count": 6, "training": training}, **FAST)
    assert [check.status for check in result.result.fidelity][1:] == ["passed", "passed"]
    assert result.attacks["lira_threshold"].public.auc_low > result.attacks["phi_threshold"].public.auc
    few = [(x[:100], y[:100]) for x, y in sides]
    forest = RandomForestClassifier(8, random_state=0).fit(*few[0])
    assert [row.status for row in audit(forest, *few, references=4, **FAST).result.references] == ["trained"] * 4
    head = {"count": 4, "training": {"class_path": "head", "epochs": 3, "batch_size": 20}}
    assert audit(trained, *few, references=head, **FAST).result.reference_outputs.references.shape == (4, 200, 1)


def test_heads_of_a_single_logit(trained, sides):
    """They equal the heads of that label alone, by one more class of constant logit 0."""
    single = nn.Sequential(*trained[:2], nn.Linear(48, 1))
    sides = [(x[:100], y[:100, 0]) for x, y in sides]
    head = {"count": 4, "training": {"class_path": "head", "epochs": 20, "batch_size": 20}}
    result = audit(single, *sides, references=head, **FAST)
    assert any("one logit per image" in note for note in result.notes)
    rates = np.array([(row.accuracy_in, row.accuracy_out) for row in result.result.references])
    assert (rates > 0.6).all()


BAD = {
    "width": (lambda m, a, b: (m, (a[0], a[1][:, :3]), (b[0], b[1][:, :3])), "has 3 labels per record, but the target"),
    "widths": (lambda m, a, b: (m, (a[0], a[1][:, :3]), b), "members has 3 labels per record but non_members 4"),
    "one class": (lambda m, a, b: (m, (a[0], a[1][:, 0]), b), "members has 1 label per record but non_members 4"),
    "values": (lambda m, a, b: (m, (a[0], a[1] * 2), b), "is 2, not one-hot; give one class per record, or 0 or 1"),
    "softmax": (lambda m, a, b: (nn.Sequential(m, nn.Softmax(1)), a, b), "probabilities of one class per record"),
    "single": (lambda m, a, b: (lambda x: m(torch.tensor(x))[:, :1].detach(), a, b), "has 4 labels per record"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_sentence(name, trained, sides):
    make, sentence = BAD[name]
    with pytest.raises(MIAError, match=sentence):
        audit(*make(trained, *sides))
    with pytest.raises(MIAError, match="--access top1 does not apply to a multi-label target"):
        audit(trained, *sides, access="top1", **FAST)


LABELS = {
    "integers": lambda labels: labels,
    "floats": lambda labels: labels.astype(float),
    "column": lambda labels: labels[:, None],
    "text": lambda labels: labels.astype(str),
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_alone_are_stated(form, sides):
    sides = [(x, y[:, :2] @ [1, 2]) for x, y in sides]
    model = RandomForestClassifier(8, random_state=0).fit(*sides[0])
    wanted = audit(model, *sides, access="label", **FAST).attacks["phi_threshold"].public.auc
    if form == "text":
        sides = [(x, y.astype(str)) for x, y in sides]
    result = audit(lambda x: LABELS[form](model.predict(x)), *sides, output="labels", **FAST)
    assert result.attacks["phi_threshold"].public.auc == wanted
    assert result.config.access == "label"
    assert any("labels alone" in note for note in result.notes)


def test_labels_that_are_none(trained, sides):
    sides = [(x, y[:, 0]) for x, y in sides]
    model = RandomForestClassifier(8, random_state=0).fit(*sides[0])
    for returned in (model, model.predict_proba, trained):
        with pytest.raises(MIAError, match="not one label each, as --target"):
            audit(returned, *sides, output="labels")
    with pytest.raises(MIAError, match="shows --access label alone, not logits"):
        audit(model.predict, *sides, output="labels", access="logits")
    with pytest.raises(MIAError, match="logits does not fit the values"):
        audit(model.predict_proba, *sides, output="logits")


def test_labels_on_the_command_line(sides, tmp_path, monkeypatch):
    (tmp_path / "predicts.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return (x[:, 0] > 0).long()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    inputs = np.concatenate([x for x, _ in sides])
    labels = np.concatenate([y[:, 0] for _, y in sides])
    np.savez(tmp_path / "r.npz", inputs=inputs, labels=labels, membership=np.arange(800) < len(sides[0][0]))
    target = {"architecture": "predicts:Net", "output": "labels"}
    data = {"public": str(tmp_path / "r.npz")}
    result = audit(load_config(data=data, target=target | {"num_classes": 2}, output=str(tmp_path / "run"), **FAST))
    assert result.attacks["phi_threshold"].public.auc == auc(
        ((inputs[:, 0] > 0) == labels).astype(float), result.public.membership
    )
    with pytest.raises(MIAError, match=r"give --target\.num_classes"):
        audit(load_config(data=data, target=target, output=str(tmp_path / "run"), **FAST))
