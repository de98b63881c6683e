"""The vocabulary of tables and arrays: which column names and which words mean what.

Every reader of records and of scores uses these names, so that all readers understand the same files. Names are
compared by `normalize_name`: case, blanks and hyphens do not matter.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from mia_lightning.errors import MIAError, listed, printable

UNKNOWN = -1
"""Membership or label that is missing."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "id": (
        "id", "ids", "record", "record_id", "record_ids", "sample_id", "sample_ids", "image_id", "image_ids", "img_id",
        "example_id", "uid", "uuid", "idx",
    ),
    "membership": (
        "membership", "memberships", "member", "members", "is_member", "is_members", "ismember", "in_train", "is_train",
        "in_training", "is_training", "in_training_set", "is_in", "in_trainset", "in_train_set", "seen", "is_seen",
        "was_seen", "train", "trained", "trained_on", "is_trained", "was_trained", "used_in_training",
        "used_for_training", "in_target", "in_target_train",
    ),
    "label": (
        "label", "labels", "target", "targets", "y", "class", "class_id", "class_index", "class_idx", "class_label",
        "true_label", "true_labels", "true_class", "ground_truth", "gt", "y_true", "category", "category_id",
        "fine_label", "fine_labels",
    ),
    "group": (
        "group", "groups", "group_id", "person", "person_id", "patient", "patient_id", "subject", "subject_id",
        "identity", "user", "user_id", "camera", "camera_id",
    ),
    "image": ("images", "image", "imgs", "img", "pixels", "pictures", "data", "x"),
    "input": ("inputs", "input", "features", "signals", "signal", "series", "rows", "table", "tokens", "input_ids"),
    "file": (
        "file", "files", "filename", "filenames", "file_name", "path", "paths", "filepath", "file_path", "image",
        "image_file", "image_path", "image_name", "img", "img_path",
    ),
    "class_name": ("class_name", "class_names", "classes", "label_name", "label_names", "category_name"),
    "split": ("split", "subset", "partition"),
    "prediction": (
        "pred", "prediction", "predictions", "predicted", "predicted_label", "predicted_class", "pred_label",
        "pred_class", "y_pred",
    ),
    "index": ("", "index", "level_0", "unnamed:_0", "row", "row_id"),
    "fold": ("fold", "folds"),
    "epoch": ("epoch", "epochs", "step", "seed"),
}  # fmt: skip
"""Meaning to the normalized column names that have it, the best one first."""

RECORD_COLUMNS = ("id", "image", "label", "membership", "group", "class_name", "split")
"""Meanings in a file of arrays."""

TABLE_COLUMNS = ("id", "file", "label", "membership", "group", "class_name", "split")
"""Meanings in a table next to images."""

SPLITS = (("train", "training"), ("test", "testing", "val", "valid", "validation"))
"""Names of the sets whose records are members, and of those whose records are not, the best first."""

IGNORE = "ignore"
"""Meaning in `--data.columns` of a column that is neither used nor named."""

FEATURE = "feature"
"""Meaning in `--data.columns` of a column of a table that the target receives, whatever its name."""

_BLANKS = ("", "unknown", "none", "nan", "null", "na", "n/a", "<na>", "nat", "?", "-")
MEMBERSHIP_WORDS: Mapping[str, int] = {
    **dict.fromkeys(("1", "+1", "true", "t", "yes", "y", "member", "members", "in", "train", "training", "seen"), 1),
    **dict.fromkeys(
        (
            "0", "false", "f", "no", "n", "non-member", "nonmember", "non-members", "nonmembers", "not-member", "out",
            "test", "testing", "holdout", "held-out", "heldout", "unseen", "val", "valid", "validation", "dev", "eval",
            "evaluation", "not-seen", "not-in-train",
        ),
        0,
    ),
    **dict.fromkeys((*_BLANKS, "-1"), UNKNOWN),
}  # fmt: skip
"""Normalized words of membership; `membership_codes` decides what -1 means."""

WHOLE = re.compile(r"([+-]?\d{1,18})(\.0*)?", re.ASCII)
"""A whole number; pandas writes 3.0 where a column has gaps."""

LONGEST_ID, LONGEST_NAME = 256, 200
"""Characters of an id, and of a class's name."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?inf(inity)?", re.ASCII | re.IGNORECASE)
"""Any number."""

SIGNED_NOTE = (
    "membership holds only +1 and -1, read as member and non-member; leave a cell empty where membership is unknown"
)

SIGNED_CLASSES = ("-1", "1")
"""Names of the classes where all labels are -1 and 1: there -1 is no missing label."""


def normalize_name(name: object) -> str:
    """Return a column name in lower case, with underscores for blanks and hyphens and none in front."""
    return str(name).strip().strip('"').lower().replace(" ", "_").replace("-", "_").lstrip("_")


def meaning(name: object, meanings: Iterable[str] = NAMES) -> str | None:
    """Return the first of these meanings that a column name has, or None."""
    normal = normalize_name(name)
    return next((candidate for candidate in meanings if normal in NAMES[candidate]), None)


def is_blank(text: str) -> bool:
    """Whether a cell's text stands for a missing value."""
    return text.strip().lower() in _BLANKS


def membership_code(text: str) -> int | None:
    """Return 1, 0 or -1 (unknown) for a cell's text, or None for a word that is not understood."""
    word = text.strip().lower().replace("_", "-").replace(" ", "-")
    head, _, zeros = word.partition(".")
    if zeros and not zeros.strip("0"):  # pandas writes 1.0 when a column has gaps
        word = head
    return MEMBERSHIP_WORDS.get(word)


def names_training(words: Iterable[str]) -> bool:
    """Whether the distinct values of a column of splits name training or test sets, which is membership.

    Numbers do not: whether 0 or 1 is the training set differs from file to file.
    """
    return any(membership_code(word) in (0, 1) for word in words if NUMBER.fullmatch(word.strip()) is None)


def training_and_test(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the names of the training set and of the test set (else the validation set); None without either."""
    normal = {normalize_name(name): name for name in names}
    train, test = (next((normal[name] for name in order if name in normal), None) for order in SPLITS)
    return None if train is None or test is None else (train, test)


def split_note(source: str, name: str, words: Sequence[str]) -> str:
    """Return the note of how a column of splits without a column of membership was read."""
    if names_training(words):
        return f"{source}: membership is read from {printable(name, 40)}: training records are members"
    return (
        f"{source}: column not used: {printable(name, 40)}, whose values ({listed(words, 3, 20)}) name no training or "
        "test set; map it with --data.columns '{NAME: membership}' where its 1 means member"
    )


def is_signed(values: Iterable[object]) -> bool:
    """Whether distinct membership values are +1 and -1 alone, the coding of margins: -1 means non-member then.

    Args:
        values: distinct numbers or cell texts; blanks do not count.
    """
    texts = {str(value).strip().lower() for value in values}
    numbers = {text.lstrip("+").partition(".")[0] for text in texts if not is_blank(text)}
    return numbers == {"1", "-1"}


def membership_codes(words: Sequence[str], where: Callable[[int], str]) -> tuple[list[int], list[str]]:
    """Return 1, 0 or -1 (unknown) for each distinct text of one membership column, and how -1 was read.

    Args:
        words: the distinct texts.
        where: start of the error sentence for a position in words, such as ``scores.csv, line 3: membership``.

    Raises:
        MIAError: a word is not understood.
    """
    signed = is_signed(words)
    codes: list[int] = []
    for position, word in enumerate(words):
        code = membership_code(word)
        if code is None:
            raise MIAError(
                f"{where(position)} is {printable(word, 40)!r}; expected 1 or 0, member or non-member, yes or no, or "
                "empty for unknown"
            )
        codes.append(0 if signed and word.strip().startswith("-1") else code)
    return codes, [SIGNED_NOTE] if signed else []


def label_codes(words: Sequence[str], where: Callable[[int], str]) -> tuple[list[int], tuple[str, ...] | None]:
    """Return a class from 0 (-1 = missing) for each distinct text of one label column, and the classes' names, if any.

    Names are numbered in alphabetical order, as torchvision's ImageFolder does; -1 and 1 alone are such names.

    Raises:
        MIAError: numbers and names are mixed, or a number is not whole.
    """
    if is_signed(words):
        return [UNKNOWN if is_blank(word) else int(not word.strip().startswith("-")) for word in words], SIGNED_CLASSES
    wholes = [WHOLE.fullmatch(word.strip()) for word in words]
    named = [i for i, word in enumerate(words) if wholes[i] is None and not is_blank(word)]
    unnamed = next((i for i in named if _is_not_name(words[i].strip())), None)
    if unnamed is not None or (named and any(wholes)):
        position = named[0] if unnamed is None else unnamed
        raise MIAError(
            f"{where(position)} is {printable(words[position], 40)!r}; expected a whole number for every class, or a "
            "name for every class"
        )
    names = sorted({words[i].strip() for i in named})
    index_of = {name: index for index, name in enumerate(names)}
    codes = [
        UNKNOWN if is_blank(word) else int(whole.group(1)) if whole else index_of[word.strip()]
        for word, whole in zip(words, wholes, strict=True)
    ]
    return codes, tuple(names) or None


def _is_not_name(word: str) -> bool:
    return len(word) > LONGEST_NAME or not word.isprintable() or NUMBER.fullmatch(word) is not None
