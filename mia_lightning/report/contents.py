"""Contents of a report: an assessment, and the facts of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.access_ladder import AccessLadder
from mia_lightning.evaluation.assessment import Assessment, Claims, CurvePoint
from mia_lightning.evaluation.config import FilingConfig
from mia_lightning.evaluation.explanation import Explanation
from mia_lightning.metrics.roc import Evaluation
from mia_lightning.report.filing import PreviousAudit
from mia_lightning.report.methods import Method

if TYPE_CHECKING:
    from mia_lightning.config.schema import SearchedConfig
    from mia_lightning.policy.decision import Decision
    from mia_lightning.references.fidelity import FidelityCheck
    from mia_lightning.targets.readings import ReadingCheck


@dataclass(frozen=True)
class Source:
    """One split of the records."""

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
    """Device, in words."""


@dataclass(frozen=True)
class Reference:
    """One reference model."""

    number: int
    status: str
    """trained, or diverged = left out."""

    accuracy_in: float
    """On the records it was trained on, in [0, 1]."""

    accuracy_out: float
    seconds: float
    """Training time."""

    reason: str
    """Reason for leaving it out; empty where it is used."""

    losses: tuple[float, ...] = ()
    """Mean training loss of each epoch."""

    set: str = ""
    """Name of its set in `references.sets`, empty outside them."""


@dataclass(frozen=True, eq=False)
class RunFacts:
    """Facts of a run that a file of scores does not contain."""

    target: Mapping[str, str | int | float]
    """architecture, classes, digest, accuracy_on_members, accuracy_on_non_members."""

    sources: tuple[Source, ...]

    threat: tuple[str, ...]
    """Attacker's access and knowledge, one sentence each."""

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

    reading: ReadingCheck | None = None
    """Check of how the target reads its input; under "warn" there is no verdict about membership."""

    fidelity: tuple[FidelityCheck, ...] = ()
    """Checks of the reference models; empty without them."""

    private_ids: NDArray[np.int64] | NDArray[np.str_] | None = None
    """(M,) ids of the private records."""

    private_claims: Mapping[str, Claims] = field(default_factory=dict)
    """Attack to the claims about the (M,) private records, against the public non-members."""

    explanation: Explanation = field(default_factory=Explanation)
    """Reasons for the figures."""

    methods: tuple[Method, ...] = ()
    """Attacks, scores and signals of the run."""

    not_run: tuple[tuple[str, str, str], ...] = ()
    """Name, sentence and reason of each method of this package that was not run."""

    ladder: AccessLadder | None = None
    """What an attacker reaches at every level of access; None for arrays alone."""

    top_probability: NDArray[np.float64] | None = None
    """(n,) probability of each evaluated record to be among the 1% whose training moves phi most, by reference models;
    None where these do not measure it."""

    searched: SearchedConfig | None = None
    """Search that selected the configuration; None where none did."""


@dataclass(frozen=True, eq=False)
class Report:
    """Contents of report.html, audit_card.md and metrics.json."""

    assessment: Assessment

    headline: str
    """Attack whose figures come first: the submitted one, named without regard to its figures."""

    headline_reason: str
    """Reason why it is the headline, in words that continue a sentence about it."""

    versions: Mapping[str, str]
    """Of this tool and the libraries that compute."""

    notes: tuple[str, ...] = ()
    """Sentences about the input."""

    run: RunFacts | None = None
    """None for a report from scores alone."""

    pixels: NDArray[np.uint8] | NDArray[np.float32] | None = field(default=None, repr=False)
    """(N, C, H, W) images of the assessment's records; None where they are not available."""

    filing: FilingConfig = field(default_factory=FilingConfig)
    """Title, responsible persons and purpose."""

    previous: PreviousAudit | None = None
    """The previous audit; None without one."""

    decision: Decision | None = None
    """Outcome of the policy; None without one."""

    class_names: Sequence[str] | None = None
    """Name of each class by its label; None where they have none."""

    def class_name(self, label: int) -> str:
        """Return the name of a class, with its label, or the label alone."""
        return str(label) if self.class_names is None else f"{label} {self.class_names[label]}"

    @property
    def on_held_out(self) -> bool:
        """Whether the verdict and the headline figures are of held-out records."""
        return self.run is not None and self.headline in self.run.held_out

    @property
    def decisive(self) -> Mapping[str, Evaluation]:
        """Figures that decide the verdict: of held-out records where there are any, else of all assessed records."""
        return self.run.held_out if self.run is not None and self.on_held_out else self.assessment.attacks
