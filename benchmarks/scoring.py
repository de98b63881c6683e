"""Scores from references: 64 models x 40,000 records x 18 queries, and one-pass forms compared with plain loops.

python benchmarks/scoring.py [--records 40000] [--references 64] [--rounds 3]

Equality is asserted before anything is timed. The plain loops run on a part of the records and are scaled.
"""

import argparse
import resource
import tempfile
import tracemalloc
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
from scipy import stats

from mia_lightning.benchmarking.figures import figures
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.attack_r import AttackR
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.references.scores.joint_lira import JointLiRA
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.references.scores.official_lira import OfficialLiRA
from mia_lightning.references.scores.reference_features import ReferenceFeatures
from mia_lightning.references.scores.rmia import BASE, RMIA, dominance_share
from mia_lightning.references.standard_scores import standard_scores
from mia_lightning.references.target_pool import TargetPool

SCORES = {
    "LiRA online, empirical Bayes": LiRA(),
    "LiRA online, fixed": LiRA(variance="fixed"),
    "LiRA offline": LiRA(mode="offline"),
    "LiRA of the contrast": LiRA(statistic="contrast"),
    "LiRA of all views jointly": JointLiRA(),
    "LiRA of all views jointly, offline": JointLiRA(mode="offline"),
    "LiRA, published code": OfficialLiRA(),
    "LiRA, published code, offline": OfficialLiRA(mode="offline", fixed_variance=True),
    "RMIA online, gamma chosen": RMIA(),
    "RMIA offline, a and gamma chosen": RMIA(mode="offline"),
    "BASE": BASE(),
    "Attack R": AttackR(),
    "difficulty calibration": DifficultyCalibration(),
    "statistics for learned heads": ReferenceFeatures(),
}


def seconds(function, rounds):
    times = []
    for _ in range(rounds):
        started = perf_counter()
        function()
        times.append(perf_counter() - started)
    return median(times)


def peak(function):
    tracemalloc.start()
    function()
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return traced


def whole(count, records, queries):
    """All scores from a memory map."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phi.float32"
        phi = np.memmap(path, np.float32, mode="w+", shape=(count, records, queries))
        keep = np.argsort(draw.random((count, records)), axis=0) < count // 2
        for k in range(count):
            phi[k] = draw.normal(2, 1, (records, queries)) + keep[k][:, None]
        phi.flush()
        reference_outputs = ReferenceOutputs(
            phi[0] + 0.1, np.memmap(path, np.float32, mode="r", shape=phi.shape), keep, np.zeros(records, int), 10
        )
        total = 0.0
        for name, score in SCORES.items():
            taken = seconds(lambda score=score: score.columns(reference_outputs), 1)
            total += taken
            print(f"| {name} | {taken:.1f} s |")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| all | {total:.1f} s, peak {memory:.2f} GiB with the map's pages |")


def all_targets(records=50_000, count=64, queries=18):
    """Every model as target of the others: one pass, and target by target."""
    draw = np.random.default_rng(1)
    keep = np.concatenate([[half, ~half] for half in draw.random((count // 2, records)) < 0.5])
    phi = draw.standard_normal((count, records, queries), np.float32) + keep[..., None]
    pool = TargetPool(ReferenceOutputs(phi[0] * 0, phi, keep, np.zeros(records, int), 10))
    single, total = pool.of_target(3), 0.0
    for name, score in standard_scores().items():
        started, used = perf_counter(), process_time()
        scores = score.of_targets(pool)
        for values, member in zip(scores, keep, strict=True):
            figures(values, member)
        fast, used = perf_counter() - started, process_time() - used
        started = perf_counter()
        np.testing.assert_allclose(scores[3], score.columns(single)[""], rtol=1e-5, atol=1e-6)
        slow = (perf_counter() - started) * count
        total += used
        print(
            f"| {name}, {count} targets | {fast:.1f} s, CPU {used:.1f} s | {slow:.0f} s | {slow / fast:.0f}x |",
            flush=True,
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| all, {records:,} records, {queries} views | CPU {total:.1f} s, peak {memory:.2f} GiB | | |")


def one_target(rounds, records=5000, count=256):
    draw = np.random.default_rng(2)
    keep = np.argsort(draw.random((count, records)), axis=0) < count // 2
    phi = (draw.normal(size=(count, records, 1)) + keep[..., None]).astype(np.float32)
    reference_outputs = ReferenceOutputs(phi[0] * 0, phi, keep, np.zeros(records, int), 10)

    def loop():
        scores = []
        for i in range(records):
            in_, out_ = phi[keep[:, i], i, 0], phi[~keep[:, i], i, 0]
            logs = [stats.norm.logpdf(0.0, side.mean(), side.std(ddof=1)) for side in (in_, out_)]
            scores.append(logs[0] - logs[1])
        return scores

    score = LiRA(variance="per_sample", shrink_shift=False)
    np.testing.assert_allclose(score.columns(reference_outputs)[""], loop(), rtol=1e-3, atol=1e-4)
    fast, slow = seconds(lambda: score.columns(reference_outputs), rounds), seconds(loop, 1)
    print(f"| one target, {records:,} records, {count} references | {fast:.3f} s | {slow:.2f} s | {slow / fast:.0f}x |")


def rmia(rounds, records=20_000, population=10_000):
    draw = np.random.default_rng(3)
    ratio, z = np.round(draw.gamma(2, 1, records), 3) + 1e-3, np.round(draw.gamma(2, 1, population), 3) + 1e-3

    def matrix():
        return (ratio[:, None] / z > 2.0).sum(axis=1) / population

    def loop():
        return np.array([(x / z > 2.0).sum() for x in ratio]) / population

    def ours():
        return dominance_share(ratio, z, gamma=2.0)

    np.testing.assert_array_equal(ours(), matrix())
    fast, slow = seconds(ours, 5 * rounds), seconds(loop, rounds)
    memory = peak(matrix) / peak(ours)
    ratios = f"{slow / fast:.0f}x, 1/{memory:.0f} of the matrix's memory"
    print(f"| RMIA {records:,} x {population:,}, bit-equal | {fast * 1000:.1f} ms | {slow * 1000:.0f} ms | {ratios} |")


def base(rounds, count=64, records=20_000):
    """BASE offline with errors on one view, alternately with LeakPro's formula without errors, least CPU time."""
    from scipy.special import log_expit, logsumexp

    draw = np.random.default_rng(4)
    keep = np.argsort(draw.random((count, records)), axis=0) < count // 2
    phi = draw.normal(size=(count + 1, records, 1)).astype(np.float32) * 3
    given = ReferenceOutputs(phi[0], phi[1:], keep, np.zeros(records, np.int64), 10)

    def formula():
        log_p = log_expit(phi[..., 0])
        mean_out = logsumexp(np.where(keep, -np.inf, log_p[1:]), axis=0) - np.log((~keep).sum(axis=0))
        return log_p[0] - 0.33 * mean_out

    np.testing.assert_allclose(BASE().columns(given)[""], formula(), rtol=1e-4, atol=1e-5)
    times = {function: [] for function in (lambda: BASE().columns(given), formula)}
    for _ in range(5 * rounds):
        for function, taken in times.items():
            started = process_time()
            function()
            taken.append(process_time() - started)
    ours, theirs = map(min, times.values())
    name = f"BASE, {records:,} records, {count} references, one view, CPU"
    print(f"| {name} | {ours:.3f} s | {theirs:.3f} s | {theirs / ours:.1f}x |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--references", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-all-targets", action="store_true")
    arguments = parser.parse_args()
    if arguments.only_all_targets:
        return all_targets()
    print("| score | time |\n|---|---:|")
    whole(arguments.references, arguments.records, 18)
    print("\n| what | one pass | plain loop | ratio |\n|---|---:|---:|---:|")
    one_target(arguments.rounds)
    rmia(arguments.rounds)
    base(arguments.rounds)
    all_targets()


if __name__ == "__main__":
    main()
