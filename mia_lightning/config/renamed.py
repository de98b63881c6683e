"""Former names of options, values, classes, signals and configurations, still taken with one line in the log."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

log = logging.getLogger(__name__)

OPTIONS = {
    "extraction.store": "cache_dir",
    "hardware.fast": "hardware.fuse",
    "signals.queries": "signals.query_reduction",
    "evaluation.hold_out": "evaluation.holdout",
    "references.recipe": "references.training",
    "references.recipe.optimiser": "references.training.optimizer",
    "references.training.optimiser": "references.training.optimizer",
    "references.released": "references.anchored_release",
    "references.tolerance": "references.accuracy_tolerance",
    "references.address": "ray.address",
    "search.address": "ray.address",
    "search.stacked": "search.batch_trials",
    "search.grace": "search.grace_period",
    "search.concurrent": "search.max_concurrent",
    "headline": "primary_attack",
    "columns": "covariates",
    "bootstrap": "resamples",
    "one_run.fair_coins": "one_run.random_inclusion",
}
"""Dotted option names; of a group, all options in it."""

VALUES = {
    "references.scheme": {"coin": "bernoulli"},
    "signals.query_reduction": {"original": "first", "each": "none"},
    "search.goal": {"recipe": "reference_training"},
    "search.engine": {"here": "local"},
}

CLASSES = {
    "Carlini": "OfficialLiRA",
    "ClassPValue": "AttackP",
    "EachReference": "PerReferenceDifference",
    "GaussianRatio": "GaussianLikelihoodRatio",
    "ReferenceStatistics": "ReferenceFeatures",
}

FIELDS = {
    "MLP": {"networks": "ensemble_size"},
    "LightGBM": {
        "trees": "n_estimators",
        "leaves": "num_leaves",
        "depth": "max_depth",
        "min_samples_leaf": "min_child_samples",
        "row_share": "bagging_fraction",
        "column_share": "feature_fraction",
        "threads": "n_jobs",
    },
    "RandomForest": {"trees": "n_estimators", "depth": "max_depth", "threads": "n_jobs"},
    "Isotonic": {"tie_break": "keep_rank_order"},
}
"""Options of classes."""

SIGNALS = {
    "seed": "course",
    "seed_adjusted_entropy": "course_adjusted_entropy",
    "seed_gradient_proxy": "course_gradient_proxy",
    "true_class_log_probability": "log_confidence",
    "true_probability": "confidence",
    "true_logit": "label_logit",
    "true_rank": "label_rank",
    "correct": "is_correct",
}

CONFIGURATIONS = {
    "seed": "course_baseline",
    "assignment": "no_reference",
    "assignment_few_references": "few_references",
    "assignment_references": "references",
}

REMOVED = {
    "embedding": "the embedding network was removed; leave the option out",
    "AmortisedLiRA": "AmortisedLiRA was removed; take JointLiRA or LiRA",
    "Beta": "Beta was removed; take Platt or Isotonic",
}
"""Options and classes without a successor."""


def current_option(name: str) -> str | None:
    """Return the present name of a former option, None for any other name.

    Args:
        name: Dotted, such as `references.recipe.epochs`.
    """
    current = name
    while former := _former_part(current):
        current = OPTIONS[former] + current[len(former) :]
    return None if current == name else current


def _former_part(name: str) -> str | None:
    """Return the former option or group at the beginning of a dotted name, None without one."""
    while name not in OPTIONS:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def with_current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested option values of a configuration under their present names; each former one is logged once."""
    result: dict[str, Any] = {}
    for path, value in _leaves(values, ()):
        name = ".".join(path)
        if "." in name and (current := current_option(name)):
            note(f"option --{name}", f"--{current}")
            path = tuple(current.split("."))
        if path[:2] == ("search", "space") and len(path) > 2 and (current := current_option(path[2])):
            note(f"option {path[2]!r}", repr(current))
            path = (*path[:2], current, *path[3:])
        group = result
        for part in path[:-1]:
            inner = group.get(part)
            group[part] = group = inner if isinstance(inner, dict) else {}
        group[path[-1]] = value
    return result


def _leaves(values: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        path = (*above, str(key))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def note(former: str, current: str) -> None:
    """Log that a former name was read as the present one."""
    log.warning("%s is now called %s; the former name was taken", former, current)


def removal(name: str) -> str | None:
    """Return the sentence about an option or class without a successor, None for any other name."""
    return REMOVED.get(name) or REMOVED.get(name.partition(".")[0])
