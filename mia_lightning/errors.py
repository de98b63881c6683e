"""The one exception that stands for a user's mistake."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 1000


class MIAError(Exception):
    """A mistake the user can mend: one sentence that names what was found, what was expected and the fix.

    The command line prints it without a traceback and exits with code 2. What a file brings into the sentence can
    neither break it into lines, steer the terminal, nor flood it: such characters are escaped, and it ends at 1,000.
    """

    def __str__(self) -> str:
        text = super().__str__()
        shown = (
            text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:LONGEST])
        )
        return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def suggest(given: str, legal: Iterable[str]) -> str:
    """Return the end of an error sentence: the closest legal name, if one is close, and all legal names."""
    names = sorted(legal)
    close = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}legal names: {', '.join(names)}"
