"""Methods of a run: a sentence and its paper for each attack, signal and score, and methods that were not run."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import getdoc
from typing import Any

SHAPE = re.compile(r",? \((?:\.\.\.|N)(?:, ?[A-Z]?)*\)|, without a float64 copy")
"""Shape of an array, which is of no use to a reader of the report."""


@dataclass(frozen=True)
class Method:
    """One attack, signal or score of a reference model."""

    name: str
    """Name in the configuration."""

    implementation: str
    """Class or function."""

    sentence: str
    """First sentence of its documentation, which names the paper."""

    seconds: float | None = None
    """Time of fitting and scoring; None where it was not measured."""


def method(name: str, implementation: Callable[..., Any] | type, seconds: float | None = None) -> Method:
    """Return the description of a method from its documentation."""
    title = getattr(implementation, "__name__", type(implementation).__name__)
    return Method(name, title, first_sentence(implementation), seconds)


def first_sentence(documented: object) -> str:
    """Return the first paragraph of a documentation on one line, up to its first period outside parentheses."""
    paragraph = " ".join((getdoc(documented) or "").split("\n\n")[0].split())
    match = re.match(r"(?:[^.()]|\([^()]*\)|\.(?! |$))*\.", paragraph)
    sentence = SHAPE.sub("", match[0] if match else paragraph).replace("`", "")
    return sentence.removeprefix("Return ").removeprefix("the ").rstrip(".").strip()


def not_run(used: set[type], candidates: Mapping[type, str]) -> tuple[tuple[str, str, str], ...]:
    """Return name, sentence and reason of each method that was not run, sorted by name.

    Args:
        used: Classes that were run.
        candidates: Class to the reason why it would not have been run.
    """
    rows = [(item.__name__, first_sentence(item), reason) for item, reason in candidates.items() if item not in used]
    return tuple(sorted(rows))
