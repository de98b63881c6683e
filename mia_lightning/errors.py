"""The exception for a user's mistake, and suggestions of names."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST, CLOSEST = 1000, 3
"""Characters of a message, and names that it suggests."""


class MIAError(Exception):
    """A mistake that the user can correct: one sentence with the finding, the expectation and the fix.

    The command line prints it without a traceback and exits with code 2. Text from files is made safe to print:
    unprintable characters (line breaks, terminal escapes) are escaped, and the message is cut at 1,000 characters.
    """

    def __str__(self) -> str:
        text = super().__str__()
        shown = (
            text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:LONGEST])
        )
        return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


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
