"""A challenge: from public records, private records and a target to a submission, and what it is worth.

    python examples/challenge.py [FOLDER]

The records are scikit-learn's digits and the target is trained on the spot, so the membership of the private half is
known here and the estimate can be compared with the truth.
"""

import csv
import json
import sys
from pathlib import Path
from tempfile import mkdtemp

from mia_lightning.cli import train


def main(folder: Path) -> None:
    """Run the shipped demo configuration and read the files that it leaves."""
    code = train(["--config", "demo", "--output", str(folder / "run")])
    if code:
        raise SystemExit(code)
    with (folder / "run" / "submission.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    print(f"\nsubmission.csv: {len(rows)} rows, columns {', '.join(rows[0])}")
    for name, attacks in (
        ("estimate, public out-of-fold", metrics["attacks"]),
        ("truth, private", metrics["run"]["private"]),
    ):
        fusion = attacks["fusion"]
        print(f"{name}: AUC {fusion['auc']:.3f} [{fusion['auc_low']:.3f}, {fusion['auc_high']:.3f}]")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp(prefix="challenge-")))
