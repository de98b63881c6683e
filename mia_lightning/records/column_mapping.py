"""Columns of a file by their meaning, from the vocabulary and the user's mapping (`--data.columns`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mia_lightning.errors import MIAError, listed, printable, suggest
from mia_lightning.records.vocabulary import (
    FEATURE,
    IGNORE,
    NAMES,
    RECORD_COLUMNS,
    TABLE_COLUMNS,
    meaning,
    normalize_name,
)


@dataclass(frozen=True)
class Columns:
    """Columns of a file by their meaning."""

    by_meaning: dict[str, str] = field(default_factory=dict)
    """Meaning to the column's name as written in the file."""

    unused: list[str] = field(default_factory=list)
    """Columns that are not understood, as written in the file."""

    absent: list[str] = field(default_factory=list)
    """Columns that the user's mapping names and the file lacks (the other half may have them)."""

    def get(self, name: str) -> str | None:
        """Return the name of the column with this meaning, or None."""
        return self.by_meaning.get(name)

    def notes(self, source: str) -> list[str]:
        """Return what was not understood, one note each for the file's columns and the mapping's."""
        notes = [f"{source}: has no column {printable(name, 40)!r}, which --data.columns maps" for name in self.absent]
        if not self.unused:
            return notes
        unused = listed(self.unused, 8)
        return [*notes, f"{source}: columns not used: {unused}; map one with --data.columns '{{NAME: membership}}'"]


def find_columns(
    names: Sequence[str], source: str, mapping: Mapping[str, str] | None = None, meanings: Sequence[str] = TABLE_COLUMNS
) -> Columns:
    """Return which of a file's columns has which meaning.

    Args:
        names: the file's columns.
        source: the file, for error sentences.
        mapping: the user's own mapping of column name to meaning (`--data.columns`), which goes before the vocabulary;
            ``ignore`` leaves a column out.
        meanings: the meanings that the reader uses.

    Raises:
        MIAError: two columns have one meaning, or the mapping names a meaning that does not exist.
    """
    mapping = mapping or {}
    check_mapping(mapping)
    given, absent = _mapped(names, mapping)
    columns = Columns({means: name for name, means in given.items() if means in meanings}, absent=absent)
    for means in meanings:
        if means in columns.by_meaning:
            continue
        same = [name for name in names if name not in given and meaning(name, meanings) == means]
        exact = [name for name in same if normalize_name(name) == NAMES[means][0]]
        if len(same) > 1 and len(exact) != 1:
            raise MIAError(
                f"{source}: columns {same[0]!r} and {same[1]!r} both mean {means}; choose with "
                f"--data.columns '{{{same[0]}: {means}, {same[1]}: {IGNORE}}}'"
            )
        if same:
            columns.by_meaning[means] = (exact or same)[0]
    used = {*columns.by_meaning.values(), *(name for name, means in given.items() if means == IGNORE)}
    columns.unused.extend(name for name in names if name not in used and meaning(name, ("index",)) is None)
    return columns


def check_mapping(mapping: Mapping[str, str], *, repeated: Sequence[str] = ()) -> None:
    """Raise MIAError when a mapping of columns has an unknown meaning, or twice one that may not be repeated."""
    legal = [*RECORD_COLUMNS, "input", "file", FEATURE, IGNORE]
    for name, means in mapping.items():
        if means not in legal:
            raise MIAError(f"--data.columns: {name!r} is mapped to {means!r}; {suggest(str(means), legal, see='')}")
    used = [means for means in mapping.values() if means not in (IGNORE, FEATURE, *repeated)]
    if twice := next((means for means in used if used.count(means) > 1), None):
        raise MIAError(f"--data.columns: two columns are mapped to {twice}; keep one")


def refuse_masks(names: Sequence[str], source: str) -> None:
    """Raise MIAError for token ids with an attention mask, of which a target would receive the ids alone."""
    if mask := next((name for name in names if normalize_name(name) == "attention_mask"), None):
        raise MIAError(
            f"{source}: has token ids with an {mask}, but a target receives one array per record; leave the mask out, "
            "and give --target.architecture package.module:Class whose forward computes it from the ids"
        )


def _mapped(names: Sequence[str], mapping: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the mapping with the file's own spelling, and its columns that the file lacks."""
    spelled = {normalize_name(name): name for name in names} | {name: name for name in names}
    spellings = {name: spelled.get(name, spelled.get(normalize_name(name))) for name in mapping}
    given = {column: mapping[name] for name, column in spellings.items() if column is not None}
    return given, [name for name, column in spellings.items() if column is None]
