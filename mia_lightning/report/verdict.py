"""The verdict in plain words, by stated rules."""

from dataclasses import dataclass
from typing import Literal

from mia_lightning.evaluation.assessment import Assessment, Difference
from mia_lightning.metrics.roc import Evaluation, OperatingPoint
from mia_lightning.report.contents import Report
from mia_lightning.report.wording import between, one_in, percent, rate_name

Level = Literal["exposed", "weak", "not found", "confounded", "unreliable"]

HEADINGS: dict[Level, str] = {
    "exposed": "Members can be recognized",
    "weak": "Membership shows on average, but not at few false alarms",
    "not found": "This attack recognizes no members",
    "confounded": "Members can be told without the model",
    "unreliable": "These figures are not to be relied on",
}

RULES = (
    "The headline attack is named without regard to its figures. It is judged at a false-alarm rate of 1%, or at the "
    "lowest one above that the number of non-members resolves. Not to be relied on: a test with memberships dealt out "
    "by lot warns. Told without the model: the blind baseline warns and the attack adds nothing to it for certain, "
    "neither at that rate nor in AUC. Recognized: the 95% interval of the true-positive rate lies above the "
    "false-alarm rate. On average only: that interval does not, but the AUC's lies above 0.5. None: neither does."
)


@dataclass(frozen=True)
class Verdict:
    """What a reader should take away."""

    level: Level
    heading: str
    sentences: tuple[str, ...]


def verdict(report: Report) -> Verdict:
    """Return the verdict of a report; the rules are `RULES`."""
    assessment, found = report.assessment, report.assessment.attacks[report.headline]
    point = deciding_point(found)
    warned = {guard.name for guard in assessment.guards if guard.status == "warn"}
    gains = [gain for gain in assessment.increments if gain.first == report.headline]
    gains = [gain for gain in gains if gain.figure in ("auc", f"tpr@{point.fpr:g}")]
    level = _level(found, point, warned, gains)
    sentences = [
        _recognizes(report, found, point),
        *_rarer(found, point),
        _on_average(found),
        _precision(point),
        *_silence(found, point, level),
        *_doubts(assessment, warned, gains),
        _choice(report, point),
    ]
    return Verdict(level, HEADINGS[level], tuple(sentences))


def deciding_point(found: Evaluation) -> OperatingPoint:
    """Return the operating point at an FPR of 1%, or at the lowest resolved one above it, or the highest there is."""
    enough = [point for point in found.points if point.fpr >= 0.01 and point.resolvable]
    return min(enough, key=lambda point: point.fpr) if enough else max(found.points, key=lambda point: point.fpr)


def _level(found: Evaluation, point: OperatingPoint, warned: set[str], gains: list[Difference]) -> Level:
    if any(name.startswith("permuted labels") for name in warned):
        return "unreliable"
    if "blind baseline" in warned and not any(gain.low > 0 for gain in gains):
        return "confounded"
    if point.low > point.fpr:
        return "exposed"
    return "weak" if found.auc_low > 0.5 else "not found"


def _recognizes(report: Report, found: Evaluation, point: OperatingPoint) -> str:
    return (
        f"At a false-alarm rate of {one_in(point.fpr)}, the attack “{report.headline}” recognizes {percent(point.tpr)} "
        f"{between(point.low, point.high)} of the {found.n_members:,} members; a guess would name "
        f"{rate_name(point.fpr)} of them."
    )


def _rarer(found: Evaluation, decided: OperatingPoint) -> list[str]:
    rarer = [point for point in found.points if 0 < point.fpr < decided.fpr]
    if not rarer:
        return []
    point = max(rarer, key=lambda point: point.fpr)
    if not point.resolvable:
        return [f"A rate of {one_in(point.fpr)} cannot be resolved with {found.n_non_members:,} non-members."]
    return [f"At {one_in(point.fpr)} it still recognizes {percent(point.tpr)} {between(point.low, point.high)}."]


def _on_average(found: Evaluation) -> str:
    return (
        f"Shown one member and one non-member, it puts the member first in {percent(found.auc)} "
        f"{between(found.auc_low, found.auc_high)} of cases (a guess: 50%)."
    )


def _precision(point: OperatingPoint) -> str:
    value, low = point.precision[1], point.precision_low[1]
    if value is None:
        return "It names no record at that rate."
    if point.false_positives == 0:
        return f"If one record in ten were a member, at least {percent(low)} of the records it names would be."
    return (
        f"If one record in ten were a member, {percent(value)} of the records it names there would be (at least "
        f"{percent(low)} with confidence)."
    )


def _silence(found: Evaluation, point: OperatingPoint, level: Level) -> list[str]:
    if level == "not found":
        return [
            f"That is no proof of privacy: a true rate of up to {percent(point.high)} would look like this, and a "
            "stronger attack may find more."
        ]
    missed = 1 - point.tpr
    return [f"The other {percent(missed)} of the members it does not tell from non-members at that rate."]


def _doubts(assessment: Assessment, warned: set[str], gains: list[Difference]) -> list[str]:
    said = []
    for guard in assessment.guards:
        if guard.name in warned and guard.name.startswith("permuted labels"):
            said.append(guard.sentence)
    if "blind baseline" in warned:
        added = " and ".join(_points(gain) for gain in gains)
        said.append(
            "Caution: members and non-members differ without the model. Only what the attack adds to that says "
            f"anything of the model: {added or 'it could not be measured'}."
        )
    if "preprocessing parity" in warned:
        said.append("Caution: the pixels of members and non-members differ; see the guards.")
    if "generalization gap" in warned:
        said.append("Caution: the model is better on non-members; the memberships may be swapped.")
    return said


def _points(gain: Difference) -> str:
    value, low, high = (100 * number for number in (gain.value, gain.low, gain.high))
    return f"{value:+.1f} points of {_figure(gain.figure)} ({low:+.1f} to {high:+.1f})"


def _figure(name: str) -> str:
    return "AUC" if name == "auc" else f"TPR at FPR {100 * float(name.removeprefix('tpr@')):g}%"


def _choice(report: Report, point: OperatingPoint) -> str:
    attacks = report.assessment.attacks
    if len(attacks) == 1:
        return "One attack was run; another may find more."
    highest = max(attacks, key=lambda name: attacks[name].at(point.fpr).tpr)
    also = ""
    if highest != report.headline:
        found = attacks[highest].at(point.fpr)
        also = f" The highest of the {len(attacks)} is {percent(found.tpr)} by “{highest}”, picked after the fact."
    return f"{len(attacks)} attacks were run; the verdict is about “{report.headline}”, {report.headline_reason}.{also}"
