"""Levels of the verdict and the rules that decide them."""

from collections.abc import Mapping
from math import ceil
from typing import Literal

from mia_lightning.evaluation.assessment import Difference
from mia_lightning.evaluation.blind_baseline import BLIND
from mia_lightning.evaluation.column_audit import AUDIT, CARRIERS
from mia_lightning.evaluation.permutation import INTERVALS, REFITTED
from mia_lightning.evaluation.sanity_checks import GAP
from mia_lightning.metrics.roc import Evaluation
from mia_lightning.report.contents import Report
from mia_lightning.report.evidence import LIFT, Evidence

Level = Literal[
    "no reading",
    "too few",
    "unreliable",
    "confounded",
    "exposed",
    "slight",
    "weak",
    "reversed",
    "at chance",
    "inconclusive",
    "not found",
]

HEADINGS: dict[Level, str] = {
    "no reading": "No verdict: the model is probably not queried as it was trained",
    "too few": "Too few records for a verdict",
    "unreliable": "These results are unreliable",
    "confounded": "Members differ from non-members even without the model",
    "exposed": "Members can be recognized",
    "slight": "Membership has a small but measurable effect at low false-positive rates",
    "weak": "The attack beats chance on average, but not at low false-positive rates",
    "reversed": "The scores point the other way: members have lower scores",
    "at chance": "No verdict: the model predicts no better than chance, even its training records",
    "inconclusive": "No attack found membership, but there are signs of it",
    "not found": "The attack found no evidence of membership",
}

FEWEST = 20
"""Members, and non-members, below which there is no verdict."""

WIDEST = 0.6
"""Highest upper end of an AUC's interval at which an attack without success counts as evidence of absence."""

MISSED = 0.1
"""Share of audits, where there is no effect, in which `enough_records` do not exclude an AUC above `WIDEST`."""

GAP_AT_MOST = 0.05
"""Accuracy gap, at the low end of its interval, above which "no evidence" is not the verdict."""

RULES = (
    "The verdict covers all attacks that were run: p-values are multiplied by their number, and an attack counts where "
    "its 95% interval excludes chance and its p-value stays at or below 2.5%. It is decided at an FPR of 1%, or at the "
    "lowest rate above it that the number of non-members resolves. In this order: No verdict: another reading of the "
    "model's input is more accurate. Too few records: fewer than 20 members or 20 non-members, or no attack succeeds "
    "and an AUC above 0.6 is not excluded. Unreliable: a permutation test fails, or columns that do not come from the "
    "target carry membership. Differ without the model: the blind baseline warns, and no attack adds to it (for none "
    "does the interval of baseline and attack together minus baseline lie above 0 with a p-value of at most 5% after "
    "Holm's correction for all attacks and figures). Recognized: the TPR is above the FPR, and at least twice as large "
    "at the low end of its interval; small effect: above, but less. Beats chance on average: only the AUC is above "
    "0.5. Other way: the AUC is below 0.5. No better than chance: the model's accuracy on members is near chance under "
    "every reading. Signs: an interval excludes chance before correction for the number of attacks, or the accuracy "
    "gap exceeds 5 points at the low end of its interval, or the reference models failed, or all scores are equal. No "
    "evidence: none of these."
)


def decide(
    report: Report, evaluations: Mapping[str, Evaluation], tested: Mapping[str, Evidence]
) -> tuple[Level, Evidence]:
    """Return the level and the attack that decides it."""
    first = evaluations[report.headline]
    ranked = sorted(tested.values(), key=lambda attack: (attack.attack != report.headline, attack.p_tpr, attack.p_auc))
    headline = tested[report.headline]
    if _reading(report) == "warn":
        return "no reading", headline
    if min(first.n_members, first.n_non_members) < FEWEST:
        return "too few", headline
    if _unreliable(report):
        return "unreliable", headline
    succeeded = [attack for attack in ranked if attack.at_low_rates or attack.on_average or attack.reversed]
    if warns(report, BLIND):
        added = [attack for attack in succeeded if any(map(adds, gains(report, attack)))]
        if not added:
            return "confounded", headline
        succeeded = added
    return _of_success(report, succeeded) or _without_success(report, evaluations, tested)


def _of_success(report: Report, succeeded: list[Evidence]) -> tuple[Level, Evidence] | None:
    steps: tuple[tuple[Level, list[Evidence]], ...] = (
        ("exposed", [attack for attack in succeeded if attack.at_low_rates and attack.lift >= LIFT]),
        ("slight", [attack for attack in succeeded if attack.at_low_rates]),
        ("weak", [attack for attack in succeeded if attack.on_average]),
        ("reversed", [attack for attack in succeeded if attack.reversed]),
    )
    return next(((level, attacks[0]) for level, attacks in steps if attacks), None)


def _without_success(
    report: Report, evaluations: Mapping[str, Evaluation], tested: Mapping[str, Evidence]
) -> tuple[Level, Evidence]:
    headline = tested[report.headline]
    if _reading(report) == "chance":
        return "at chance", headline
    suspicious = [attack for attack in tested.values() if attack.suspicious]
    if suspicious:
        return "inconclusive", min(suspicious, key=lambda attack: (attack.p_tpr, attack.p_auc))
    if accuracy_gap(report) > GAP_AT_MOST or references_failed(report) or all_constant(evaluations):
        return "inconclusive", headline
    if max(evaluation.auc_high for evaluation in evaluations.values()) > WIDEST:
        return "too few", headline
    return "not found", headline


def _reading(report: Report) -> str:
    """Return the status of the check of the target's inputs."""
    return report.run.reading.status if report.run is not None and report.run.reading is not None else "pass"


def _unreliable(report: Report) -> bool:
    audit = report.assessment.check(AUDIT)
    carriers = audit is not None and audit.status == "warn" and int(audit.details.get(CARRIERS, 0)) > 0
    return warns(report, INTERVALS) or warns(report, REFITTED) or (carriers and not warns(report, BLIND))


def warns(report: Report, name: str) -> bool:
    """Whether the sanity check of that name warns."""
    check = report.assessment.check(name)
    return check is not None and check.status == "warn"


def accuracy_gap(report: Report) -> float:
    """Return the low end of the accuracy gap, 0 where it is not known."""
    check = report.assessment.check(GAP)
    return 0.0 if check is None else float(check.details.get("gap_low", 0.0))


def references_failed(report: Report) -> bool:
    """Whether a check of the reference models failed."""
    run = report.run
    return run is not None and any(check.status == "failed" for check in run.fidelity)


def all_constant(evaluations: Mapping[str, Evaluation]) -> bool:
    """Whether every attack gives all records the same score."""
    return all(evaluation.distinct == 1 for evaluation in evaluations.values())


def adds(gain: Difference) -> bool:
    """Whether an attack adds significantly to the blind baseline, corrected for all attacks and figures."""
    return gain.low > 0 and gain.p_holm <= 0.05


def enough_records(evaluation: Evaluation, attacks: int) -> tuple[int, int]:
    """Return how many members and non-members would exclude an AUC above `WIDEST` where there is no effect.

    The upper ends of all attacks' intervals are then below it in nine of ten audits. The variance of an AUC without
    effect is (P + n + 1) / (12 P n), times the factor for groups and fit. The smaller class is enlarged alone where
    that suffices, otherwise both.
    """
    from scipy.special import ndtri  # slow to import

    error = (WIDEST - 0.5) / float(ndtri(0.975) - ndtri(MISSED / attacks))
    variance = 12 * error**2 / evaluation.variance_inflation
    fewer, more = sorted((evaluation.n_members, evaluation.n_non_members))
    both = ceil(1 / variance + ((1 / variance) ** 2 + 1 / variance) ** 0.5)  # (2 m + 1) / m^2 = variance
    if more > both:
        fewer = max(fewer, ceil((more + 1) / (more * variance - 1)))
    else:
        fewer = more = both
    return (fewer, more) if evaluation.n_members <= evaluation.n_non_members else (more, fewer)


def gains(report: Report, tested: Evidence) -> list[Difference]:
    """Return what an attack adds to the blind baseline in AUC and at its deciding point."""
    figures = ("auc", f"tpr@{tested.point.fpr:g}")
    return [gain for gain in report.assessment.increments if gain.first == tested.attack and gain.figure in figures]
