"""Options of evaluations and comparisons of scores. A field is the option, the string below it the help."""

from dataclasses import dataclass, field
from typing import Literal

FPRS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2, 1e-1)
"""False-positive rates of a report; rates that need more non-members are marked."""


BoundName = Literal["counts", "one_run", "one_run_f_dp", "one_run_gaussian"]


@dataclass(frozen=True)
class OneRun:
    """Assumptions of a one-run audit, which a file of scores cannot show."""

    random_inclusion: bool = False
    """Set to true if every record was included in training independently with probability 1/2, the records and numbers
    of guesses were fixed before any score was seen, and no score was computed with the membership of these records."""

    guesses_in: int | None = None
    """Number of highest scores guessed to be members (default: a 20th, a 6th and 9 20ths of the records, each at a
    third of the error)."""

    guesses_out: int | None = None
    """Number of lowest scores guessed to be non-members (default: as many as are guessed to be members)."""


@dataclass(frozen=True)
class FilingConfig:
    """Fields of a report that is filed."""

    title: str | None = None
    """Title of the report (default: Membership audit of the target)."""

    organization: str | None = None
    """Organization that is responsible for the model."""

    auditor: str | None = None
    """Person or team that ran the audit."""

    purpose: str | None = None
    """Purpose of the audit, such as a release decision."""

    data_set: str | None = None
    """Data set that the target was trained on, in words."""

    reviewer: str | None = None
    """Person who reviewed the report."""

    class_names: list[str] | None = None
    """Names of the classes in the order of the labels (default: those of the records, where they have names)."""

    previous: str | None = None
    """Folder of the previous audit, whose figures are shown next to the new ones."""


@dataclass(frozen=True)
class ScoreEvaluationConfig:
    """Options of an evaluation of scores."""

    scores: tuple[str, ...] = ()
    """Files of scores (CSV, Parquet or .npz): one with membership and a column per attack, or with --leaderboard the
    submissions of ids and score. Or one file or folder of phi, logits or probabilities of target and reference models
    with keep and membership, whose standard reference scores are evaluated."""

    output: str | None = None
    """Folder for report.html, audit_card.md, metrics.json and records.csv (default: nothing is written)."""

    key: str | None = None
    """File of id and membership, where the scores have no membership column."""

    leaderboard: str | None = None
    """Hidden key of a challenge, id and membership; ranks the submissions."""

    fpr: float = 0.05
    """FPR at which submissions are ranked by TPR."""

    attacks: tuple[str, ...] | None = None
    """Score columns (default: every column that is not an id, label, membership or split)."""

    primary_attack: str | None = None
    """Primary attack of the verdict, chosen before looking at results (default: the last score column)."""

    unlabeled: str | None = None
    """File of scores of records of unknown membership, computed by the same rule: the fraction of them that was in
    training is estimated from the primary attack (default: none)."""

    policy: str | None = None
    """Decision rule, a YAML file of criteria with margins: exit code 0 = passed, 3 = failed, 4 = inconclusive (default:
    none)."""

    covariates: tuple[str, ...] = ()
    """Covariates known without the model, used by the blind baseline."""

    split: str | None = None
    """Value of the column split whose rows are used (default: public, if present)."""

    fprs: tuple[float, ...] = FPRS
    """False-positive rates at which the TPR is reported."""

    resamples: int = 1000
    """Paired bootstrap resamples of the differences between attacks."""

    delta: float = 1e-5
    """DP delta for the epsilon lower bounds."""

    confidence: float = 0.95
    """Confidence level of each epsilon bound."""

    report: FilingConfig = field(default_factory=FilingConfig)
    """Fields of the filed report."""

    bound: BoundName = "counts"
    """Epsilon bound that is reported, chosen before looking at results; the others show the sensitivity to the method.
    counts: exact test at fixed ranks; the others are of one run with random inclusion of the records."""

    one_run: OneRun = field(default_factory=OneRun)
    """Assumptions of the one-run audit."""

    seed: int = 0
    """Random seed of resamples, splits, permutations and the blind baseline."""


@dataclass(frozen=True)
class ComparisonConfig:
    """Options of a comparison of two targets on the same records."""

    runs: tuple[str, ...] = ()
    """Two output folders of train.py, or two files of scores: before and after."""

    output: str | None = None
    """Folder for comparison.json and changes.csv (default: nothing is written)."""

    attacks: tuple[str, ...] | None = None
    """Attacks to compare (default: those that both have)."""

    fprs: tuple[float, ...] = FPRS
    """False-positive rates of the TPRs; compared are those that allow ten false positives."""

    resamples: int = 1000
    """Paired bootstrap resamples."""

    seed: int = 0
    """Random seed of the resamples."""


@dataclass(frozen=True)
class PlannerConfig:
    """Options of a plan of reference models."""

    run: tuple[str, ...] = ()
    """Output folder of a run of train.py with 4 or more references, or without any."""

    output: str | None = None
    """File of the plan in JSON (default: nothing is written)."""


@dataclass
class BoundaryConfig:
    """Label-only attack by the distance to the decision boundary (HopSkipJump), a rung of the access ladder."""

    queries: int = 0
    """Most queries per record; 0 leaves the attack out."""

    records: int = 200
    """Records that are drawn for it, half of them members."""

    def __post_init__(self) -> None:
        if self.queries != 0 and not 10 <= self.queries <= 100_000:
            raise ValueError(f"--boundary.queries must be 0 or between 10 and 100000, got {self.queries}")
        if not 20 <= self.records <= 100_000:
            raise ValueError(f"--boundary.records must be between 20 and 100000, got {self.records}")
