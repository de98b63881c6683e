"""Runs with references and sweeps that are killed at random moments and repeated, compared with ones that are not.

    python benchmarks/kills.py [--kills 50] [--seed 0]

Half of the kills hit a run with references, half a sweep over an MLP's options. It prints how many hit, and whether
results have the same bytes at the end: scores, claims and phi of the references; trials (without their seconds) and the
best configuration.
"""

import argparse
import csv
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.runner import make_audit, reference_options  # noqa: E402

COMPARED = (
    *("run/submission.csv", "run/scores.csv", "run/records.csv", "run/references.csv", ".store/**/phi.float32"),
    *("run/trials.csv", "run/best.yaml"),
)
PER_REPEAT = 5
"""Kills of one run or sweep before it is repeated to the end."""

SEARCH = """
data: {private: null}
attacks:
  mlp: {class_path: MLP, init_args: {columns: [phi, entropy, loss], epochs: 5, hidden: [8], batch_size: 40}}
evaluation: {holdout: 0.4, fprs: [0.01, 0.1]}
search:
  trials: 40
  batch_trials: 1
  engine: local
  metric: auc
  space:
    attacks.mlp.learning_rate: {dist: loguniform, low: 1e-4, high: 1e-1}
    attacks.mlp.dropout: {dist: uniform, low: 0.0, high: 0.5}
"""


def contents(folder):
    return [read(path, folder) for pattern in COMPARED for path in sorted(folder.glob(pattern))]


def read(path, folder):
    """Return a file's bytes without the paths and durations that differ from run to run."""
    if path.name == "trials.csv":
        with path.open(newline="") as file:
            return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return path.read_bytes().replace(str(folder).encode(), b"")


def interrupted(audit, folder, job, resume, kills, draw):
    """Run a job to the end, then kill and repeat it, and return counts of kills, repetitions, and equal results."""
    started = time.perf_counter()
    ((code, printed),) = audit.serve([job(folder / "whole")])
    seconds = time.perf_counter() - started
    assert code == 0, printed
    expected, hits, repeated, equal = contents(folder / "whole"), 0, 0, 0
    assert len(expected) > 1
    for first in range(0, kills, PER_REPEAT):
        again = job(folder / str(first))
        again["arguments"] += resume
        moments = [draw.uniform(0.05, seconds / PER_REPEAT) for _ in range(min(PER_REPEAT, kills - first))]
        *killed, (code, printed) = audit.serve([*(again | {"kill_after": moment} for moment in moments), again])
        hits += sum(code == -signal.SIGKILL for code, _ in killed)
        repeated += 1
        same = code == 0 and contents(folder / str(first)) == expected
        equal += same
        if not same:
            print(f"{folder.name} {first}: exit code {code}; {printed[-500:]}", file=sys.stderr)
        if odd := [text for code, text in killed if code not in (0, -signal.SIGKILL)]:
            print(f"{folder.name} {first}: {odd[0][-500:]}", file=sys.stderr)
    return {"seconds": round(seconds), "kills": hits, "repeated": repeated, "of equal bytes": equal}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        audit = make_audit(folder)
        references = reference_options(audit)
        (folder / "search.yaml").write_text(SEARCH)
        search = ["--config", str(folder / "search.yaml")]
        jobs = {
            "references": (lambda place: {"arguments": audit.arguments(place / "run", *references)}, []),
            "sweep": (
                lambda place: {"command": "tune", "arguments": audit.arguments(place / "run", *search)},
                ["--resume"],
            ),
        }
        for name, (job, resume) in jobs.items():
            (folder / name).mkdir()
            print(
                name, json.dumps(interrupted(audit, folder / name, job, resume, options.kills // 2, draw)), flush=True
            )


if __name__ == "__main__":
    main()
