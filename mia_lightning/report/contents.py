"""What a report is made of: an assessment, and what only a run knows besides."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import Assessment, CurvePoint
from mia_lightning.metrics.roc import Evaluation


@dataclass(frozen=True)
class Source:
    """One half of the records."""

    part: str
    """public or private."""

    name: str
    """The file's name without its folder."""

    records: int
    members: int
    non_members: int

    digest: str
    """sha256 (hex) of ids, images, labels and membership."""


@dataclass(frozen=True)
class Stage:
    """One stage of the run."""

    name: str
    seconds: float
    """Wall time."""

    hardware: str
    """What it ran on, in words."""


@dataclass(frozen=True)
class Reference:
    """One reference model."""

    number: int
    status: str
    """trained, or diverged = left out."""

    accuracy_in: float
    """On the records it was trained on."""

    accuracy_out: float
    seconds: float
    """Training."""

    reason: str
    """Why it was left out; empty where it was not."""


@dataclass(frozen=True, eq=False)
class RunFacts:
    """What a run knows and a file of scores does not."""

    target: Mapping[str, str | int | float]
    """architecture, classes, digest, accuracy_on_members, accuracy_on_non_members."""

    sources: tuple[Source, ...]

    threat: tuple[str, ...]
    """What the attacker is given, one sentence each."""

    references: tuple[Reference, ...]
    learning_curve: Mapping[str, tuple[CurvePoint, ...]]
    by_probability: Mapping[str, Evaluation]
    """Attack to the figures of a ranking by calibrated probability."""

    held_out: Mapping[str, Evaluation]
    """Attack to the figures on public records that no fold saw; empty where none were held out."""

    private: Mapping[str, Evaluation]
    """Attack to the figures on the private records; empty where their membership is unknown."""

    fit_seconds: Mapping[str, float]
    """Attack to the time of fitting and scoring over all folds."""

    folds: int
    seed: int

    stages: tuple[Stage, ...]
    configuration: str
    """YAML, every path by its last name only."""


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that report.html, audit_card.md and metrics.json say."""

    assessment: Assessment

    headline: str
    """The attack that the verdict is about; named without regard to its figures."""

    headline_reason: str
    """How it was named, as the end of a sentence about it: "which was named ..."."""

    versions: Mapping[str, str]
    """Of this tool and the libraries that compute."""

    notes: tuple[str, ...] = ()
    """What had to be said of the input."""

    run: RunFacts | None = None
    """None for a report from scores alone."""

    pixels: NDArray[np.uint8] | NDArray[np.float32] | None = field(default=None, repr=False)
    """(N, C, H, W) images of the assessment's records, where they are at hand."""
