"""The vocabulary of column names and words."""

import pytest

from mia_lightning.errors import MIAError
from mia_lightning.records.column_mapping import check_mapping, find_columns
from mia_lightning.records.vocabulary import MEMBERSHIP_WORDS, NAMES, meaning, membership_code, membership_codes


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["yes", "No", "TRUE", "false"], [1, 0, 1, 0]),
        (["member", "non-member", "Non Member", "nonmember", "non_member"], [1, 0, 0, 0, 0]),
        (["train", "test", "in", "out", ""], [1, 0, 1, 0, -1]),
        (["1.0", "0.0", "nan", "unknown", "-1"], [1, 0, -1, -1, -1]),
        (["+1", "-1", ""], [1, 0, -1]),
        (["1", "-1.0"], [1, 0]),
        (["1", "-1", "0"], [1, -1, 0]),
        (["-1"], [-1]),
    ],
)
def test_membership_words(words, codes):
    assert membership_codes(words, str)[0] == codes


def test_unknown_membership_word():
    assert membership_code("maybe") is None
    with pytest.raises(MIAError, match=r"^t\.csv, row 1 is 'maybe'; expected 1 or 0"):
        membership_codes(["1", "maybe"], lambda position: f"t.csv, row {position}")
    assert membership_code("0.5") is None


def test_each_name_has_one_meaning():
    for names in NAMES.values():
        assert all(meaning(name) for name in names)
    for form in (("id", "image", "label", "membership", "group"), ("id", "file", "label", "membership", "group")):
        names = [name for means in form for name in NAMES[means]]
        assert len(set(names)) == len(names)
    assert set(MEMBERSHIP_WORDS.values()) == {1, 0, -1}


@pytest.mark.parametrize(
    "name", ["Is Member", "is-member", " IS_MEMBER ", "member", "members", "Membership", "in_train"]
)
def test_membership_column_names(name):
    columns = find_columns(["id", name, "extra"], "t.csv")
    assert columns.get("membership") == name
    assert columns.unused == ["extra"]
    assert "columns not used: extra" in columns.notes("t.csv")[0]


def test_exact_name_goes_before_synonyms():
    columns = find_columns(["id", "label", "target"], "t.csv")
    assert columns.get("label") == "label"
    assert columns.unused == ["target"]


def test_two_columns_of_one_meaning():
    with pytest.raises(MIAError, match=r"'y' and 'target' both mean label; choose with --data\.columns"):
        find_columns(["id", "y", "target"], "t.csv")
    columns = find_columns(["id", "y", "target"], "t.csv", {"y": "label", "target": "ignore"})
    assert (columns.get("label"), columns.unused) == ("y", [])


def test_mapping_goes_before_the_vocabulary():
    columns = find_columns(
        ["id", "label", "Was In"], "t.csv", {"was_in": "membership", "label": "ignore", "gone": "file"}
    )
    assert columns.by_meaning == {"membership": "Was In", "id": "id"}
    assert columns.notes("t.csv") == ["t.csv: has no column 'gone', which --data.columns maps"]


def test_impossible_mappings():
    with pytest.raises(MIAError, match="did you mean 'membership'"):
        check_mapping({"a": "membershp"})
    with pytest.raises(MIAError, match="two columns are mapped to label"):
        check_mapping({"a": "label", "b": "label"})


def test_pandas_index_is_not_named():
    assert find_columns(["", "id", "label"], "t.csv").unused == []
