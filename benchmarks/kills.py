"""Runs with references that are killed at random moments and repeated, compared with a run that is not.

    python benchmarks/kills.py [--kills 50] [--seed 0]

It prints how many kills hit a run, and whether scores, claims and phi of the references have the same bytes at the end.
"""

import argparse
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

COMPARED = ("run/submission.csv", "run/scores.csv", "run/records.csv", "run/references.csv", ".store/**/phi.float32")


def contents(folder):
    return [path.read_bytes() for pattern in COMPARED for path in sorted(folder.glob(pattern))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    hits = equal = finished = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        audit = make_audit(folder)
        references = reference_options(audit)
        started = time.perf_counter()
        ((code, printed),) = audit.serve([{"arguments": audit.arguments(folder / "whole" / "run", *references)}])
        seconds = time.perf_counter() - started
        assert code == 0, printed
        expected = contents(folder / "whole")
        for first in range(0, options.kills, 5):
            run = {"arguments": audit.arguments(folder / str(first) / "run", *references)}
            count = min(5, options.kills - first)
            *killed, (code, _) = audit.serve(
                [*(run | {"kill_after": draw.uniform(0.05, seconds / 4)} for _ in range(count)), run]
            )
            hits += sum(code == -signal.SIGKILL for code, _ in killed)
            finished += 1
            equal += code == 0 and contents(folder / str(first)) == expected
    print(json.dumps({"kills": hits, "repeated runs": finished, "of equal bytes": equal}))


if __name__ == "__main__":
    main()
