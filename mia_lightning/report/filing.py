"""Fields of a filed report, the previous audit, and frameworks that the figures are evidence for."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.config import FilingConfig
from mia_lightning.report.wording import tpr_name
from mia_lightning.runtime.own_files import read_bytes

NOT_STATED = "not stated"


def filing_rows(filing: FilingConfig) -> list[tuple[str, str]]:
    """Return name and value of the fields that a filed report states, "not stated" where one is missing."""
    names = [field.name for field in fields(filing) if field.name not in ("title", "class_names", "previous")]
    return [(name.replace("_", " ").capitalize(), getattr(filing, name) or NOT_STATED) for name in names]


def check_class_names(filing: FilingConfig, labels: NDArray[np.int64] | None) -> None:
    """Check that every label of the records has a name, if names are given.

    Raises:
        MIAError: too few names, or records without labels.
    """
    if filing.class_names is None:
        return
    needed = 0 if labels is None else int(labels.max()) + 1
    if not needed or len(filing.class_names) < needed:
        has = f"label {needed - 1} occurs" if needed else "the records have no labels"
        raise MIAError(
            f"--report.class_names has {len(filing.class_names)} names, but {has}; give a name for each class, in the "
            "order of the labels"
        )


@dataclass(frozen=True)
class PreviousAudit:
    """Figures of the previous audit's headline attack."""

    heading: str
    """Its verdict."""

    headline: str
    target: str
    """Digest of its target's weights (hex); empty for an evaluation of scores."""

    n_members: int
    n_non_members: int
    figures: tuple[tuple[str, float, float, float], ...]
    """Name, value, low and high end of the 95% interval: AUC, then the TPR at each false-positive rate."""


def previous_audit(filing: FilingConfig) -> PreviousAudit | None:
    """Return the audit of `--report.previous`, None without one.

    Raises:
        MIAError: the folder has no readable metrics.json.
    """
    folder = filing.previous
    if folder is None:
        return None
    path = Path(folder) / "metrics.json"
    try:
        content = json.loads(read_bytes(path, limit=64 << 20))
        figures = content["attacks"][content["headline"]]
        rows = [("AUC", figures["auc"], figures["auc_low"], figures["auc_high"])]
        rows += [(tpr_name(p["fpr"]), p["tpr"], p["low"], p["high"]) for p in figures["points"] if p["resolvable"]]
        return PreviousAudit(
            heading=str(content["verdict"]["heading"]),
            headline=str(content["headline"]),
            target=str((content["run"] or {"target": {"digest": ""}})["target"]["digest"]),
            n_members=int(figures["n_members"]),
            n_non_members=int(figures["n_non_members"]),
            figures=tuple((str(name), float(value), float(low), float(high)) for name, value, low, high in rows),
        )
    except FileNotFoundError as error:
        raise MIAError(f"--report.previous {folder}: no metrics.json there; name the folder of an audit") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise MIAError(
            f"--report.previous {folder}: metrics.json is not that of an audit; name the folder of an audit"
        ) from error


@dataclass(frozen=True)
class Framework:
    """One entry of the crosswalk."""

    source: str
    entry: str
    evidence: str
    """Part of this report that is evidence for the entry."""


CROSSWALK = (
    Framework(
        "MITRE ATLAS",
        "AML.T0024.000, Infer Training Data Membership",
        "attacks, access and success rates: Attack performance, Methods",
    ),
    Framework("OWASP Machine Learning Security Top 10 (2023)", "ML04, Membership Inference Attack", "verdict, figures"),
    Framework(
        "NIST AI 100-2 (2025)", "privacy attacks on predictive models: membership inference", "threat model, figures"
    ),
    Framework(
        "NIST SP 800-226 (2025)",
        "evaluation of differential privacy guarantees",
        "lower bounds on epsilon with delta, unit of privacy and assumptions: Privacy bounds",
    ),
    Framework(
        "EDPB Opinion 28/2024",
        "tests of a model's anonymity: membership inference; scope and quality of the tests",
        "attacks run and not run, their cost, records and limits",
    ),
)
"""Frameworks that name membership inference. The table claims no compliance."""
