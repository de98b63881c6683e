"""The options of `python -m mia_lightning.evaluate`. A field is the option, the string below it the help."""

from __future__ import annotations

from dataclasses import dataclass, field

FPRS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2, 1e-1)
"""At which the TPR is given; what the number of non-members cannot resolve says so."""


@dataclass(frozen=True)
class OneRun:
    """What has to be declared for a one-run audit, because no file of scores can show it."""

    random_inclusion: bool = False
    """Say true if each record was put into training by its own fair coin, the records and the numbers of guesses were
    fixed before any score was seen, and no score was made with the membership of these records."""

    guesses_in: int | None = None
    """Highest scores that are guessed to be members; a twentieth of the records when not given."""

    guesses_out: int | None = None
    """Lowest scores that are guessed to be non-members; a twentieth of the records when not given."""


@dataclass(frozen=True)
class ScoreEvaluationConfig:
    """What to evaluate, and how."""

    scores: tuple[str, ...] = ()
    """Files of scores, CSV or Parquet: one with id, membership and a column per attack, or with --leaderboard the
    submissions of ids and score."""

    output: str | None = None
    """New or empty folder for report.html, audit_card.md, metrics.json and records.csv; nothing is written when not
    given."""

    key: str | None = None
    """File of id and membership, where the scores have no membership column."""

    leaderboard: str | None = None
    """Hidden key of a challenge, id and membership; ranks the submissions."""

    fpr: float = 0.05
    """Rate at whose TPR the leaderboard ranks."""

    attacks: tuple[str, ...] | None = None
    """Columns that hold scores; all that are nothing else when not given."""

    primary_attack: str | None = None
    """The attack that the verdict is about, to be named without regard to its figures; the last when not given."""

    covariates: tuple[str, ...] = ()
    """Numeric columns that are no scores but known of the records without the target, for the blind baseline."""

    split: str | None = None
    """Rows to use, where there is a column split; public when not given and present."""

    fprs: tuple[float, ...] = FPRS
    """False-positive rates at which the TPR is given."""

    resamples: int = 1000
    """Paired resamples behind the differences between attacks."""

    delta: float = 1e-5
    """Of the bounds on epsilon."""

    confidence: float = 0.95
    """Of each bound on epsilon."""

    one_run: OneRun = field(default_factory=OneRun)
    """What is declared for the one-run audit."""

    seed: int = 0
    """Drives resamples, splits, permutations and the blind baseline."""
