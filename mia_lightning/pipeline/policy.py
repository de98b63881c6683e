"""Policies of runs and of score files: checks before any work, and the decision after it."""

from collections.abc import Collection
from dataclasses import replace
from fnmatch import fnmatchcase

from mia_lightning.config.policy_file import read_policy
from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Assessment
from mia_lightning.pipeline.requirements import signal_needs
from mia_lightning.policy.decide import check_contents, decide
from mia_lightning.policy.policy import ACCESS, AT_A_RATE, Policy
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.report.contents import Report
from mia_lightning.report.verdict import verdict
from mia_lightning.runtime.store import array_digest, key_of
from mia_lightning.scores.scored_records import ScoredRecords

UNDECIDED_LEVELS = ("no reading", "unreliable", "too few")
"""Levels of the verdict under which no policy passes."""


def policy_of_run(config: RunConfig) -> Policy | None:
    """Read the policy of a run and check it against the configuration; None where none is given.

    Raises:
        MIAError: the policy is not valid, or requires what the run does not include.
    """
    if config.policy is None:
        return None
    policy = read_policy(config.policy)
    policy.check_attacks(list(config.attacks))
    policy.check_access(access_levels(config))
    rates = {criterion.fpr for criterion in policy.criteria if criterion.figure in AT_A_RATE and criterion.fpr}
    if config.evaluation.holdout and (absent := sorted(rates - set(config.evaluation.fprs))):
        raise MIAError(f"the policy limits the TPR at FPR {absent[0]:g}; add it to --evaluation.fprs")
    return policy


def check_records(policy: Policy, public: Records) -> None:
    """Check that the public records have the labels and groups that the policy is about.

    Raises:
        MIAError: they have not.
    """
    complete = not bool((public.labels == UNKNOWN).any())
    labels = public.labels if complete and public.multi_hot is None else None
    records = ScoredRecords(public.ids, public.membership, {}, labels, public.source, public.groups)
    check_contents(policy, records, has_gap=complete)


def policy_of_scores(path: str | None) -> Policy | None:
    """Read the policy of an evaluation of scores; None where none is given.

    Raises:
        MIAError: the policy is not valid, or requires what scores alone do not show.
    """
    if path is None:
        return None
    policy = read_policy(path)
    if policy.access:
        raise MIAError("the policy requires access, which scores alone do not show; leave access out, or use train.py")
    if any(criterion.figure == "generalization_gap" for criterion in policy.criteria):
        raise MIAError(
            "the policy limits generalization_gap, which scores alone do not show; leave it out, or use train.py"
        )
    return policy


def access_levels(config: RunConfig) -> Collection[str]:
    """Return the attacker's access in a run, of `policy.ACCESS`, from what the attacks read."""
    patterns = [pattern for attack in config.attacks.values() for pattern in attack.required_columns()]
    needs = {
        need for name, need in signal_needs(config).items() if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    present = {
        "logits": True,
        "features": "features" in needs,
        "gradients": "gradient_norms" in needs,
        "references": config.references.wanted,
        "known_members": any(attack.is_trainable for attack in config.attacks.values()),
    }
    return [level for level in ACCESS if present[level]]


def with_decision(report: Report, policy: Policy | None) -> Report:
    """Return the report with the policy's outcome, tied to the digests of target and records."""
    if policy is None:
        return report
    conclusion = verdict(report)
    doubts = [f"{conclusion.heading}. {conclusion.sentences[0]}"] if conclusion.level in UNDECIDED_LEVELS else []
    decision = decide(
        policy,
        report.assessment,
        figures=report.decisive,
        doubts=doubts,
        digests=_digests(report, report.assessment),
        versions=report.versions,
    )
    return replace(report, decision=decision)


def _digests(report: Report, assessment: Assessment) -> dict[str, str]:
    records = assessment.records
    arrays = {"ids": records.ids, "membership": records.membership, **records.scores}
    digests = {"scores": key_of({name: array_digest(array) for name, array in arrays.items()})}
    if report.run is not None:
        digests["target"] = str(report.run.target["digest"])
        digests |= {f"{source.part}_records": source.digest for source in report.run.sources}
    return digests
