"""Verdict in plain words, by stated rules."""

from collections.abc import Mapping
from dataclasses import dataclass

from mia_lightning.evaluation.assessment import Difference
from mia_lightning.evaluation.blind_baseline import BLIND
from mia_lightning.evaluation.column_audit import AUDIT
from mia_lightning.evaluation.permutation import INTERVALS, REFITTED
from mia_lightning.evaluation.sanity_checks import GAP, PIXELS
from mia_lightning.metrics.roc import PRIORS, Evaluation
from mia_lightning.report.contents import Report
from mia_lightning.report.evidence import Evidence, deciding_point, evidence
from mia_lightning.report.levels import (
    FEWEST,
    GAP_AT_MOST,
    HEADINGS,
    WIDEST,
    Level,
    accuracy_gap,
    all_constant,
    decide,
    enough_records,
    gains,
    references_failed,
    warns,
)
from mia_lightning.report.wording import between, decimals, figure_name, non_members, p_value, percent, rate_name


@dataclass(frozen=True)
class Verdict:
    """Conclusion of a report."""

    level: Level
    heading: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        """Return heading and sentences, one a line."""
        return "\n- ".join((f"{self.heading}.", *self.sentences))


def verdict(report: Report) -> Verdict:
    """Return the verdict of a report; the rules are `levels.RULES`."""
    evaluations = report.decisive
    tested = evidence(evaluations)
    level, deciding = decide(report, evaluations, tested)
    headline = evaluations[report.headline]
    sentences = [
        *_warnings(report, level),
        *_reasons(report, level, evaluations, tested, deciding),
        *_rate(report, headline),
        *_rarer(headline),
        _average(headline),
        *_perfect(headline),
        *_precision(headline),
        *_caution(level, headline),
        *_doubts(report, level, deciding),
        _coverage(report, evaluations, deciding, level),
    ]
    return Verdict(level, _heading(report, level, evaluations), tuple(sentences))


def _heading(report: Report, level: Level, evaluations: Mapping[str, Evaluation]) -> str:
    """Return the level's heading; equal scores are no sign of membership."""
    signs = accuracy_gap(report) > GAP_AT_MOST or references_failed(report)
    if level == "inconclusive" and all_constant(evaluations) and not signs:
        return "No verdict: all records have the same score"
    return HEADINGS[level]


def _p(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _warnings(report: Report, level: Level) -> list[str]:
    """Return what stands above everything else."""
    if report.run is None:
        return []
    sentences = []
    if report.run.reading is not None and report.run.reading.status != "pass":
        sentences.append(report.run.reading.sentence)
    failed = [check.detail for check in report.run.fidelity if check.status == "failed"]
    if references_failed(report):
        sentences.append(f"The reference models failed: {'; '.join(failed)}")
    return sentences


def _reasons(
    report: Report,
    level: Level,
    evaluations: Mapping[str, Evaluation],
    tested: Mapping[str, Evidence],
    deciding: Evidence,
) -> list[str]:
    """Return the sentences that are about this level only."""
    if level == "too few":
        return [_needed(evaluations)]
    if level == "unreliable":
        checks = [check for check in report.assessment.checks if check.status == "warn"]
        return [check.sentence for check in checks if check.name in (INTERVALS, REFITTED, AUDIT)]
    if level == "reversed":
        turned = report.assessment.turned.get(deciding.attack)
        if turned is None:
            return ["Negate the scores, or set the direction of the attack."]
        point = deciding_point(turned)
        return [
            f"The AUC of “{deciding.attack}” is significantly below 0.5 (p {_p(deciding.p_reversed)}); lower scores "
            "mean members, as for a loss. Negated, they have AUC "
            f"{decimals(turned.auc, turned.auc_low, turned.auc_high)} and TPR {percent(point.tpr)} "
            f"{between(point.low, point.high)} at {rate_name(point.fpr)} FPR. Negate the scores and evaluate again."
        ]
    if level == "inconclusive":
        return _signs(report, evaluations, [attack for attack in tested.values() if attack.suspicious])
    return []


def _needed(evaluations: Mapping[str, Evaluation]) -> str:
    widest = max(evaluations.values(), key=lambda evaluation: evaluation.auc_high)
    members, non_members = widest.n_members, widest.n_non_members
    needed = enough_records(widest, len(evaluations))
    enough = (
        f"about {needed[0]:,} and {needed[1]:,} would exclude an AUC above {WIDEST:g} in nine of ten audits if there "
        "is no effect"
    )
    if min(members, non_members) < FEWEST:
        return (
            f"Members: {members:,}, non-members: {non_members:,}. A verdict needs at least {FEWEST} of each; {enough}, "
            "and 1,000 non-members estimate an FPR of 1% from ten false positives."
        )
    return (
        f"No attack succeeds, but an AUC of up to {widest.auc_high:.2f} is not excluded by {members:,} members and "
        f"{non_members:,} non-members; {enough}."
    )


def _signs(report: Report, evaluations: Mapping[str, Evaluation], suspicious: list[Evidence]) -> list[str]:
    sentences = []
    for attack in suspicious:
        evaluation = evaluations[attack.attack]
        sentences.append(
            f"An interval of “{attack.attack}” excludes chance (AUC "
            f"{decimals(evaluation.auc, evaluation.auc_low, evaluation.auc_high)}, TPR {percent(attack.point.tpr)} "
            f"{between(attack.point.low, attack.point.high)} at "
            f"{rate_name(attack.point.fpr)} FPR), though "
            + (f"not after correction for {len(evaluations)} attacks." if len(evaluations) > 1 else "just barely.")
        )
    if accuracy_gap(report) > GAP_AT_MOST:
        check = report.assessment.check(GAP)
        assert check is not None
        sentences.append(
            f"{check.sentence} A model that is more accurate on its training records treats them differently; a better "
            "attack should find them."
        )
    if all_constant(evaluations):
        sentences.append("All records have the same score; nothing can be ranked by it.")
    return sentences


def _rate(report: Report, evaluation: Evaluation) -> list[str]:
    point = deciding_point(evaluation)
    held_out = "held-out " if report.on_held_out else ""
    if not point.resolvable:
        return []
    return [
        f"At {rate_name(point.fpr)} FPR the attack “{report.headline}” identifies {percent(point.tpr)} "
        f"{between(point.low, point.high)} of the {evaluation.n_members:,} {held_out}members; random guessing: "
        f"{rate_name(point.fpr)}."
    ]


def _rarer(evaluation: Evaluation) -> list[str]:
    rarer = [point for point in evaluation.points if 0 < point.fpr < deciding_point(evaluation).fpr]
    if not rarer:
        return []
    point = max(rarer, key=lambda point: point.fpr)
    if not point.resolvable:
        return [f"{non_members(evaluation.n_non_members)} too few to estimate an FPR of {rate_name(point.fpr)}."]
    return [f"At {rate_name(point.fpr)} FPR it identifies {percent(point.tpr)} {between(point.low, point.high)}."]


def _average(evaluation: Evaluation) -> str:
    return (
        f"It ranks a random member above a random non-member {percent(evaluation.auc)} of the time (AUC "
        f"{evaluation.auc:.3f} [{evaluation.auc_low:.3f}–{evaluation.auc_high:.3f}]; chance 50%)."
    )


def _perfect(evaluation: Evaluation) -> list[str]:
    if evaluation.auc < 1:
        return []
    return ["Every member scores above every non-member; check that the scores were not made with the memberships."]


def _precision(evaluation: Evaluation) -> list[str]:
    """Return the effect size: which share of the records it names are members, at three priors."""
    point = deciding_point(evaluation)
    if not point.resolvable:
        return []
    if any(value is None for value in point.precision):
        return ["It identifies no record at that rate."]
    values = list(zip(PRIORS, point.precision, point.precision_low, strict=True))
    priors = ", ".join(rate_name(prior) for prior in PRIORS)
    shown = ", ".join(percent(low if point.false_positives == 0 else value or 0.0) for _, value, low in values)
    least = "at least " if point.false_positives == 0 else ""
    return [f"If {priors} of all records were members, {least}{shown} of the records it identifies would be members."]


def _caution(level: Level, evaluation: Evaluation) -> list[str]:
    if level not in ("not found", "inconclusive"):
        return []
    point = deciding_point(evaluation)
    return [
        f"This does not prove privacy: a true TPR of up to {percent(point.high)} would look the same, and a stronger "
        "attack may find more."
    ]


def _doubts(report: Report, level: Level, deciding: Evidence) -> list[str]:
    sentences = []
    if warns(report, BLIND):
        added = " and ".join(_points(gain) for gain in gains(report, deciding))
        sentences.append(
            f"Caution: members and non-members differ without the model. “{deciding.attack}” adds to the blind "
            f"baseline: {added or 'not measured'}."
        )
    if warns(report, PIXELS):
        sentences.append("Caution: the pixels of members and non-members differ; see the sanity checks.")
    if warns(report, GAP):
        sentences.append("Caution: the model is more accurate on non-members; the memberships may be swapped.")
    if warns(report, AUDIT) and level != "unreliable":
        sentences.append("Caution: columns that do not come from the target carry membership; see the sanity checks.")
    return sentences


def _points(gain: Difference) -> str:
    value, low, high = (100 * number for number in (gain.value, gain.low, gain.high))
    return f"{value:+.1f} points of {figure_name(gain.figure)} [{low:+.1f} to {high:+.1f}]"


def _coverage(report: Report, evaluations: Mapping[str, Evaluation], deciding: Evidence, level: Level) -> str:
    """Return which attacks the verdict is about, and on which records."""
    searched = ""
    if report.run is not None and report.run.searched is not None:
        search = report.run.searched
        searched = (
            f" The configuration was selected from {search.trials:,} trials by {search.metric} on "
            f"{search.seen_records:,} records"
        )
        if report.on_held_out:
            searched += "; the figures above are of held-out records."
        else:
            searched += ", which the figures above are of: they are optimistic. Give --evaluation.holdout a share."
    if len(evaluations) == 1:
        return f"One attack was run; another may find more.{searched}"
    also = ""
    if deciding.attack != report.headline and level in ("exposed", "slight", "weak", "reversed", "inconclusive"):
        adjusted = {"weak": deciding.p_auc, "reversed": deciding.p_reversed}.get(level, deciding.p_tpr)
        point = deciding.point
        also = (
            f" It is decided by “{deciding.attack}”: TPR {percent(point.tpr)} {between(point.low, point.high)} at "
            f"{rate_name(point.fpr)} FPR, AUC {evaluations[deciding.attack].auc:.3f}, p {_p(adjusted)} after "
            f"correction for {len(evaluations)} attacks."
        )
    return (
        f"{len(evaluations)} attacks were run and the verdict covers all of them; the figures above are of "
        f"“{report.headline}”, {report.headline_reason}.{also}{searched}"
    )
