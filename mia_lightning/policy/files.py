"""Files of a decision: a JSON record, JUnit XML and one line of Markdown for continuous integration."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as Xml

from mia_lightning.policy.decision import Decision
from mia_lightning.runtime.atomic import atomic_write

FILES = ("decision.json", "decision.xml", "decision.md")


def write_decision(decision: Decision, folder: Path) -> list[str]:
    """Write the files, each atomically; return their names.

    Raises:
        MIAError: the disk is full or the folder cannot be written.
    """
    texts = (
        json.dumps(decision.to_dict(), indent=2, allow_nan=False) + "\n",
        junit(decision),
        markdown(decision) + "\n",
    )
    for name, text in zip(FILES, texts, strict=True):
        with atomic_write(folder, name) as file:
            file.write(text)
    return list(FILES)


def junit(decision: Decision) -> str:
    """Return JUnit XML: a failed criterion is a failure, an inconclusive one an error."""
    counts = {name: sum(result.outcome == name for result in decision.results) for name in ("fail", "inconclusive")}
    attributes = {
        "name": _legal(f"privacy policy {decision.policy.title}".strip()),
        "tests": str(len(decision.results)),
        "failures": str(counts["fail"]),
        "errors": str(counts["inconclusive"]),
    }
    suite = Xml.Element("testsuite", attributes)
    for result in decision.results:
        case = Xml.SubElement(
            suite, "testcase", classname=_legal(result.attack or "audit"), name=_legal(result.criterion)
        )
        if result.outcome != "pass":
            tag = "failure" if result.outcome == "fail" else "error"
            Xml.SubElement(case, tag, message=_legal(result.sentence))
        else:
            Xml.SubElement(case, "system-out").text = _legal(result.sentence)
    return Xml.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(decision: Decision) -> str:
    """Return the outcome as one line of Markdown without markup from names."""
    text = re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", decision.line)
    return f"**{decision.outcome.upper()}** {text}"


def lines(decision: Decision) -> Iterable[str]:
    """Yield the lines of the terminal: one per criterion, then the outcome."""
    for result in decision.results:
        attack = f"{result.attack}: " if result.attack else ""
        yield f"policy {result.outcome}: {attack}{result.criterion}: {result.sentence}"
    yield f"policy: {decision.line}"


def _legal(text: str) -> str:
    """Return a text without characters that XML 1.0 forbids."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
