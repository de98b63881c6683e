"""Tables of every form, against the csv module and arrays that were written."""

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from mia_lightning.errors import MIAError
from mia_lightning.records.csv_header import header_names
from mia_lightning.records.table_columns import (
    group_column,
    id_column,
    label_column,
    membership_column,
    number_column,
    text_column,
)
from mia_lightning.records.tables import parse_csv, read_table
from mia_lightning.security.file_kinds import KINDS

ROWS = [["id", "membership", "score"], ["007", "member", "0.5"], ["8", "non-member", "-1e3"], ["9", "", "2"]]


def text(rows=ROWS, delimiter=","):
    return "".join(delimiter.join(row) + "\n" for row in rows)


def check(table):
    assert table.names == ROWS[0]
    assert id_column(table, "id").tolist() == ["007", "8", "9"]
    assert membership_column(table, "membership")[0].tolist() == [1, 0, -1]
    assert number_column(table, "score").tolist() == [0.5, -1000, 2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiters_and_encodings(tmp_path, delimiter, ends, encoding):
    content = text(delimiter=delimiter).replace("\n", ends)
    content = b"\xff\xfe" + content.encode("utf-16-le") if encoding == "utf-16-le-bom" else content.encode(encoding)
    (tmp_path / "t.csv").write_bytes(content)
    for table in (read_table(tmp_path / "t.csv"), parse_csv(content, "t.csv")):
        check(table)
        assert len(table.notes) == (delimiter != ",")
    assert header_names(content[:4096]) == ROWS[0]


def test_decimal_commas(tmp_path):
    table = parse_csv(b"id;score;label\n1;0,25;3\n2;-1,5;4\n", "t.csv")
    assert number_column(table, "score").tolist() == [0.25, -1.5]
    assert label_column(table, "label")[0].tolist() == [3, 4]
    assert "decimal commas" in table.notes[1]


def test_parquet(tmp_path):
    columns = {"id": pa.array(["007", "8", "9"]), "membership": [1, 0, None], "score": [0.5, -1000.0, 2.0]}
    parquet.write_table(pa.table(columns), tmp_path / "t")
    check(read_table(tmp_path / "t"))
    assert read_table(tmp_path / "t").where(0) == "t, row 1"


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8).map(str.strip)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cells, cells, st.integers(-(2**40), 2**40)), min_size=1, max_size=20))
def test_text_survives(rows):
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["file", "class_name", "score"])
    writer.writerows(rows)
    table = parse_csv(stream.getvalue().encode(), "t.csv")
    assert text_column(table, "file") == [row[0] for row in rows]
    assert text_column(table, "class_name") == [row[1] for row in rows]
    assert number_column(table, "score").tolist() == [float(row[2]) for row in rows]


def test_labels_as_numbers_or_names():
    table = parse_csv(b"id,a,b,c\n1,3.0,cat,1\n2,nan,dog,x\n3,0,,2\n4,7,cat,3\n", "t.csv", dict.fromkeys("ab", "label"))
    assert label_column(table, "a")[0].tolist() == [3, -1, 0, 7]
    labels, names = label_column(table, "b")
    assert (labels.tolist(), names) == ([0, 1, -1, 0], ("cat", "dog"))
    with pytest.raises(MIAError, match="line 3: c is 'x'; expected a whole number for every class, or a name"):
        label_column(table, "c")
    with pytest.raises(MIAError, match=r"line 2: label is '0.5'; expected a whole number"):
        label_column(parse_csv(b"label\n0.5\n", "t.csv"), "label")


def test_labels_of_minus_one_and_one_are_two_classes():
    table = parse_csv(b"a,b\n-1,-1\n1,+1.0\n,0\n", "t.csv", dict.fromkeys("ab", "label"))
    assert label_column(table, "a")[0].tolist() == [0, 1, -1]
    assert label_column(table, "a")[1] == ("-1", "1")
    assert label_column(table, "b")[0].tolist() == [-1, 1, 0]


def test_groups():
    table = parse_csv(b"id,group,camera\n1,7,a\n2,8,\n3,7,a\n", "t.csv")
    ids = id_column(table, "id")
    assert group_column(table, "group", ids).tolist() == [7, 8, 7]
    assert group_column(table, "camera", ids).tolist() == ["a", "record 2", "a"]
    assert group_column(table, None, ids) is None


def test_signed_membership_is_noted():
    codes, notes = membership_column(parse_csv(b"id,member\n1,+1\n2,-1\n", "t.csv"), "member")
    assert codes.tolist() == [1, 0]
    assert "only +1 and -1" in notes[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"id,score\n", "contains no records"),
        (b"id,ID\n1,2\n", "two columns named 'id'"),
        (b"id,score\n1\n", "is not a CSV or Parquet table .*[Ee]xpected 2 columns, got 1"),
        (b"id\n\xff\xfe\n", "is not UTF-8 text"),
        (b"id\n1\0\n", "NUL"),
        (b"1,0.5,1\n2,0.7,0\n", "has no header"),
        (b"c," * 3000 + b"\n", "columns; expected at most 2,000|two columns named"),
    ],
)
def test_what_is_not_a_table(tmp_path, content, says):
    with pytest.raises(MIAError, match=f"^t.csv: .*({says})"):
        id_column(parse_csv(content, "t.csv"), "id")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(MIAError, match=f"^t.csv: .*({says})"):
        id_column(read_table(tmp_path / "t.csv"), "id")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"id\n1\n1\n", "line 3: id 1 duplicates 2"),
        (b'id\n1\n""\n', "line 3: has no id"),
        (b"id\n" + b"x" * 300 + b"\n", "line 2: the id is longer than 256"),
    ],
)
def test_ids_that_identify_nothing(content, says):
    with pytest.raises(MIAError, match=says):
        id_column(parse_csv(content, "t.csv"), "id")


@pytest.mark.parametrize("text", ["inf", "nan", ""])
def test_numbers_must_be_finite(text):
    with pytest.raises(MIAError, match=r"line 3: score is (infinite|NaN or empty) \(1 such rows\)"):
        number_column(parse_csv(f"id,score\n1,2\n2,{text}\n".encode(), "t.csv"), "score")


def test_another_kind_of_file_is_named(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(MIAError, match="is a Git LFS pointer"):
        read_table(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(MIAError, match=KINDS["HDF5"].description.partition("(")[0]):
        read_table(tmp_path / "s.csv")
