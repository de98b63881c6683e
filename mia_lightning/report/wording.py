"""Numbers in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_lightning.metrics.roc import OperatingPoint

if TYPE_CHECKING:
    from mia_lightning.report.contents import Report


def percent(value: float) -> str:
    """Return a rate as a percentage: one decimal from 10% on, two from 1% on, below two digits, below 5e-6 zero."""
    share = 100 * value
    if share >= 9.95:
        return f"{share:.1f}%"
    if share >= 0.995:
        return f"{share:.2f}%"
    return f"{share:.2g}%" if share >= 5e-4 else "0%"


def between(low: float, high: float) -> str:
    """Return a 95% interval of a rate in brackets."""
    return f"[{percent(low).removesuffix('%')}–{percent(high)}]"


def decimals(value: float, low: float, high: float) -> str:
    """Return a figure with its 95% interval, three decimals."""
    return f"{value:.3f} [{low:.3f}–{high:.3f}]"


def rate_name(fpr: float) -> str:
    """Return a rate as a percentage without rounding."""
    return f"{100 * fpr:g}%"


def tpr_name(fpr: float | str) -> str:
    """Return the name of the TPR at a false-positive rate."""
    return f"TPR at {100 * float(fpr):g}% FPR"


def figure_name(figure: str) -> str:
    """Return the name of a compared figure, "auc" or "tpr@0.01"."""
    return "AUC" if figure == "auc" else tpr_name(figure.removeprefix("tpr@"))


def non_members(count: int) -> str:
    """Return a number of non-members with its verb."""
    return f"{count:,} non-members are" if count != 1 else "1 non-member is"


def p_value(value: float) -> str:
    """Return a p- or q-value, cut off below 1e-10, where normal approximations have no meaning."""
    return "< 1e-10" if value < 1e-10 else f"{value:.2g}"


def seconds(value: float) -> str:
    """Return a duration."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def resolved(point: OperatingPoint) -> bool:
    """Whether the non-members suffice for this rate; a rate of 0, the TPR at no false positive, always is shown."""
    return point.resolvable or point.fpr == 0


def fraction_sentence(report: Report) -> str:
    """Return the fraction of an unlabeled set that was in training and its precision, empty without such a set."""
    fraction = report.assessment.fraction
    if fraction is None:
        return ""
    sentence = (
        f"In training: {percent(fraction.value)} {between(fraction.low, fraction.high)} of the {fraction.records:,} "
        f"unlabeled records, by the scores of “{fraction.attack}”."
    )
    if not fraction.fits:
        p = p_value(fraction.fit_p_value)
        return f"{sentence} Not to be relied on: these scores are not a mixture of the known ones (p {p})."
    points = [point for point in report.assessment.attacks[fraction.attack].points if point.resolvable]
    rates = [(rate_name(point.fpr), *map(percent, fraction.precision(point))) for point in points]
    shares = ", ".join(f"{value} at {rate} FPR (at least {low})" for rate, value, low in rates)
    return f"{sentence} Precision at that share of members: {shares}." if rates else sentence
