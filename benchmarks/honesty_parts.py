"""Simulations of `honesty.py`, in the order of its table, and the rows that they yield."""

from collections.abc import Collection, Iterator
from math import sqrt
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    promise: str
    scenario: str
    measured: float
    standard_error: float
    low: float = 0.0
    """Least nominal value; with `high` 1 there is none, the row is one to compare with."""

    high: float = 1.0
    """Largest nominal value."""

    repetitions: int = 0
    stored: bool = False

    @property
    def mark(self) -> str:
        """Whether the row misses, and where it comes from."""
        marks = ["stored"] if self.stored else []
        return ", ".join([*marks, "**misses**"] if self.misses else marks)

    @property
    def misses(self) -> bool:
        """Whether the measured value is more than 2 standard errors from its nominal range."""
        return not self.low - 2 * self.standard_error <= self.measured <= self.high + 2 * self.standard_error


COVERED, COVERED_OR_WIDER = (0.93, 0.97, 0.95), (0.93, 1.0, 0.95)
"""Range and nominal rate of a 95% interval, and of one that may be conservative."""


def share(
    promise: str, scenario: str, hits: Collection[bool], low: float, high: float, nominal: float | None = None
) -> Row:
    """Return the row of a share of repetitions, its standard error at least that of the nominal rate (default high)."""
    rate, at = sum(map(bool, hits)) / len(hits), high if nominal is None else nominal
    return Row(promise, scenario, rate, sqrt(max(rate * (1 - rate), at * (1 - at)) / len(hits)), low, high)


class Part(NamedTuple):
    """Simulation whose rows are stored together."""

    name: str
    call: str
    """module:function; takes the arguments and `repetitions`, or, where `summary` is given, one `seed`."""

    arguments: dict[str, Any]
    repetitions: tuple[int, int, int]
    """With `--quick`, by default, with `--full`; none at 0."""

    seconds: float
    """CPU time of a repetition."""

    summary: str = ""
    """Function of the module that takes the samples of all seeds and the arguments, and returns rows."""


VERDICT_SIZES = ((20, 20), (20, 2000), (2000, 20), (10, 1000), (5, 5000), (500, 500), (1000, 100))
SUFFICIENT = ((20, 20, 1), (10, 1000, 1), (300, 25, 5))
SHIFTS = (0.0, 1.0, 3.0, 4.0, 5.5)
MATRICES = (("halves", 3), ("pairs", 3), ("halves", 15), ("pairs", 15), ("coins", 15), ("pairs", 63))
ALL = (0.5, 0.55, 0.65, 0.75)
CELLS: tuple[tuple[str, int, tuple[float, ...], tuple[int, int, int], float], ...] = (
    ("gaussian", 400, ALL, (20, 200, 2000), 0.03),
    ("gaussian", 2000, ALL, (0, 200, 2000), 0.04),
    ("gaussian", 20_000, ALL, (0, 100, 1000), 0.08),
    ("lightgbm", 400, ALL, (20, 200, 1000), 0.1),
    ("lightgbm", 2000, ALL, (0, 200, 1000), 0.2),
    ("lightgbm", 20_000, ALL, (0, 58, 400), 0.7),
    ("fusion", 400, ALL, (0, 100, 1000), 0.1),
    ("fusion", 2000, ALL, (0, 100, 1000), 0.16),
    ("forest", 400, ALL, (0, 30, 400), 0.65),
    ("forest", 2000, (0.5, 0.55, 0.75), (0, 20, 400), 1.6),
    ("mlp", 400, ALL, (0, 40, 400), 1.0),
    ("mlp", 2000, (0.55, 0.75), (0, 12, 200), 4.9),
)
"""Attack, records, AUC of the informative column, repetitions and CPU seconds of each."""


def parts() -> Iterator[Part]:
    """Yield all simulations."""
    verdicts, intervals, bounds, searches, matrices = (
        f"benchmarks.honesty_{name}" for name in ("verdicts", "intervals", "bounds", "search", "references")
    )
    for members, non_members in VERDICT_SIZES:
        sizes = {"members": members, "non_members": non_members}
        yield Part(f"verdict {members} + {non_members}", f"{verdicts}:verdicts", sizes, (200, 600, 4000), 0.007)
    yield Part("verdict of many attacks", f"{verdicts}:many_attacks", {}, (10, 60, 400), 0.1)
    for members, non_members, attacks in SUFFICIENT:
        sizes = {"members": members, "non_members": non_members, "attacks": attacks}
        yield Part(f"sufficient {members}", f"{verdicts}:sufficient_records", sizes, (50, 300, 2000), 0.01)
    yield Part("layout", f"{verdicts}:layout", {}, (1, 6, 40), 1.5)
    yield Part("blind baseline", f"{verdicts}:blind", {}, (8, 20, 200), 0.6)
    yield Part("column audit", f"{verdicts}:audit", {}, (20, 60, 400), 0.015)
    yield Part("leaderboard", f"{verdicts}:boards", {}, (5, 30, 200), 0.15)
    yield Part("claims", f"{verdicts}:claims", {}, (20, 100, 400), 0.03)
    yield Part("private claims", f"{verdicts}:private_claims", {}, (5, 40, 200), 0.25)
    for scenario in range(5):
        yield Part(f"epsilon {scenario}", f"{bounds}:above_truth", {"scenario": scenario}, (10, 80, 400), 0.07)
    yield Part("epsilon from counts", f"{bounds}:tightness", {}, (4, 12, 40), 0.12)
    for name, references in MATRICES:
        given = {"scenario": f"leave one out of {name}", "references": references, "records": 600}
        repetitions = {3: (2, 10, 100), 15: (0, 6, 60), 63: (0, 2, 20)}[references]
        heads = {"heads": references == 15}
        seconds = {3: 0.6, 15: 2.8, 63: 4.0}[references]
        yield Part(f"no label {name} {references}", f"{matrices}:rows", given | heads, repetitions, seconds)
    for references in (4, 8):
        call = f"{matrices}:power"
        yield Part(f"power {references}", call, {"references": references}, (0, 0, 10), 4.0)
    yield Part("groups", f"{intervals}:groups", {}, (10, 100, 400), 0.1)
    for classes in (100, 44, 20):
        strata = {"classes": classes, "records": 4000}
        yield Part(f"strata of {classes} classes", f"{intervals}:class_strata", strata, (2, 12, 60), 0.25)
    search = {"records": 2000, "trials": 100, "columns": 30}
    yield Part("search", f"{searches}:sample", search, (0, 12, 200), 3.6, "rows")
    yield Part("small search", f"{searches}:sample", search | {"trials": 10}, (4, 0, 0), 2.6, "rows")
    for shift in SHIFTS:
        yield Part(f"edges {shift:g}", f"{intervals}:edges", {"shift": shift}, (20, 200, 1000), 0.018)
    for name, seconds in (("gaussian", 0.05), ("lightgbm", 0.2), ("fusion", 0.25), ("forest", 1.6)):
        threshold = {"name": name, "n": 2000}
        repetitions = (5, 10 if name == "forest" else 60, 400)
        yield Part(f"threshold {name}", f"{intervals}:private_thresholds", threshold, repetitions, seconds)
    for name, n, targets, repetitions, seconds in CELLS:
        for target in targets:
            cell = {"name": name, "n": n, "target": target}
            label = f"refitted {name} {n} {target:g}"
            yield Part(label, f"{intervals}:sample", cell, repetitions, seconds, "coverage")
