"""Research: TPR of scores from K reference models, for several K, as a table with confidence intervals.

    python examples/research.py [FOLDER] [K ...]

Reference models are trained once and found again in the cache, so a larger K trains only what is missing.
"""

import sys
from pathlib import Path
from tempfile import mkdtemp

from mia_lightning import audit, load_config

SCORES = {
    "lira_offline": {"class_path": "LiRA", "init_args": {"mode": "offline"}},
    "rmia_offline": {"class_path": "RMIA", "init_args": {"mode": "offline"}},
    "calibration": {"class_path": "DifficultyCalibration"},
}
RUN = {
    "data": {"public": "digits:public", "mean": [0.31], "std": [0.37]},
    "target": {"architecture": "mia_lightning.targets.demo:digits_target"},
    "extraction": {"queries": 1},
    "attacks": {f"{name}_threshold": {"class_path": "Threshold", "init_args": {"column": name}} for name in SCORES},
}
REFERENCES = {
    "architecture": "mia_lightning.targets.demo:digits_network",
    "training": {
        "epochs": 60,
        "batch_size": 64,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "schedule": "constant",
        "flip": False,
    },
    "scores": SCORES,
}


def main(folder: Path, counts: list[int]) -> None:
    """Print one row per score and number of reference models."""
    print(f"{'score':14} {'K':>3} {'AUC':>6} {'95% interval':>16} {'TPR@5%':>7} {'95% interval':>16}")
    for count in counts:
        result = audit(load_config(output=str(folder / "run"), references=REFERENCES | {"count": count}, **RUN))
        for name in SCORES:
            figures = result.attacks[f"{name}_threshold"].public
            point = figures.at(0.05)
            auc, tpr = f"[{figures.auc_low:.3f}, {figures.auc_high:.3f}]", f"[{point.low:.3f}, {point.high:.3f}]"
            print(f"{name:14} {count:3d} {figures.auc:6.3f} {auc:>16} {point.tpr:7.3f} {tpr:>16}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(Path(arguments[0] if arguments else mkdtemp(prefix="research-")), [int(k) for k in arguments[1:]] or [4, 8])
