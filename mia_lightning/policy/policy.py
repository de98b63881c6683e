"""Policies: criteria with margins, read from plain values and checked before any work.

title: Release gate
attacks: [fusion]              # have to be run; the criteria hold for each (default: every attack)
access: [logits, references]   # attacker's access that the audit has to include (default: any)
minimum_members: 1000
minimum_non_members: 1000
criteria:
- {figure: tpr, fpr: 0.01, max: 0.05}
- {figure: epsilon, max: 4}
- {figure: worst_class, fpr: 0.05, max: 0.25}
- {figure: generalization_gap, max: 0.1}
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mia_lightning.errors import MIAError, printable, suggest

FIGURES = {
    "tpr": (0.0, 1.0),
    "auc": (0.5, 1.0),
    "epsilon": (0.0, 64.0),
    "worst_class": (0.0, 1.0),
    "worst_group": (0.0, 1.0),
    "generalization_gap": (0.0, 1.0),
}
"""Figures of criteria, and the open range of their margins: outside, a criterion always or never holds."""

AT_A_RATE = ("tpr", "worst_class", "worst_group")
"""Figures that are TPRs at a false-positive rate."""

ACCESS = ("logits", "features", "gradients", "references", "known_members")
"""Levels of an attacker's access and knowledge."""

MOST = 100
"""Most criteria and most required attacks."""

FIXES = {
    "logits": "query the target",
    "features": "configure an attack that reads a signal of features",
    "gradients": "give --extraction.gradients true and an attack that reads a signal of gradients",
    "references": "give --references.count",
    "known_members": "configure an attack that is fitted, such as LightGBM",
}

POLICY_KEYS = ("title", "attacks", "access", "minimum_members", "minimum_non_members", "criteria")


@dataclass(frozen=True)
class Criterion:
    """Upper limit of one figure."""

    figure: str
    """One of `FIGURES`."""

    max: float
    """Margin: passed where the figure's interval lies below, failed where it lies above."""

    fpr: float | None = None
    """False-positive rate of a TPR, in (0, 1); None for other figures."""

    @property
    def name(self) -> str:
        """The figure and its margin in words."""
        words = {
            "tpr": "TPR",
            "auc": "AUC",
            "worst_class": "TPR of every class",
            "worst_group": "TPR of every group",
            "generalization_gap": "generalization gap",
        }
        rate = "" if self.fpr is None else f" at FPR {100 * self.fpr:g}%"
        limit = f"{100 * self.max:g}%" if self.figure in AT_A_RATE else f"{self.max:g}"
        return f"{words.get(self.figure, self.figure)}{rate} below {limit}"


@dataclass(frozen=True)
class Policy:
    """Decision rule of an audit."""

    criteria: tuple[Criterion, ...]
    title: str = ""
    attacks: tuple[str, ...] = ()
    """Attacks that have to be run, for each of which the criteria hold; empty = every attack of the audit."""

    access: tuple[str, ...] = ()
    """Of `ACCESS`: what the audit's attacker has to have."""

    minimum_members: int = 0
    minimum_non_members: int = 0

    def check_attacks(self, names: Collection[str]) -> None:
        """Check that the required attacks are run.

        Raises:
            MIAError: one is not.
        """
        for name in self.attacks:
            if name not in names:
                shown, hint = printable(name, 40), suggest(name, names, see="")
                raise MIAError(f"the policy requires attack {shown!r}, which is not run; {hint}")

    def check_access(self, levels: Collection[str]) -> None:
        """Check that the audit includes the required access.

        Raises:
            MIAError: it does not.
        """
        for level in self.access:
            if level not in levels:
                raise MIAError(
                    f"the policy requires access {level!r}, which no attack of this audit has (it has "
                    f"{', '.join(levels) or 'none'}); {FIXES[level]}"
                )


def parse_policy(values: Mapping[str, Any], source: str) -> Policy:
    """Return the policy of plain nested values, as a YAML file holds them.

    Args:
        values: See the module's example.
        source: The file's name, for messages.

    Raises:
        MIAError: an unknown key, a value of the wrong type, or a margin that always or never holds.
    """
    _check_keys(values, POLICY_KEYS, source)
    if not isinstance(values.get("title", ""), str):
        raise MIAError(f"{source}: title must be text")
    criteria = _list(values, "criteria", source)
    if not criteria:
        raise MIAError(f"{source}: has no criteria; give at least one, such as - {{figure: tpr, fpr: 0.01, max: 0.05}}")
    parsed = tuple(_criterion(item, f"{source}: criterion {number}") for number, item in enumerate(criteria, 1))
    measured = [(criterion.figure, criterion.fpr) for criterion in parsed]
    if repeated := [name for name in measured if measured.count(name) > 1]:
        raise MIAError(f"{source}: two criteria limit the same figure, {repeated[0][0]}; leave one out")
    access = _names(values, "access", source)
    for level in access:
        if level not in ACCESS:
            raise MIAError(f"{source}: access {printable(level, 40)!r} is unknown; {suggest(level, ACCESS, see='')}")
    return Policy(
        criteria=parsed,
        title=printable(values.get("title", ""), 200),
        attacks=_names(values, "attacks", source),
        access=access,
        minimum_members=_count(values, "minimum_members", source),
        minimum_non_members=_count(values, "minimum_non_members", source),
    )


def _criterion(item: Any, where: str) -> Criterion:
    if not isinstance(item, Mapping):
        raise MIAError(f"{where} is not a mapping; expected one such as {{figure: tpr, fpr: 0.01, max: 0.05}}")
    _check_keys(item, ("figure", "fpr", "max"), where)
    figure = item.get("figure")
    if not isinstance(figure, str) or figure not in FIGURES:
        raise MIAError(f"{where}: figure {printable(figure, 40)!r} is unknown; {suggest(str(figure), FIGURES, see='')}")
    fpr = None
    if figure in AT_A_RATE:
        fpr = _number(item, "fpr", where)
        if not 0 < fpr < 1:
            raise MIAError(f"{where}: fpr must lie between 0 and 1, got {fpr:g}")
    elif "fpr" in item:
        raise MIAError(f"{where}: {figure} has no fpr; leave it out")
    margin, (low, high) = _number(item, "max", where), FIGURES[figure]
    if not low < margin < high:
        raise MIAError(f"{where}: max of {figure} must lie between {low:g} and {high:g}, got {margin:g}")
    if fpr is not None and margin <= fpr:
        raise MIAError(
            f"{where}: max {margin:g} is never met at fpr {fpr:g}, since guessing reaches {fpr:g}; raise max"
        )
    return Criterion(figure, margin, fpr)


def _check_keys(values: Mapping[str, Any], legal: Collection[str], source: str) -> None:
    for key in values:
        if key not in legal:
            raise MIAError(f"{source}: unknown key {printable(key, 40)!r}; {suggest(str(key), legal, see='')}")


def _list(values: Mapping[str, Any], key: str, source: str) -> list[Any]:
    given = values.get(key) or []
    if not isinstance(given, list) or len(given) > MOST:
        raise MIAError(f"{source}: {key} must be a list of at most {MOST} entries")
    return given


def _names(values: Mapping[str, Any], key: str, source: str) -> tuple[str, ...]:
    given = _list(values, key, source)
    if not all(isinstance(name, str) for name in given) or len(set(given)) < len(given):
        raise MIAError(f"{source}: {key} must be a list of different names, such as [a, b]")
    return tuple(given)


def _number(values: Mapping[str, Any], key: str, where: str) -> float:
    given = values.get(key)
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise MIAError(f"{where}: {key} must be a number such as 0.05, got {printable(repr(given), 40)}")
    return float(given)


def _count(values: Mapping[str, Any], key: str, source: str) -> int:
    given = values.get(key, 0)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**31:
        raise MIAError(f"{source}: {key} must be a whole number from 0, got {printable(repr(given), 40)}")
    return given
