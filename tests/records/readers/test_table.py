"""Tables of named features: Parquet, CSV and DataFrames."""

import numpy as np
import pandas as pd
import pytest

from mia_lightning.errors import MIAError
from mia_lightning.records.duplicates import find_duplicates
from mia_lightning.records.frames import frame_table
from mia_lightning.records.halves import align_inputs
from mia_lightning.records.readers import read_records
from mia_lightning.records.readers.table import table_records


def frame_records(frame, source, columns=None):
    return table_records(frame_table(frame, source), columns)


def make_frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, 12),
            "height": rng.normal(1.7, 0.1, 12),
            "smoker": rng.random(12) < 0.5,
            "label": ["yes", "no"] * 6,
            "member": [1, 0, 1] * 4,
        }
    )


@pytest.mark.parametrize("form", ["parquet", "csv", "pandas", "polars", "arrow"])
def test_table_of_each_form(form, tmp_path):
    frame = make_frame()
    if form in ("parquet", "csv"):
        path = tmp_path / f"t.{form}"
        frame.to_parquet(path) if form == "parquet" else frame.to_csv(path, index=False)
        records = read_records(str(path))
    else:
        import polars as pl

        tables = {"pandas": frame, "polars": pl.from_pandas(frame), "arrow": pl.from_pandas(frame).to_arrow()}
        records = frame_records(tables[form], "t")
    assert records.feature_names == ("age", "height", "smoker")
    assert not records.is_image
    np.testing.assert_array_equal(records.images, frame[["age", "height", "smoker"]].astype(float))
    assert records.class_names == ("no", "yes")
    assert records.labels.tolist() == [1, 0] * 6
    assert records.membership.tolist() == [1, 0, 1] * 4
    assert list(records.known_columns) == ["age", "height", "smoker"]


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (("label_0", "label_2", "label_1"), None, [2, 0, 1]),
        (("y0", "y1", "y2"), None, [1, 0, 2]),
        (("target_very good", "target_bad", "target_ok"), ("bad", "ok", "very good"), [0, 2, 1]),
    ],
)
def test_one_hot_columns_of_labels_are_joined(names, classes, labels):
    hot = np.eye(3, dtype=int)[[1, 0, 2]]
    frame = make_frame().drop(columns="label").assign(**{name: np.tile(hot[:, i], 4) for i, name in enumerate(names)})
    records = frame_records(frame, "t")
    assert records.feature_names == ("age", "height", "smoker")
    assert (records.class_names, records.labels.tolist()) == (classes, labels * 4)
    assert "t: labels are read from 3 one-hot columns" in " ".join(records.notes)
    as_features = frame_records(frame, "t", dict.fromkeys(names, "feature"))
    assert as_features.feature_names == ("age", "height", "smoker", *names)
    frame.loc[5, list(names)] = 0  # a row of no class: these are no one-hot labels
    assert frame_records(frame, "t").feature_names == as_features.feature_names


def test_mapping_and_split():
    frame = make_frame().rename(columns={"label": "income", "member": "split", "age": "category"})
    frame["split"] = np.where(frame["split"] == 1, "train", "test")
    records = frame_records(frame, "t", {"income": "label", "category": "feature", "smoker": "ignore"})
    assert records.feature_names == ("category", "height")
    assert records.membership.sum() == 8
    assert set(records.labels) == {0, 1}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"height": [np.nan] * 12}, r"t, row 0: height is NaN or empty \(12 such rows\); fill in or encode"),
        ({"height": ["1", "inf"] * 6}, "t, row 1: height is infinite .*; fill in or encode its values"),
        ({"height": [[1.0]] * 12}, "height"),
        ({"member": [2] * 12}, "member is '2'; expected 1 or 0"),
    ],
)
def test_odd_tables_are_one_sentence(change, sentence):
    with pytest.raises(MIAError, match=sentence):
        frame_records(make_frame().assign(**change), "t")


MIXED = """id,work,age,dose,label
1, Private,,?,0
2,NA,30,0.5,1
3, ?,41,2,0
4,State,-7.5,1e3,1
"""


def test_text_and_missing_values_are_those_of_pandas(tmp_path):
    (tmp_path / "t.csv").write_text(MIXED)
    records = read_records(str(tmp_path / "t.csv"))
    expected = pd.read_csv(tmp_path / "t.csv", na_values={"dose": "?"})[["work", "age", "dose"]]
    pd.testing.assert_frame_equal(records.features.frame(records.images), expected)
    assert records.notes[0] == "t.csv: ? in column dose is read as missing"
    assert "3 features (work, age, dose), 1 of them text (work)" in records.notes[1]
    assert np.isfinite([*records.known_columns.values()]).all()


def test_halves_share_one_coding_of_texts(tmp_path):
    (tmp_path / "a.csv").write_text(MIXED)
    (tmp_path / "b.csv").write_text("id,age,work,dose\n5,1,State,1\n6,2,Local,2\n")
    public, private = align_inputs(*(read_records(str(tmp_path / name)) for name in ("a.csv", "b.csv")))
    assert public.categories["work"] == private.categories["work"] == (" ?", " Private", "Local", "State")
    assert private.features.frame(private.images)["work"].tolist() == ["State", "Local"]
    assert public.features.frame(public.images)["work"].tolist()[2:] == [" ?", "State"]
    (tmp_path / "b.csv").write_text("id,age,work,dose\n5,1,0,1\n")
    with pytest.raises(MIAError, match=r"column 'work' holds text in a.csv but numbers in b.csv"):
        align_inputs(public, read_records(str(tmp_path / "b.csv")))


def test_table_without_features():
    with pytest.raises(MIAError, match=r"t: has no columns of features, it has label, member; name one"):
        frame_records(make_frame()[["label", "member"]], "t")


def test_halves_with_other_columns():
    frame = make_frame()
    public, private = frame_records(frame, "a"), frame_records(frame[frame.columns[::-1]], "b")
    aligned = align_inputs(public, private)[1]
    np.testing.assert_array_equal(aligned.images, public.images)
    with pytest.raises(MIAError, match=r"a and b have different columns .*'age'"):
        align_inputs(public, frame_records(frame.drop(columns="age"), "b"))


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 16), (6, 2, 3, 4, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16", "bool"])
def test_inputs_of_any_shape(shape, dtype, tmp_path):
    inputs = (np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    inputs[1] = inputs[0]
    np.savez(tmp_path / "a.npz", inputs=inputs, labels=np.arange(6), membership=[0, 1] * 3)
    records = read_records(str(tmp_path / "a.npz"))
    assert not records.is_image
    assert records.images.shape == shape
    np.testing.assert_array_equal(records.images, inputs)
    assert find_duplicates(records).exact.within["a.npz"] >= 2


def test_nan_among_inputs(tmp_path):
    inputs = np.ones((4, 3))
    inputs[2, 1] = np.nan
    np.savez(tmp_path / "a.npz", inputs=inputs)
    with pytest.raises(MIAError, match="record 2 has NaN or infinite values"):
        read_records(str(tmp_path / "a.npz"))
