"""Published layouts, written here as their papers' code writes them, come back as the same pool."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mia_lightning.errors import MIAError
from mia_lightning.references.exchange import is_pool, load_reference_outputs, read_pool, save_reference_outputs
from mia_lightning.references.outputs import ReferenceOutputs

K, N, Q, C = 4, 30, 2, 3
DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(size=(K, N, Q, C)).astype(np.float32)
LABELS = DRAW.integers(0, C, N)
KEEP = DRAW.random((K, N)) < 0.5
TARGET = DRAW.normal(size=(N, Q, C)).astype(np.float32)
MEMBER = (DRAW.random(N) < 0.5).astype(np.int8)


def softmax(logits):
    p = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def of_class(values):
    return np.take_along_axis(values, LABELS.reshape(N, 1, 1), axis=-1)[..., 0]


P = np.stack([of_class(softmax(model)) for model in LOGITS])
PHI = np.log(P) - np.log1p(-P)


def npz(folder, **arrays):
    np.savez(folder / "pool.npz", **arrays)
    return folder / "pool.npz"


def tensorflow_privacy(folder, what):
    """experiment-k_K/keep.npy, logits/EPOCH.npy (N, 1, Q, C), scores/EPOCH.npy (N, Q)."""
    for k in range(K):
        model = folder / f"experiment-{k}_{K}"
        (model / what).mkdir(parents=True)
        np.save(model / "keep.npy", KEEP[k])
        last = LOGITS[k][:, None] if what == "logits" else PHI[k]
        np.save(model / what / "0000000010.npy", np.zeros_like(last))
        np.save(model / what / "0000000100.npy", last)
    np.save(folder / "y_train.npy", LABELS)
    return folder


def lira_pytorch(folder, what):
    for k in range(K):
        (folder / str(k)).mkdir()
        np.save(folder / str(k) / "keep.npy", KEEP[k])
        np.save(folder / str(k) / f"{what}.npy", LOGITS[k] if what == "logits" else PHI[k])
    np.save(folder / "labels.npy", LABELS)
    return folder


def test_keep_rows_of_record_numbers(tmp_path):
    lira_pytorch(tmp_path, "scores")
    for k in range(K):
        np.save(tmp_path / str(k) / "keep.npy", DRAW.permutation(np.flatnonzero(KEEP[k])))
    np.testing.assert_array_equal(read_pool(str(tmp_path)).keep, KEEP)


def lira_analysis(folder, ending):
    for k in range(K):
        (folder / f"model_{k}" / "scores").mkdir(parents=True)
        np.save(folder / f"model_{k}" / "scores" / "scores.npy", PHI[k])
    indices = [np.flatnonzero(row).tolist() for row in KEEP]
    if ending == "json":
        (folder / "keep.json").write_text(json.dumps({f"model_{k}": row for k, row in enumerate(indices)}))
    elif ending == "csv":
        (folder / "keep.csv").write_text("\n".join(",".join(str(int(bit)) for bit in row) for row in KEEP))
    else:
        np.save(folder / "keep_indices.npy", KEEP.T)
    return folder


def privacy_meter(folder):
    (folder / "signals").mkdir()
    np.save(folder / "signals" / "softmax_signals.npy", P[:, :, 0].T)
    np.save(folder / "memberships.npy", KEEP)
    return folder


def table(folder):
    columns = {"id": [f"r{i}" for i in range(N)], "label": LABELS, "member": MEMBER}
    columns |= {f"phi_{k}": PHI[k].tolist() for k in range(K)} | {f"keep_{k}": KEEP[k] for k in range(K)}
    columns |= {"target": PHI[0].tolist()}
    pq.write_table(pa.table(columns), folder / "pool.parquet")
    return folder / "pool.parquet"


def long_table(folder, name="pool.csv", change=lambda rows: rows, columns="model,record_id,view,phi,keep,label"):
    """One row per model, record and view, shuffled; rows of the model named target are the target's."""
    models = [*((str(k), PHI[k], KEEP[k]) for k in range(K)), ("target", PHI[0] + 1, MEMBER)]
    rows = [
        [model, f"r{i}", q, f"{phi[i, q]:.9g}", int(keep[i]), LABELS[i]]
        for model, phi, keep in models
        for i in range(N)
        for q in range(Q)
    ]
    rows = [rows[0], *(rows[i + 1] for i in np.random.default_rng(1).permutation(len(rows) - 1))]
    (folder / name).write_text("\n".join([columns, *(",".join(map(str, row)) for row in change(rows))]))
    return folder / name


def sorted_rows(rows):
    return sorted(rows, key=lambda row: (row[0], int(row[1][1:])))


FORMS = {
    "long CSV": lambda d: long_table(d, change=sorted_rows),
    "long CSV of membership": lambda d: long_table(
        d, change=sorted_rows, columns="Shadow model,idx,view,score,member,label"
    ),
    "npz phi": lambda d: npz(d, phi=PHI, keep=KEEP),
    "npz N x K": lambda d: npz(d, phi=PHI.swapaxes(0, 1), keep=KEEP.T, membership=MEMBER),
    "npz logits": lambda d: npz(d, logits=LOGITS, keep=KEEP, labels=LABELS),
    "npz probabilities": lambda d: npz(d, probs=np.stack([softmax(z) for z in LOGITS]), keep=KEEP, y=LABELS),
    "npz probability of the class": lambda d: npz(d, probabilities=P, keep=KEEP),
    "npz loss": lambda d: npz(d, loss=-np.log(P), keep=KEEP),
    "tensorflow/privacy logits": lambda d: tensorflow_privacy(d, "logits"),
    "tensorflow/privacy scores": lambda d: tensorflow_privacy(d, "scores"),
    "lira-pytorch logits": lambda d: lira_pytorch(d, "logits"),
    "lira-pytorch scores": lambda d: lira_pytorch(d, "scores"),
    "lira_analysis npy": lambda d: lira_analysis(d, "npy"),
    "lira_analysis json": lambda d: lira_analysis(d, "json"),
    "lira_analysis csv": lambda d: lira_analysis(d, "csv"),
    "privacy meter": privacy_meter,
    "parquet": table,
}


@pytest.mark.parametrize("form", FORMS)
def test_layout(form, tmp_path):
    path = FORMS[form](tmp_path)
    assert is_pool(path)
    pool = read_pool(str(path))
    expected = PHI[:, :, :1] if form == "privacy meter" else PHI
    np.testing.assert_allclose(pool.phi, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(pool.keep, KEEP)


def test_npy_with_its_neighbors(tmp_path):
    np.save(tmp_path / "phi.npy", PHI)
    np.save(tmp_path / "keep.npy", KEEP)
    assert is_pool(tmp_path / "phi.npy")
    np.testing.assert_allclose(read_pool(str(tmp_path / "phi.npy")).phi, PHI, rtol=1e-6)


def test_logits_of_the_target(tmp_path):
    path = npz(tmp_path, logits=LOGITS, keep=KEEP, labels=LABELS, target=TARGET, membership=MEMBER)
    pool = read_pool(str(path))
    np.testing.assert_array_equal(pool.logits, TARGET)
    p = of_class(softmax(TARGET))
    np.testing.assert_allclose(pool.targets[0], np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(pool.membership[0], MEMBER)


def test_exported_folder_is_the_layout_of_plot_py(tmp_path):
    outputs = ReferenceOutputs(PHI[0].astype("f4"), PHI.astype("f4"), KEEP, LABELS, C, DRAW.random((K, N)) < 0.9)
    save_reference_outputs(tmp_path / "exp", outputs)
    for k in range(K):  # as load_data of mi_lira_2021/plot.py walks
        model = tmp_path / "exp" / f"experiment-{k}_{K}"
        last = sorted((model / "scores").iterdir())[-1]
        np.testing.assert_array_equal(np.load(last), outputs.references[k])
        np.testing.assert_array_equal(np.load(model / "keep.npy"), KEEP[k])
    loaded = load_reference_outputs(str(tmp_path / "exp"), labels=LABELS, num_classes=C)
    for name in ("target", "references", "keep", "drawn", "labels"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(outputs, name))


def test_long_table_in_any_order(tmp_path):
    pool = read_pool(str(long_table(tmp_path)))
    number = np.array([int(name[1:]) for name in pool.ids])
    assert number[0] == 0
    for values, expected in ((pool.phi, PHI), (pool.keep, KEEP), (pool.targets, PHI[:1] + 1)):
        np.testing.assert_allclose(values, expected[:, number], rtol=1e-6)
    np.testing.assert_array_equal(pool.membership[0], MEMBER[number])
    np.testing.assert_array_equal(pool.labels, LABELS[number])


def test_long_parquet_of_logits(tmp_path):
    rows = [(k, i) for k in range(K) for i in range(N)]
    columns = {"model": [k for k, _ in rows], "id": [i for _, i in rows], "label": [LABELS[i] for _, i in rows]}
    columns |= {"logits": [LOGITS[k, i, 0].tolist() for k, i in rows], "keep": [bool(KEEP[k, i]) for k, i in rows]}
    pq.write_table(pa.table(columns), tmp_path / "pool.parquet")
    np.testing.assert_allclose(read_pool(str(tmp_path / "pool.parquet")).phi[..., 0], PHI[..., 0], rtol=1e-4, atol=1e-5)


def test_scores_with_one_model_are_no_pool(tmp_path):
    (tmp_path / "scores.csv").write_text("id,member,loss,model\n1,1,0.5,resnet\n2,0,0.7,resnet\n")
    assert not is_pool(tmp_path / "scores.csv")


LONG_MISTAKES = {
    "model 2 and record r7 in view 1 have no row, 1 of 300 are missing": lambda rows: [
        row for row in rows if row[:3] != ["2", "r7", 1]
    ],
    "model 0 and record r0 in view 0 have more than one row": lambda rows: [*rows, rows[0]],
    "keep of model 0 and record r0 differs between views": lambda rows: [
        [*rows[0][:4], 1 - rows[0][4], rows[0][5]],
        *rows[1:],
    ],
    "record r0 has different labels": lambda rows: [[*rows[0][:5], 7], *rows[1:]],
    "keep of model 1 and record r.* is empty": lambda rows: [
        [*row[:4], "" if row[0] == "1" else row[4], row[5]] for row in rows
    ],
    "has the target alone": lambda rows: [row for row in rows if row[0] == "target"],
    "column of models has an empty cell in row 1": lambda rows: [["", *rows[0][1:]], *rows[1:]],
    "is not understood": lambda rows: [[*rows[0][:4], "perhaps", rows[0][5]], *rows[1:]],
    "NaN or infinite": lambda rows: [[*rows[0][:3], "", *rows[0][4:]], *rows[1:]],
}


@pytest.mark.parametrize("sentence", LONG_MISTAKES)
def test_mistake_in_a_long_table(sentence, tmp_path):
    with pytest.raises(MIAError, match=sentence):
        read_pool(str(long_table(tmp_path, change=LONG_MISTAKES[sentence])))


@pytest.mark.parametrize("columns", ["model,x1,view,phi,keep,label", "model,id,view,phi,x1,label"])
def test_long_table_without_a_column(columns, tmp_path):
    with pytest.raises(MIAError, match=r"but no column (record|keep)"):
        read_pool(str(long_table(tmp_path, columns=columns)))


def test_saturated_probabilities_are_counted(tmp_path):
    p = P.astype(np.float32)
    p[0, :7, 0] = 1
    pool = read_pool(str(npz(tmp_path, probabilities=p, keep=KEEP)))
    assert np.isfinite(pool.phi).all()
    assert any("7 of 240 probabilities are rounded to 1" in note for note in pool.notes)


MISTAKES = {
    "--references.labels": lambda d: npz(d, logits=LOGITS, keep=KEEP),
    "NaN or infinite .* store logits": lambda d: npz(d, phi=np.where(PHI.max() - 1 < PHI, np.inf, PHI), keep=KEEP),
    "no array 'keep'": lambda d: npz(d, phi=PHI),
    "only 0 and 1": lambda d: npz(d, phi=PHI, keep=KEEP * 2),
    "one value|expected \\(K, N\\)": lambda d: npz(d, phi=PHI[:, :5], keep=KEEP),
    "labels, ids or membership are of 29 records": lambda d: npz(d, logits=LOGITS, keep=KEEP, labels=LABELS[:-1]),
    "has no keep matrix": lambda d: [lira_analysis(d, "csv"), (d / "keep.csv").unlink()][0],
    "is not a folder of models": lambda d: d,
    "one file \\*_signals.npy": lambda d: [privacy_meter(d), np.save(d / "signals" / "b_signals.npy", P)][0],
    "differ in shape": lambda d: [lira_pytorch(d, "scores"), np.save(d / "2" / "scores.npy", PHI[0, :5])][0],
    "not an array of plain numbers": lambda d: [
        lira_pytorch(d, "scores"),
        np.save(d / "1" / "scores.npy", np.array([object()]), allow_pickle=True),
    ][0],
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_mistake(sentence, tmp_path):
    with pytest.raises(MIAError, match=sentence):
        read_pool(str(MISTAKES[sentence](tmp_path)))


def test_labels_file_reads_logits(tmp_path):
    np.save(tmp_path / "other.npy", LABELS)
    path = npz(tmp_path, logits=LOGITS, keep=KEEP)
    np.testing.assert_allclose(read_pool(str(path), labels=str(tmp_path / "other.npy")).phi, PHI, rtol=1e-4, atol=1e-5)


def test_views_of_a_run_are_named(tmp_path):
    path = str(npz(tmp_path, phi=PHI, keep=KEEP))
    with pytest.raises(MIAError, match=r"--references.queries"):
        load_reference_outputs(path, labels=LABELS, num_classes=C, target=np.zeros((N, 1), np.float32))


@pytest.mark.parametrize(
    ("option", "way"), [("--references.imported", "--references.labels"), ("--pool", "--labels"), ("", "add labels")]
)
def test_labels_are_named_by_the_option_of_the_command(option, way, tmp_path):
    with pytest.raises(MIAError, match="without which phi is undefined") as error:
        read_pool(str(npz(tmp_path, logits=LOGITS, keep=KEEP)), option=option)
    assert str(error.value).count("--") == str(error.value).startswith("--") + (way != "add labels")
    assert way in str(error.value)


def test_column_without_a_number_is_the_target(tmp_path):
    columns = {f"phi_{k}": PHI[k, :, 0] for k in range(K)} | {f"keep_{k}": KEEP[k].astype(int) for k in range(K)}
    pq.write_table(pa.table(columns | {"phi": PHI[0, :, 1], "membership": MEMBER}), tmp_path / "pool.parquet")
    pool = read_pool(str(tmp_path / "pool.parquet"))
    np.testing.assert_allclose(pool.targets[0, :, 0], PHI[0, :, 1], rtol=1e-6)
    np.testing.assert_allclose(pool.phi[..., 0], PHI[..., 0], rtol=1e-6)
