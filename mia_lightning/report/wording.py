"""Numbers in words."""

from mia_lightning.metrics.roc import OperatingPoint


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
