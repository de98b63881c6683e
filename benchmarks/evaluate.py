"""Time the evaluation of a million rows, and the bootstrap against the plain one.

    python benchmarks/evaluate.py [--rows 1000000] [--attacks 5] [--resamples 1000] [--plain 10]

First the resamples by counts are checked against index arrays and scikit-learn's `roc_curve` on few records; then both
are timed on all of them. The plain bootstrap is run a few times only and its time scaled up.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from mia_lightning.evaluation.assess import FPRS, assess
from mia_lightning.evaluation.comparison import comparable_rates, paired_bootstrap
from mia_lightning.metrics.roc import evaluate
from mia_lightning.report.contents import Report
from mia_lightning.report.figures import draw
from mia_lightning.report.files import versions, write_report
from mia_lightning.report.page import html
from mia_lightning.scores.files import read_scores

TIME, MEMORY = 60.0, 4.0  # seconds and GiB on two cores


def plain_figures(scores, member, rows, rates):
    fpr, tpr, _ = roc_curve(member[rows], scores[rows], drop_intermediate=False)
    return [roc_auc_score(member[rows], scores[rows]), *(tpr[fpr <= rate * (1 + 1e-12)].max() for rate in rates)]


def plain_bootstrap(scores, member, rates, resamples, seed):
    rng = np.random.default_rng(seed)
    in_out_masks = [np.flatnonzero(member == value) for value in (0, 1)]
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(side, len(side)) for side in in_out_masks])
        drawn.append([plain_figures(values, member, rows, rates) for values in scores.values()])
    return np.array(drawn)


def simulate(rows, attacks):
    rng = np.random.default_rng(0)
    member = rng.integers(0, 2, rows).astype(np.int8)
    common = rng.normal(size=rows)
    shifts = np.linspace(0.1, 0.6, attacks)
    return {f"attack_{i}": common + rng.normal(size=rows) + shift * member for i, shift in enumerate(shifts)}, member


def check_equal():
    """Assert the same estimates, and the same law of the resamples within Monte-Carlo error."""
    scores, member = simulate(2000, 2)
    rates, count = (0.01, 0.05, 0.1), 1000
    bootstrap = paired_bootstrap(scores, member, rates, resamples=count, seed=1)
    plain = plain_bootstrap(scores, member, rates, count, seed=2)
    every = np.arange(len(member))
    for row, values in zip(bootstrap.estimates, scores.values(), strict=True):
        np.testing.assert_allclose(row, plain_figures(values, member, every, rates), atol=1e-12)
    spread = plain.std(axis=0)
    assert (np.abs(bootstrap.resampled.mean(axis=0) - plain.mean(axis=0)) < 5 * spread * np.sqrt(2 / count)).all()
    np.testing.assert_allclose(bootstrap.resampled.std(axis=0), spread, rtol=0.12)
    differences = [drawn[:, 1] - drawn[:, 0] for drawn in (bootstrap.resampled, plain)]
    np.testing.assert_allclose(differences[0].std(axis=0), differences[1].std(axis=0), rtol=0.12)


def write_scores(path, scores, member):
    import pyarrow as pa
    from pyarrow import csv

    csv.write_csv(pa.table({"id": np.arange(len(member)), "membership": member, **scores}), path)


def timed(work):
    started = perf_counter()
    result = work()
    return result, perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 1_000_000), ("attacks", 5), ("resamples", 1000), ("plain", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    check_equal()
    scores, member = simulate(options.rows, options.attacks)
    rates = comparable_rates(FPRS, int((member == 0).sum()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        write_scores(path, scores, member)
        file, reading = timed(lambda: read_scores(path))
    assessment, assessing = timed(lambda: assess(file.records, bootstrap=options.resamples))
    report = Report(assessment, next(iter(scores)), "the first", versions())
    with tempfile.TemporaryDirectory() as folder:
        _, page = timed(lambda: html(report, draw(report)))
        _, writing = timed(lambda: write_report(report, Path(folder), ()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    _, counting = timed(lambda: paired_bootstrap(scores, member, rates, resamples=options.resamples, seed=0))
    _, plain = timed(lambda: plain_bootstrap(scores, member, rates, options.plain, seed=0))
    first = next(iter(scores.values()))
    _, ours = timed(lambda: evaluate(first, member, FPRS))
    _, theirs = timed(lambda: (roc_curve(member, first), roc_auc_score(member, first)))
    per_plain = plain / options.plain
    figures = {
        "rows": options.rows,
        "attacks": options.attacks,
        "resamples": options.resamples,
        "cores": os.cpu_count(),
        "read the CSV, s": reading,
        "the whole assessment, s": assessing,
        "report.html, s": page,
        "the other files, s": writing,
        "peak memory, GiB": memory,
        "bootstrap by counts, s": counting,
        f"plain bootstrap, s, scaled from {options.plain} resamples": per_plain * options.resamples,
        "ratio": per_plain * options.resamples / counting,
        "all figures of one attack with intervals, s": ours,
        "scikit-learn roc_curve and roc_auc_score without intervals, s": theirs,
    }
    print(json.dumps(figures, indent=2))
    passed = reading + assessing + page + writing < TIME and memory < MEMORY
    print("within" if passed else "over", f"{TIME:.0f} s and {MEMORY:.0f} GiB")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
