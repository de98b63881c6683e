"""Signals against printed vectors, 250-digit arithmetic, and what must hold for any logits."""

import sys
import textwrap
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mia_lightning.errors import MIAError
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals import build_table, expand_names, get_signal, preset, signal, signal_names
from mia_lightning.signals import functional as F

getcontext().prec = 250

NEEDS_LABEL = [F.loss, F.phi, F.hinge, F.modified_entropy, F.label_rank, F.bias_gradient_norm, F.label_logit]
NO_LABEL = [F.entropy, F.top2_margin, F.log_sum_exp]


def outputs_of(logits, labels=None, *, features=None, gradients=None) -> Outputs:
    logits = np.asarray(logits, dtype=np.float32)
    count = len(logits)
    return Outputs(
        logits=logits,
        features=np.zeros((count, 0), np.float32) if features is None else np.asarray(features, np.float32),
        gradient_norms=np.zeros((count, 0), np.float32) if gradients is None else np.asarray(gradients, np.float32),
        labels=np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64),
    )


def phi_of_queries(outputs):
    z = outputs.logits.astype(np.float64)
    return np.stack([F.phi(z[:, q], outputs.labels) for q in range(z.shape[1])], axis=1)


@pytest.fixture
def outputs():
    rng = np.random.default_rng(0)
    return outputs_of(
        rng.normal(size=(50, 3, 5)) * 4,
        rng.integers(0, 5, 50),
        features=rng.normal(size=(50, 7)),
        gradients=rng.random((50, 3)),
    )


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ((2, -1, 0.5, 3), (1.3840917, -1.0956743, 0.8243037, 1.8189908, 1.0143024, -1)),
        ((5, 1, 0, -2), (0.0256341, 3.6509878, 0.1361012, 0.00101440, 0.0316722, 4)),
    ],
)
def test_printed_vectors(logits, expected):
    names = ["loss", "phi", "entropy", "modified_entropy", "bias_gradient_norm", "hinge"]
    table = build_table(outputs_of([[logits]]), names=names)
    np.testing.assert_allclose([table.columns[name][0] for name in names], expected, rtol=0, atol=5.1e-8)


def test_no_saturation():
    z, y = np.array([[60.0, -60, -70], [20, -20, -25], [10, -10, -12]]), np.zeros(3, np.int64)
    phi = F.phi(z, y)
    np.testing.assert_allclose(phi[0], 119.99995, atol=1e-5)
    np.testing.assert_allclose(phi[1:], [40 - np.log1p(np.exp(-5)), 20 - np.log1p(np.exp(-2))], rtol=1e-14)
    np.testing.assert_allclose(F.loss(z, y)[0], np.exp(-phi[0]), rtol=1e-12)
    with np.errstate(divide="ignore"):
        saturated = np.log(np.exp(z[1] - F.log_sum_exp(z[1])))[0]
    assert saturated == 0, "the naive form would have told these apart too"
    assert F.loss(z, y)[1] > 0


def reference(logits, label) -> dict[str, float]:
    """The definitions, literally, in 250 digits."""
    z = [Decimal(float(value)) for value in logits]
    e = [value.exp() for value in z]
    p = [value / sum(e) for value in e]
    rest = [sum(e[:j] + e[j + 1 :]) / sum(e) for j in range(len(e))]
    ordered = sorted(p, reverse=True)
    other_classes = [j for j in range(len(z)) if j != label]
    return {
        "loss": float(-p[label].ln()),
        "phi": float(p[label].ln() - rest[label].ln()),
        "entropy": float(-sum(q * q.ln() for q in p)),
        "modified_entropy": float(-rest[label] * p[label].ln() - sum(p[j] * rest[j].ln() for j in other_classes)),
        "top2_margin": float(ordered[0] - ordered[1]),
        "confidence": float(p[label]),
        "log_confidence": float(p[label].ln()),
        "bias_gradient_norm": float((rest[label] ** 2 + sum(p[j] ** 2 for j in other_classes)).sqrt()),
        "energy": float(-sum(e).ln()),
        "course_adjusted_entropy": float(-sum(q * q.ln() for q in p) * rest[label]),
        "course_gradient_proxy": float(abs(1 - z[label])),
        "hinge": float(z[label] - max(z[j] for j in other_classes)),
        "label_rank": float(sum(z[j] > z[label] for j in other_classes)),
        "logit_norm": float(sum(value**2 for value in z).sqrt()),
        "max_logit": float(max(z)),
        "label_logit": float(z[label]),
        "is_correct": float(z[label] == max(z)),
    }


@pytest.mark.parametrize("scale", [0.1, 1, 8, 40])
def test_formulas_in_250_digits(scale):
    rng = np.random.default_rng(int(scale * 10))
    logits = (rng.normal(size=(40, 1, 6)) * scale).astype(np.float32)
    labels = rng.integers(0, 6, 40)
    labels[:20] = logits[:20, 0].argmax(axis=1)
    rows = [reference(row[0], label) for row, label in zip(logits, labels, strict=True)]
    table = build_table(outputs_of(logits, labels), names=list(rows[0]))
    for name in rows[0]:
        expected = [row[name] for row in rows]
        # phi crosses 0 and the loss is of the size exp(-phi), so digits are lost by at most |z| ulp
        np.testing.assert_allclose(
            table.columns[name], expected, rtol=1e-13 * max(1, scale * 4), atol=1e-300, err_msg=name
        )


def test_probabilities_and_canonical_logits(outputs):
    table = build_table(outputs, names=["probabilities", "canonical_logits", "logits"], query_reduction="first")
    z = outputs.logits[:, 0].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(table.columns["probabilities"], p, rtol=1e-6)
    np.testing.assert_array_equal(table.columns["logits"], outputs.logits[:, 0])
    for row, label, got in zip(z, outputs.labels, table.columns["canonical_logits"], strict=True):
        expected = [row[label], *sorted(np.delete(row, label), reverse=True)] - row.mean()
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32)


@given(arrays(np.float32, (3, 4), elements=finite), st.integers(0, 3))
@settings(max_examples=200)
def test_finite(logits, label):
    z, y = logits.astype(np.float64), np.full(3, label)
    with np.errstate(all="raise", under="ignore"):
        values = [f(z, y) for f in NEEDS_LABEL] + [f(z) for f in NO_LABEL] + [F.canonical_logits(z, y)]
    assert all(np.isfinite(value).all() for value in values)
    phi, hinge, rounding = F.phi(z, y), F.hinge(z, y), 1e-12 * (1 + np.abs(z).max())
    assert (phi <= hinge + rounding).all()
    assert (hinge <= phi + np.log(3) + rounding).all()


@given(
    arrays(np.float32, (2, 5), elements=st.floats(-100, 100, width=32)), st.permutations(range(5)), st.integers(0, 4)
)
@settings(max_examples=100)
def test_invariant_to_class_order(logits, order, label):
    z, order = logits.astype(np.float64), np.array(order)
    renamed, new_label = z[:, order], np.full(2, list(order).index(label))
    y = np.full(2, label)
    for f in (*NEEDS_LABEL, F.canonical_logits):
        np.testing.assert_allclose(f(renamed, new_label), f(z, y), rtol=1e-9, atol=1e-12)
    for f in NO_LABEL:
        np.testing.assert_allclose(f(renamed), f(z), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(F.log_probabilities(renamed), F.log_probabilities(z)[:, order], rtol=1e-12)


def test_table_is_independent_of_order_and_blocks(outputs, monkeypatch):
    whole = build_table(outputs, names=["all"])
    monkeypatch.setattr("mia_lightning.signals._build.BLOCK", 7 * 3 * 5)
    order = np.random.default_rng(1).permutation(50)
    shuffled = Outputs(*(getattr(outputs, f)[order] for f in ("logits", "features", "gradient_norms", "labels")))
    blocked = build_table(shuffled, names=["all"])
    assert list(blocked.columns) == list(whole.columns)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(blocked.columns[name], column[order], err_msg=name)


def test_direction_of_members():
    """Logits that grow at the true class: every signal moves the way it declares."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 6, 6))
    labels = rng.integers(0, 6, 2000)
    gain = np.repeat([0.0, 6.0], 1000)
    logits[np.arange(2000), :, labels] += gain[:, None] * [1.2, 1, 1, 1.2, 1, 1]  # most in the unshifted views
    features = rng.normal(size=(2000, 4)) + gain[:, None] / 3
    table = build_table(outputs_of(logits, labels, features=features, gradients=np.ones((2000, 3))), names=["all"])
    for name, column in table.columns.items():
        direction = get_signal(name).direction
        if direction and name != "weight_gradient_norm":  # its features work against its other factor here
            assert direction * (column[1000:].mean() - column[:1000].mean()) > 0, name


def test_gradients_equal_autograd():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.Linear(7, 4).double()
    mix = torch.randn(7, 7, dtype=torch.float64)
    logits, features, sizes, expected = [], [], [], []
    for label in (0, 3, 1):
        image = torch.randn(7, dtype=torch.float64, requires_grad=True)
        hidden = torch.tanh(mix @ image)
        z = layer(hidden)
        phi = z[label] - torch.cat([z[:label], z[label + 1 :]]).logsumexp(0)
        (of_phi,) = torch.autograd.grad(phi, image, retain_graph=True)
        loss = torch.nn.functional.cross_entropy(z, torch.tensor(label))
        of_loss = torch.autograd.grad(loss, [layer.bias, layer.weight, image])
        logits.append([z.tolist()])
        features.append(hidden.tolist())
        sizes.append([of_phi.norm(), of_phi.abs().sum(), of_phi.abs().max()])
        expected.append([g.norm().item() for g in of_loss])
    names = ["bias_gradient_norm", "weight_gradient_norm", "input_gradient_norm"]
    table = build_table(outputs_of(logits, [0, 3, 1], features=features, gradients=sizes), names=names)
    np.testing.assert_allclose(np.stack([table.columns[name] for name in names], axis=1), expected, rtol=1e-5)
    everything = build_table(outputs_of(logits, features=features, gradients=sizes), names=["all"]).columns
    got = [everything[f"phi_gradient_{kind}"] for kind in ("norm", "l1", "max")]
    np.testing.assert_allclose(np.stack(got, axis=1), sizes, rtol=1e-6)


def test_augmentation_statistics(outputs):
    table = build_table(outputs, names=["all"])
    phi = phi_of_queries(outputs)
    for name, value in {
        "phi_original": phi[:, 0],
        "phi_mean": phi.mean(axis=1),
        "phi_std": phi.std(axis=1),
        "phi_min": phi.min(axis=1),
        "phi_max": phi.max(axis=1),
        "phi": phi.mean(axis=1),
        "phi_queries": phi.astype(np.float32),
    }.items():
        np.testing.assert_allclose(table.columns[name], value, rtol=1e-12, err_msg=name)
    winner = outputs.logits.argmax(axis=2)
    assert table.columns["label_agreement"].tolist() == [sum(w == row[0] for w in row) / 3 for row in winner.tolist()]


def test_phi_contrast():
    rng = np.random.default_rng(0)
    outputs = outputs_of(rng.normal(size=(20, 18, 4)), rng.integers(0, 4, 20))
    table = build_table(outputs, names=["phi_contrast", "canonical_contrast", "phi_original"])
    phi, shifted = phi_of_queries(outputs), [q for q in range(18) if q not in (0, 9)]
    expected = (phi[:, 0] + phi[:, 9]) / 2 - phi[:, shifted].mean(axis=1)
    np.testing.assert_allclose(table.columns["phi_contrast"], expected, rtol=1e-12)
    assert table.columns["canonical_contrast"].shape == (20, 4)
    unshifted = build_table(outputs_of(outputs.logits[:, :2], outputs.labels), names=["phi_contrast"])
    assert (unshifted.columns["phi_contrast"] == 0).all()


def test_one_query(outputs):
    table = build_table(outputs_of(outputs.logits[:, :1], outputs.labels), names=["all"])
    assert (table.columns["phi_std"] == 0).all()
    assert (table.columns["label_agreement"] == 1).all()
    np.testing.assert_array_equal(table.columns["phi_min"], table.columns["phi_original"])


def test_query_reduction(outputs):
    names = ["loss", "logits", "phi_mean"]
    mean, original, each = (
        build_table(outputs, names=names, query_reduction=q).columns for q in ("mean", "first", "none")
    )
    assert [c["loss"].shape for c in (mean, original, each)] == [(50,), (50,), (50, 3)]
    assert [c["logits"].shape for c in (mean, original, each)] == [(50, 5), (50, 5), (50, 15)]
    np.testing.assert_allclose(mean["loss"], each["loss"].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(original["loss"], each["loss"][:, 0], rtol=1e-6)
    np.testing.assert_array_equal(each["logits"], outputs.logits.reshape(50, 15))
    np.testing.assert_array_equal(mean["phi_mean"], original["phi_mean"])
    single = outputs_of(outputs.logits[:, :1], outputs.labels)
    assert build_table(single, names=["loss"], query_reduction="none").columns["loss"].shape == (50,)


def test_table_dtypes(outputs):
    table = build_table(outputs, names=["all"])
    assert set(table.columns) == set(signal_names())
    for column in table.columns.values():
        assert column.dtype == (np.float64 if column.ndim == 1 else np.float32)
        assert np.isfinite(column).all()
    assert table.num_classes == 5


def test_outputs_are_unchanged(outputs):
    before = outputs.logits.copy(), outputs.features.copy()
    build_table(outputs, names=["all"])
    np.testing.assert_array_equal(outputs.logits, before[0])
    np.testing.assert_array_equal(outputs.features, before[1])


def test_presets_expand_once():
    assert len(preset("course")) == 10
    assert expand_names(["phi", "course", "loss"]) == ["phi", *preset("course")]
    assert preset("all") == signal_names()
    assert set(expand_names(["course", "standard"])) <= set(signal_names())


def test_presets_omit_unavailable(outputs):
    bare = outputs_of(outputs.logits, outputs.labels)
    missing = {"features", "feature_norm", "weight_gradient_norm", "input_gradient_norm", "phi_gradient_norm"}
    assert set(preset("standard")) - set(build_table(bare, names=["standard"]).columns) == missing
    assert set(build_table(outputs, names=["standard"]).columns) == set(preset("standard"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["phii"], "did you mean 'phi'"),
        (["standart"], "did you mean 'standard'"),
        (["input_gradient_norm"], "--extraction.gradients true"),
        (["standard", "phi_gradient_norm"], "--extraction.gradients true"),
        (["features"], "penultimate features"),
        (["nowhere.at:all"], "package.module:function"),
        (["numpy:sqrt"], "not a signal"),
    ],
)
def test_unavailable_signal_error_message(outputs, names, message):
    with pytest.raises(MIAError, match=message):
        build_table(outputs_of(outputs.logits, outputs.labels), names=names)


def test_non_finite_signal_error_message(outputs):
    logits = outputs.logits.copy()
    logits[3, 1, 2] = np.nan
    with pytest.raises(MIAError, match="'entropy' is NaN, infinite"):
        build_table(outputs_of(logits, outputs.labels), names=["entropy"])
    with pytest.raises(MIAError, match="at least two classes"):
        build_table(outputs_of(logits[:, :, :1]), names=["loss"])


@signal(direction=1, per_query=False)
def twice_the_first(outputs):
    return 2 * outputs.logits[:, 0, 0]


@signal(direction=1, per_query=True)
def of_the_wrong_shape(outputs):
    return outputs.logits[:, 0, 0]


def test_user_signal(outputs, monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    table = build_table(outputs, names=["mine:twice_the_first", "phi"])
    np.testing.assert_allclose(table.columns["mine:twice_the_first"], 2 * outputs.logits[:, 0, 0])
    with pytest.raises(MIAError, match=r"of_the_wrong_shape.*\(50,\).*\(50, 3\)"):
        build_table(outputs, names=["mine:of_the_wrong_shape"])
    assert twice_the_first(outputs).shape == (50,), "marking leaves a plain function"


def test_documented_example_is_one_file(outputs, tmp_path, monkeypatch):
    import mia_lightning.signals as package

    example = textwrap.dedent(package.__doc__.partition("::\n\n")[2])
    (tmp_path / "squared.py").write_text("import numpy as np\n" + example)
    monkeypatch.syspath_prepend(tmp_path)
    table = build_table(outputs, names=["squared:squared_logit"])
    chosen = outputs.logits[np.arange(50), :, outputs.labels].astype(np.float64)
    np.testing.assert_allclose(table.columns["squared:squared_logit"], (chosen**2).mean(axis=1))


@pytest.mark.parametrize("name", signal_names())
def test_contract(name, outputs):
    function = get_signal(name)
    values = np.asarray(function(outputs))
    leading = (50, 3) if function.per_query else (50,)
    assert function.__name__ == name
    assert function.direction in (-1, 0, 1)
    assert values.shape[: len(leading)] == leading
    assert values.ndim <= len(leading) + 1
    assert np.isfinite(values).all()
    assert function.direction == 0 or values.ndim == len(leading) or name == "phi_queries", "vectors have no direction"
