"""Options of `python -m mia_lightning.canaries`. A field is the option, the string below it the help."""

from dataclasses import dataclass
from typing import Literal

from mia_lightning.evaluation.config import BoundName

Pattern = Literal["mislabeled", "blank", "high_frequency"]


@dataclass(frozen=True)
class MakeConfig:
    """Options of making canaries."""

    records: tuple[str, ...] = ()
    """Records whose images, shape and classes the canaries take; not part of the other training data."""

    output: str | None = None
    """New folder for manifest.json (secret until the audit), train.npz (to be trained on) and canaries.npz (all)."""

    count: int = 1000
    """Number of canaries, each put into training by a fair coin of its own."""

    pattern: Pattern = "mislabeled"
    """Canaries. mislabeled: images of the records with a random other label; blank: one random color; high_frequency:
    random black and white pixels; the last two with random labels."""

    reader: str = "auto"
    """Reader of the records."""

    seed: int | None = None
    """Random seed of coins and canaries, for tests (default: the system's entropy, which nobody can repeat)."""


@dataclass(frozen=True)
class AuditConfig:
    """Options of an audit by canaries."""

    folder: tuple[str, ...] = ()
    """Folder of the canaries, or their manifest.json."""

    scores: str | None = None
    """File of ids and score of all canaries, higher = more likely trained on, made without their coins."""

    trained: str | None = None
    """Records that the target was trained on, with images or ids: the coins have to have been followed."""

    commitment: str | None = None
    """Commitment that was published before training (default: that of the manifest)."""

    output: str | None = None
    """File of the result in JSON (default: nothing is written)."""

    bound: BoundName = "one_run"
    """Epsilon bound that is reported, chosen before looking at results."""

    delta: float = 1e-5
    """DP delta of the bounds."""

    confidence: float = 0.95
    """Confidence level of each bound."""

    seed: int = 0
    """Random seed that breaks ties."""
