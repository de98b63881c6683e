"""Files of scores: columns, forms, and one sentence for each mistake."""

import csv

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mia_lightning.errors import MIAError
from mia_lightning.scores.files import read_key, read_scores, read_submission

COLUMNS = {
    "id": [3, 1, 2, 7],
    "membership": [1, 0, 1, 0],
    "label": [0, 1, 1, 0],
    "lira": [2.5, -1, 0.25, 0.125],
    "Loss": [1, 2, 3, 4],
}


def write(path, columns):
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(columns), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("name", ["s.csv", "s.parquet"])
def test_columns_are_found(tmp_path, name):
    contents = read_scores(write(tmp_path / name, COLUMNS))
    assert contents.notes == []
    assert contents.records.source == name
    assert contents.records.ids.tolist() == COLUMNS["id"]
    assert contents.records.membership.tolist() == COLUMNS["membership"]
    assert contents.records.labels.tolist() == COLUMNS["label"]
    assert {name: values.tolist() for name, values in contents.records.scores.items()} == {
        "lira": COLUMNS["lira"],
        "Loss": COLUMNS["Loss"],
    }


def test_names_words_and_byte_order_mark(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("IDS,Member,attack,size\n007,True,1e-3,5\n7,non-member,2,6\nx y,,3,7\n", encoding="utf-8-sig")
    contents = read_scores(path, columns=["size"])
    assert contents.records.ids.tolist() == ["007", "7"]
    assert contents.records.membership.tolist() == [1, 0]
    assert contents.records.labels is None
    assert list(contents.records.scores) == ["attack"]
    assert contents.columns["size"].tolist() == [5, 6]
    assert contents.notes == ["s.csv: 1 of 3 records have no known membership; left out"]


def test_our_own_scores_file(tmp_path):
    """As a run writes it: the submitted attack twice, private rows without membership."""
    columns = {
        "id": [1, 2, 3, 4],
        "split": ["public", "public", "private", "private"],
        "membership": [1, 0, 1, ""],
        "fold": [0, 1, "", ""],
        "score": [0.5, 0.25, 1, 2],
        "probability": [0.6, 0.4, 0.7, 0.8],
        "mlp": [0.5, 0.25, 1, 2],
        "loss": [3, 4, 5, 6],
    }
    path = write(tmp_path / "scores.csv", columns)
    contents = read_scores(path)
    assert list(contents.records.scores) == ["mlp", "loss"]
    assert contents.records.ids.tolist() == [1, 2]
    assert len(contents.notes) == 3
    assert read_scores(path, attacks=["probability"]).records.scores["probability"].tolist() == [0.6, 0.4]
    with pytest.raises(MIAError, match="did you mean 'public'"):
        read_scores(path, split="pubic")


def test_copied_score_column_is_left_out(tmp_path):
    path = write(tmp_path / "s.csv", {"id": [1, 2], "member": [0, 1], "score": [1, 2], "lira": [1, 2]})
    contents = read_scores(path)
    assert list(contents.records.scores) == ["lira"]
    assert "repeats lira" in contents.notes[0]


def test_key_gives_membership_in_any_order(tmp_path):
    scores = write(tmp_path / "s.csv", {"id": [3, 1, 2], "lira": [1, 2, 3]})
    key = write(tmp_path / "key.csv", {"id": [1, 2, 3], "membership": [1, 0, 0]})
    assert read_scores(scores, key=key).records.membership.tolist() == [0, 1, 0]
    assert read_submission(scores, read_key(key), "key.csv").tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": [3, 1, 3, 7]}, "line 4: id 3 duplicates 2"),
        ({"id": [3, "", 2, 7]}, "line 3: has no id"),
        ({"lira": [1, 2, "nan", 4]}, "line 4: lira is NaN or empty"),
        ({"lira": [1, "", 3, 4]}, "line 3: lira is NaN or empty"),
        ({"lira": [1, 2, 3, "-inf"]}, "line 5: lira is infinite"),
        ({"lira": [1, "high", 3, 4]}, "line 3: lira is 'high'; expected a number"),
        ({"membership": [1, 1, 1, 1]}, "4 members and 0 non-members"),
        ({"membership": ["", "", "", ""]}, "0 members and 0 non-members"),
        ({"membership": [1, 0, 2, 0]}, "line 4: membership is '2'"),
        ({"label": [0, 1, 1.5, 0]}, "line 4: label is '1.5'"),
        ({"LIRA": [1, 2, 3, 4]}, "two columns named 'lira'"),
        ({"member": [1, 0, 1, 0], "membership": None, "is_member": [1, 0, 1, 0]}, "both mean membership"),
        ({"membership": None}, "has no column membership"),
        ({"lira": None, "Loss": None}, "has no score column"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, changes, message):
    columns = {name: values for name, values in (COLUMNS | changes).items() if values is not None}
    with pytest.raises(MIAError, match=r"^s\.csv") as caught:
        read_scores(write(tmp_path / "s.csv", columns))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"id,membership,a\n", "contains no records"),
        (b"id,membership,a\n1,1,2\n2,0\n", "is not a CSV"),
        (b"\xff\xfe\x00\x01\x02", "is not UTF-8 text"),
        (b"PAR1 cut off", "Parquet"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, content, message):
    (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(MIAError, match=message):
        read_scores(tmp_path / "s.csv")
    with pytest.raises(MIAError, match="cannot be read"):
        read_scores(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2], "key.csv: 1 ids of s.csv are missing, first 3"),
        ([1, 2, 4], "1 are only in key.csv"),
        ([1, 2, 3, 4], "key.csv: 1 ids are not in s.csv, first 4"),
        (["a", "b", "c"], "3 ids of s.csv are missing"),
    ],
)
def test_key_of_other_records(tmp_path, ids, message):
    scores = write(tmp_path / "s.csv", {"id": [1, 2, 3], "lira": [1, 2, 3]})
    key = write(tmp_path / "key.csv", {"id": ids, "membership": [0, 1, 1, 1][: len(ids)]})
    with pytest.raises(MIAError, match=message):
        read_scores(scores, key=key)


def test_key_that_contradicts_the_scores(tmp_path):
    scores = write(tmp_path / "s.csv", COLUMNS)
    key = write(tmp_path / "key.csv", {"id": [1, 2, 3, 7], "membership": [1, 1, 1, 0]})
    with pytest.raises(MIAError, match=r"membership differs for 1 records, first id 1"):
        read_scores(scores, key=key)
    write(tmp_path / "key.csv", {"id": [1, 2], "membership": [1, ""]})
    with pytest.raises(MIAError, match=r"key.csv, line 3: membership is unknown"):
        read_key(tmp_path / "key.csv")


def test_parquet_rows_are_named(tmp_path):
    path = write(tmp_path / "s.parquet", {"id": ["a", "b"], "member": [True, False], "lira": [1.0, float("inf")]})
    with pytest.raises(MIAError, match=r"s.parquet, row 2: lira is infinite"):
        read_scores(path)
    with pytest.raises(MIAError, match="did you mean 'lira'"):
        read_scores(path, attacks=["lyra"])


def table(n=30, **columns):
    rng = np.random.default_rng(0)
    return {"membership": [i % 2 for i in range(n)], "lira": rng.normal(size=n).round(3).tolist()} | columns


def test_numbering_constant_and_named_columns_are_no_attacks(tmp_path):
    """The index of a data frame, an epoch, a prediction, a copy of the ids, a counter and texts; each is named."""
    rows = list(range(30))
    columns = {"": rows, "id": [i + 100 for i in rows]} | table(
        copy_of_id=[i + 100 for i in rows], counter=rows[::-1], temperature=[0.5] * 30, epoch=[3] * 29 + [4],
        pred=[i % 3 for i in rows], true_label=[i % 3 for i in rows], tool=["a b"] * 30,
    )  # fmt: skip
    scores = read_scores(write(tmp_path / "s.csv", columns))
    assert list(scores.records.scores) == ["lira"]
    assert scores.records.labels.tolist() == [i % 3 for i in rows]
    (note,) = scores.notes
    for named in ("without name", "copy_of_id", "counter", "temperature (constant)", "epoch", "pred", "tool (text)"):
        assert named in note
    chosen = read_scores(tmp_path / "s.csv", attacks=["epoch", "lira"])
    assert list(chosen.records.scores) == ["epoch", "lira"]


def test_the_only_column_may_be_constant(tmp_path):
    scores = read_scores(write(tmp_path / "s.csv", {k: v for k, v in table(a=[1] * 30).items() if k != "lira"}))
    assert list(scores.records.scores) == ["a"]


def test_ids_are_optional_and_groups_are_read(tmp_path):
    scores = read_scores(write(tmp_path / "s.csv", table(person=[f"p{i // 3}" for i in range(30)])))
    assert scores.records.ids.tolist() == list(range(30))
    assert scores.records.groups[:4].tolist() == ["p0", "p0", "p0", "p1"]
    with pytest.raises(MIAError, match="has no column id, by which --key is matched"):
        read_scores(tmp_path / "s.csv", key=write(tmp_path / "key.csv", {"id": [1, 2], "member": [1, 0]}))


@pytest.mark.parametrize(
    ("separator", "encoding", "decimal"),
    [("\t", "utf-8", "."), (";", "utf-8", ","), (";", "utf-8-sig", "."), (",", "utf-16", "."), ("|", "utf-8", ".")],
)
def test_delimiters_decimal_commas_and_encodings(tmp_path, separator, encoding, decimal):
    lines = [["id", "is_member", "score"]] + [[str(i), "yes" if i % 2 else "no", f"{i}{decimal}5"] for i in range(8)]
    text = "".join(separator.join(line) + "\n" for line in lines)
    (tmp_path / "s.csv").write_bytes(text.encode(encoding))
    records = read_scores(tmp_path / "s.csv").records
    assert records.scores["score"].tolist() == [i + 0.5 for i in range(8)]
    assert records.membership.tolist() == [0, 1] * 4


def test_label_that_may_be_the_membership_is_named(tmp_path):
    path = write(tmp_path / "s.csv", {"score": [0.1, 0.2], "label": [1, 0]})
    with pytest.raises(MIAError, match=r"label is read as the record's class; .* rename it to membership"):
        read_scores(path)


@pytest.mark.parametrize(
    "words", [("train", "test"), ("+1", "-1"), ("Yes", "No"), ("member", "non_member"), ("1.0", "0.0"), ("in", "out")]
)
def test_words_of_membership(tmp_path, words):
    path = write(tmp_path / "s.csv", {"members": words, "score": [0.1, 0.2]})
    assert read_scores(path).records.membership.tolist() == [1, 0]
