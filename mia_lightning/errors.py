"""The exception for a user's mistake, and parts of its sentence: reasons, lists and suggestions of names."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LONGEST, CLOSEST = 1000, 3
"""Characters of a message, and names that it suggests."""


def printable(text: object, longest: int = LONGEST) -> str:
    r"""Return text that is safe to print: one line, no control characters, bounded.

    Everything that comes from a file, a path or an option and reaches a terminal, log, report or note goes through
    here. Line breaks, escape sequences, NUL, bidirectional controls and lone surrogates become ``\n``, ``\x1b``,
    ``\u202e`` and so on.

    Args:
        text: anything with a string form.
        longest: characters kept; a longer text ends in an ellipsis.
    """
    shown = str(text)
    cut = len(shown) > longest
    shown = shown[:longest]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
        cut, shown = cut or len(shown) > longest, shown[:longest]
    return f"{shown}…" if cut else shown


class MIAError(Exception):
    """A mistake that the user can correct: one sentence with the finding, the expectation and the fix.

    The command line prints it without a traceback and exits with code 2. Text from files is made safe to print:
    unprintable characters (line breaks, terminal escapes) are escaped, and the message is cut at 1,000 characters.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def reason(error: BaseException, longest: int = 200) -> str:
    """Return the first line of an error's message, or its type where it has none, safe to print."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], longest)


def listed(names: Sequence[object], most: int, longest: int = 40) -> str:
    """Return the first names of a list, safe to print, with an ellipsis for any others."""
    return ", ".join(printable(name, longest) for name in names[:most]) + (", …" if names[most:] else "")


def suggest(given: str, legal: Iterable[str], *, see: str = "--help") -> str:
    """Return the end of an error sentence: at most the three closest of the legal names.

    Args:
        given: The name that is not legal.
        legal: The legal names.
        see: The option that lists all legal names.
    """
    names = sorted(legal)
    if close := get_close_matches(given[:LONGEST], names, n=CLOSEST, cutoff=0.5):
        return f"did you mean {_either([repr(name) for name in close])}?" + (f" (all: {see})" if see else "")
    if len(names) <= CLOSEST:
        return f"legal: {', '.join(names) or 'none'}"
    nearest = get_close_matches(given[:LONGEST], names, n=CLOSEST, cutoff=0.0)
    return f"legal names include {', '.join(nearest)}" + (f" (all: {see})" if see else "")


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
