"""Standard scores of target and references, where none are configured."""

from __future__ import annotations

from mia_lightning.references.scores import ReferenceScore


def standard_scores() -> dict[str, ReferenceScore]:
    """Return the scores of the field by name."""
    from mia_lightning.references.scores.attack_r import AttackR
    from mia_lightning.references.scores.bavaria import BaVarIA
    from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
    from mia_lightning.references.scores.lira import LiRA
    from mia_lightning.references.scores.official_lira import OfficialLiRA
    from mia_lightning.references.scores.rmia import BASE, RMIA

    return {
        "LiRA online": LiRA(),
        "LiRA offline": LiRA(mode="offline"),
        "LiRA online, published": OfficialLiRA(),
        "LiRA online, published, fixed": OfficialLiRA(fixed_variance=True),
        "LiRA offline, published": OfficialLiRA(mode="offline"),
        "RMIA online": RMIA(gamma=2.0),
        "RMIA offline": RMIA(mode="offline", a=0.3, gamma=2.0),
        "BASE online": BASE(mode="online"),
        "BASE offline": BASE(),
        "BaVarIA": BaVarIA(),
        "Attack R": AttackR(),
        "calibration": DifficultyCalibration(),
    }
