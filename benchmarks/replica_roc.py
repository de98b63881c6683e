"""Draw the picture of the README from run folders.

Usage: python benchmarks/replica_roc.py runs/fine_tuned runs/few_references runs/no_reference runs/course_baseline
"""

import csv
import sys
from pathlib import Path

import numpy as np

from mia_lightning.report.plots import plot_roc


def submitted(folder):
    """Return id to (score, membership) of a run's public records of known membership."""
    with (folder / "scores.csv").open(newline="") as file:
        return {
            row["id"]: (float(row["score"]), int(row["membership"]))
            for row in csv.DictReader(file)
            if row["split"] == "public" and row["membership"]
        }


def main():
    runs = {Path(name).name: submitted(Path(name)) for name in sys.argv[1:]}
    ids = list(next(iter(runs.values())))
    scores = {name: np.array([run[record][0] for record in ids]) for name, run in runs.items()}
    member = np.array([next(iter(runs.values()))[record][1] for record in ids], np.int8)
    figure = plot_roc(scores, member, title="Replica of the assignment, public records, out-of-fold")
    figure.savefig(Path(__file__).parent / "replica_roc.svg", format="svg")


if __name__ == "__main__":
    main()
