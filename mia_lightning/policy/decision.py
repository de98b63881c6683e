"""Outcome of a policy: pass, fail or inconclusive, from the 95% intervals of an assessment."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mia_lightning.policy.policy import Criterion, Policy

Outcome = Literal["pass", "fail", "inconclusive"]

EXIT_CODES: Mapping[str, int] = {"pass": 0, "fail": 3, "inconclusive": 4}


@dataclass(frozen=True)
class Result:
    """Outcome of one criterion for one attack."""

    criterion: str
    """In words."""

    attack: str
    """Empty for a criterion that is not about an attack."""

    outcome: Outcome
    sentence: str
    """Figure, interval and n, and what would decide where nothing does."""

    value: float | None = None
    low: float | None = None
    """95% interval."""

    high: float | None = None
    margin: float | None = None
    needed_members: int | None = None
    """Members with which the criterion would be decided with power 80%; None where it is decided or no number is."""

    needed_non_members: int | None = None


@dataclass(frozen=True)
class Decision:
    """Outcome of a policy, tied to what was audited."""

    policy: Policy
    outcome: Outcome
    """fail where any criterion fails, else inconclusive where any is, else pass."""

    results: tuple[Result, ...]
    n_members: int
    n_non_members: int
    digests: Mapping[str, str]
    """sha256 (hex) of the policy, and of target and records where they are known."""

    versions: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """0, 3 or 4."""
        return EXIT_CODES[self.outcome]

    @property
    def line(self) -> str:
        """The outcome in one line."""
        counts = {name: sum(result.outcome == name for result in self.results) for name in EXIT_CODES}
        tally = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        title = f"{self.policy.title}: " if self.policy.title else ""
        return (
            f"{title}{self.outcome} ({tally}; {self.n_members:,} members, {self.n_non_members:,} non-members, "
            f"policy {self.digests['policy'][:12]})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "title": self.policy.title,
            "policy": policy_values(self.policy),
            "results": [asdict(result) for result in self.results],
            "records": {"members": self.n_members, "non_members": self.n_non_members},
            "digests": dict(self.digests),
            "versions": dict(self.versions),
        }


def overall(results: tuple[Result, ...]) -> Outcome:
    """Return the outcome of all criteria together."""
    outcomes = {result.outcome for result in results}
    return "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"


def policy_values(policy: Policy) -> dict[str, Any]:
    """Return a policy as its file holds it; its digest is of these values."""

    def plain(criterion: Criterion) -> dict[str, Any]:
        return {key: value for key, value in asdict(criterion).items() if value is not None}

    return {
        "title": policy.title,
        "attacks": list(policy.attacks),
        "access": list(policy.access),
        "minimum_members": policy.minimum_members,
        "minimum_non_members": policy.minimum_non_members,
        "criteria": [plain(criterion) for criterion in policy.criteria],
    }
