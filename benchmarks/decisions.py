"""Coverage and power of decisions: policy, comparison, one-run bounds, DP-SGD, fraction of an unlabeled set, planner.

    python benchmarks/decisions.py policy compare      # or all parts without a name; --repeats 100

Each part prints a Markdown table of simulated shares with their standard errors. Run it with OMP_NUM_THREADS=1.
"""

import argparse
from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri

from mia_lightning.evaluation.config import OneRun
from mia_lightning.metrics.intervals import tpr_interval

PARTS = {}


def part(function):
    PARTS[function.__name__] = function
    return function


def share(values):
    """Return a share with its standard error, in percent."""
    values = np.asarray(values, dtype=float)
    return f"{100 * values.mean():.1f}% (+-{100 * np.sqrt(values.mean() * (1 - values.mean()) / values.size):.1f})"


def gaussian(rng, n, shift):
    return np.sort(rng.normal(shift, 1, n)), np.sort(rng.normal(0, 1, n))


@part
def policy(repeats):
    """False passes of a TPR at its margin, and the planner's n against the n that has the power 80%."""
    from mia_lightning.policy.needed import tpr_growth

    rng = np.random.default_rng(0)
    print("\n| FPR | TPR at the margin | n a side | false passes | false failures |\n|---|---|---|---|---|")
    for fpr, shift, n in ((0.05, 0.5, 500), (0.05, 0.5, 5000), (0.01, 0.5, 2000), (0.01, 1.5, 2000)):
        margin = float(ndtr(shift - ndtri(1 - fpr)))
        ends = np.array([tpr_interval(*gaussian(rng, n, shift), fpr) for _ in range(5 * repeats)])
        print(
            f"| {fpr:g} | {margin:.4f} | {n:,} | {share(ends[:, 1] < margin)} | {share(ends[:, 0] > margin)} |",
            flush=True,
        )
    print("\n| FPR | TPR | margin | planner's n | n with power 80% | ratio |\n|---|---|---|---|---|---|")
    levels = (np.arange(20_000) + 0.5) / 20_000
    for fpr, shift, margin in ((0.05, 0.5, 0.16), (0.05, 0.5, 0.10), (0.05, 0.3, 0.105), (0.01, 0.5, 0.05)):
        tpr = float(ndtr(shift - ndtri(1 - fpr)))
        planned = 20_000 * tpr_growth(ndtri(levels) + shift, ndtri(levels), fpr, margin)
        sizes = planned * np.array([0.7, 0.85, 1.0, 1.2, 1.4])
        power = []
        for size in sizes:
            ends = [tpr_interval(*gaussian(rng, int(size), shift), fpr) for _ in range(5 * repeats)]
            power.append(np.mean([high < margin if tpr < margin else low > margin for low, high in ends]))
        slope, intercept = np.polyfit(np.log(sizes), ndtri(np.clip(power, 0.01, 0.99)), 1)
        needed = np.exp((ndtri(0.8) - intercept) / slope)
        print(
            f"| {fpr:g} | {tpr:.4f} | {margin:g} | {planned:,.0f} | {needed:,.0f} | {planned / needed:.2f} |",
            flush=True,
        )


@part
def compare(repeats):
    """Coverage of a difference of 0 and power of a change of 0.02 in TPR@5% at n = 20,000."""
    from mia_lightning.evaluation.comparison import differences, paired_bootstrap

    n, fpr = 20_000, 0.05
    member = (np.arange(n) % 2).astype(np.int8)
    print("\n| TPR@5% before, after | correlation | AUC covers | TPR@5% covers | change in TPR@5% found |")
    print("|---|---|---|---|---|")
    for correlation in (0.8, 0.95):
        for tpr, change in ((0.2, 0.0), (0.2, 0.02), (0.4, 0.02)):
            shifts = [float(ndtri(rate) + ndtri(1 - fpr)) for rate in (tpr, tpr - change)]
            aucs = [float(ndtr(shift / np.sqrt(2))) for shift in shifts]
            rows = []
            for seed in range(repeats):
                rng = np.random.default_rng([seed, *(round(100 * part) for part in (correlation, tpr, change))])
                common = rng.normal(size=n) * np.sqrt(correlation)
                noise = [rng.normal(size=n) * np.sqrt(1 - correlation) for _ in shifts]
                scores = [
                    common + noise_of_side + shift * member for noise_of_side, shift in zip(noise, shifts, strict=True)
                ]
                named = {"before": scores[0], "after": scores[1]}
                resampled = paired_bootstrap(named, member, (fpr,), resamples=200, seed=seed)
                auc, rate = differences(resampled, [("after", "before")])
                covers = auc.low <= aucs[1] - aucs[0] <= auc.high, rate.low <= -change <= rate.high
                rows.append((*covers, rate.high < 0))
            shares = np.array(rows).T
            figures = " | ".join(share(column) for column in shares)
            print(f"| {tpr}, {tpr - change:g} | {correlation} | {figures} |", flush=True)


@part
def one_run(repeats):
    """Bounds of one run on 2,000 records by three preset numbers of guesses, of the counts with ties, and validity."""
    from mia_lightning.evaluation.epsilon import exact_epsilon
    from mia_lightning.evaluation.one_run import PRESETS, one_run_epsilon
    from mia_lightning.evaluation.privacy import privacy_bounds
    from mia_lightning.metrics.ranks import split

    m, error = 2000, 0.05 / len(PRESETS)
    print("\n| scores | truth | one run, median | above truth | counts, median | counts without breaking ties |")
    print("|---|---|---|---|---|---|")
    for name, truth in (("bits", 1), ("bits", 4), ("bits", 8), ("Gaussian", 0)):
        rng, right, single, counts, tied = np.random.default_rng(truth), 1 / (1 + np.exp(-truth)), [], [], []

        def scores(member, rng=rng, right=right, name=name):
            answers = np.where(rng.random(member.shape) < right, member, 1 - member)
            return rng.normal(size=member.shape) if name == "Gaussian" else answers + 1e-3 * rng.random(member.shape)

        above, guesses = np.zeros(50 * repeats, bool), [int(m * part) for part in PRESETS]
        member = rng.integers(0, 2, (50 * repeats, m))
        ranked = np.take_along_axis(member, scores(member).argsort(axis=1), axis=1)
        for count in guesses:
            correct = ranked[:, m - count :].sum(axis=1) + count - ranked[:, :count].sum(axis=1)
            least, most = 0, 2 * count + 1  # the fewest correct guesses that refute the truth, by bisection
            while least < most:
                middle = (least + most) // 2
                refutes = middle > 2 * count or one_run_epsilon(m, 2 * count, middle, delta=0, error=error) > truth
                least, most = (least, middle) if refutes else (middle + 1, most)
            above |= correct >= least
        for seed in range(max(1, repeats // 2)):
            member = rng.integers(0, 2, m)
            values = scores(member) if name == "Gaussian" else scores(member).round()
            bounds = privacy_bounds("a", values, member, delta=0, one_run=OneRun(random_inclusion=True), seed=seed)
            single.append(bounds[1].epsilon or 0.0)  # refused where the coins came out too uneven
            counts.append(bounds[0].epsilon)
            tied.append(exact_epsilon(*split(values, member), delta=0, error=0.05))
        medians = [f"{np.median(values):.2f}" for values in (single, counts, tied)]
        print(f"| {name} | {truth} | {medians[0]} | {share(above)} | {medians[1]} | {medians[2]} |", flush=True)


@part
def dp_sgd(repeats):
    """Bounds of one run of DP-SGD (Opacus) at a known epsilon: a linear classifier on 300 orthogonal canaries."""
    import warnings

    import torch
    from opacus import PrivacyEngine
    from opacus.accountants.utils import get_noise_multiplier
    from torch.nn.functional import cross_entropy

    from mia_lightning.evaluation.privacy import privacy_bounds
    from mia_lightning.signals.functional import phi

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    canaries, delta = 300, 1e-5

    @cache
    def noise(epsilon, batches):
        target = {"target_epsilon": epsilon, "target_delta": delta, "accountant": "rdp"}
        return get_noise_multiplier(**target, sample_rate=1 / batches, epochs=10)

    print("\n| epsilon | seeds | above it: counts, Steinke, f-DP, Gaussian | largest bounds |\n|---|---|---|---|")
    for epsilon in (1.0, 8.0):
        bounds = []
        for seed in range(repeats):
            torch.manual_seed(seed)
            rng = np.random.default_rng(seed)
            images = torch.eye(canaries)
            labels, coins = torch.from_numpy(rng.integers(0, 2, canaries)), rng.integers(0, 2, canaries)
            data = torch.utils.data.TensorDataset(images[coins == 1], labels[coins == 1])
            network = torch.nn.Linear(canaries, 2)
            loader = torch.utils.data.DataLoader(data, batch_size=50)
            network, optimizer, loader = PrivacyEngine(accountant="rdp").make_private(
                module=network,
                optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
                data_loader=loader,
                noise_multiplier=noise(epsilon, len(loader)),
                max_grad_norm=1.0,
            )
            for _ in range(10):
                for batch, target in loader:
                    optimizer.zero_grad()
                    if len(batch):
                        cross_entropy(network(batch), target).backward()
                        optimizer.step()
            with torch.no_grad():
                scores = phi(network(images).numpy(), labels.numpy()).astype(np.float64)
            declared = OneRun(random_inclusion=True)
            of_seed = privacy_bounds("a", scores, coins, delta=delta, one_run=declared, seed=seed)
            bounds.append([bound.epsilon or 0.0 for bound in of_seed])
        above, largest = (np.array(bounds) > epsilon).sum(axis=0), np.max(bounds, axis=0)
        print(f"| {epsilon:g} | {repeats} | {above.tolist()} | {largest.round(2).tolist()} |", flush=True)


@part
def fraction(repeats):
    """Coverage and width of the share of an unlabeled set, at AUC 0.84 (equal shifts) and 0.78 (gamma shifts)."""
    from mia_lightning.evaluation.fraction import fraction_in_training

    n = 20_000
    member = np.arange(n) % 2

    def scores(rng, in_training, spread):
        shift = rng.gamma(1, 1.75, n) if spread else 1.4
        return rng.standard_t(8, n) + shift * in_training if spread else rng.normal(size=n) + shift * in_training

    print(
        "\n| scores | fraction | covered | mean width | mean estimate | fit rejected at 5% |\n|---|---|---|---|---|---|"
    )
    for spread in (False, True):
        for truth in (0, 0.1, 0.5, 0.9):
            rows = []
            for seed in range(2 * repeats):
                rng = np.random.default_rng([seed, int(10 * truth), spread])
                labeled, unlabeled = (scores(rng, side, spread) for side in (member, rng.random(n) < truth))
                row = fraction_in_training("a", unlabeled, labeled, member, seed=seed)
                rows.append((row.low <= truth <= row.high, row.high - row.low, row.value, row.fit_p_value < 0.05))
            covers, widths, values, misfits = np.array(rows).T
            name = "heterogeneous" if spread else "Gaussian"
            figures = f"{share(covers)} | {widths.mean():.4f} | {values.mean():.4f} | {share(misfits)}"
            print(f"| {name} | {truth} | {figures} |", flush=True)


@part
def planner(repeats):
    """Forecasts of the TPR at more references: LiRA of normal phi, records of six kinds, n = 20,000."""
    from mia_lightning.evaluation.assessment import CurvePoint
    from mia_lightning.metrics.ranks import threshold
    from mia_lightning.planning.plan import plan

    n, counts = 20_000, (2, 4, 8, 16, 32, 64)
    member = np.arange(n) % 2 == 1
    shifts = {  # of phi by membership, and the spread of its deviation over records
        "even": (lambda rng, level: np.ones(n), 0),
        "spread": (lambda rng, level: rng.gamma(1, 1, n), 0.4),
        "rare": (lambda rng, level: np.where(rng.random(n) < 0.15, 4.0, 0.3), 0.5),
        "by difficulty": (lambda rng, level: rng.gamma(0.5, 3, n) * np.exp(0.3 * level), 0.4),
        "offline": (lambda rng, level: rng.gamma(2, 0.7, n), 0.4),
        "strong": (lambda rng, level: rng.gamma(4, 0.7, n), 0.3),
    }

    def points(rng, kind, fpr):
        level, (draw, spread) = 2 * rng.normal(size=n), shifts[kind]
        shift, deviation = draw(rng, level), np.exp(spread * rng.normal(size=n))
        target = level + shift * member + deviation * rng.normal(size=n)
        sides = [center + deviation * rng.normal(size=(32, n)) for center in (level + shift, level)]
        for count in counts:
            firsts = [side[: count // 2] for side in sides]
            in_, out = (first.mean(axis=0) for first in firsts)
            squares, freedom = sum(((first - first.mean(axis=0)) ** 2).sum(axis=0) for first in firsts), count - 2
            variance = (squares + 4 * squares.mean() / freedom) / (freedom + 4) if freedom else np.ones(n)
            score = target - out if kind == "offline" else ((target - out) ** 2 - (target - in_) ** 2) / variance
            score = score / np.sqrt(variance) if kind == "offline" else score
            members, others = np.sort(score[member]), np.sort(score[~member])
            tpr = float((members > threshold(others, fpr)).mean())
            yield CurvePoint(count, 0.8, 0.8, 0.8, fpr, tpr, *tpr_interval(members, others, fpr))

    print("\n| FPR | from | to | covered, all kinds | least | widths | mean error |\n|---|---|---|---|---|---|---|")
    for fpr in (0.05, 0.01):
        curves = {
            kind: [list(points(np.random.default_rng([seed, len(kind)]), kind, fpr)) for seed in range(repeats)]
            for kind in shifts
        }
        for first, last in ((2, 8), (2, 16), (2, 64), (3, 16), (3, 64)):
            covered, widths, errors = [], [], []
            for of_kind in curves.values():
                rows = [(next(f for f in plan("a", c[:first]).forecasts if f.references == last), c) for c in of_kind]
                reached = [c[counts.index(last)].tpr for _, c in rows]
                covered.append([row.low <= tpr <= row.high for (row, _), tpr in zip(rows, reached, strict=True)])
                widths.append(np.mean([row.high - row.low for row, _ in rows]))
                errors.append(np.mean([row.tpr - tpr for (row, _), tpr in zip(rows, reached, strict=True)]))
            ends = f"{min(widths):.3f} to {max(widths):.3f} | {min(errors):+.3f} to {max(errors):+.3f}"
            least = share(min(covered, key=np.mean))
            print(f"| {fpr:g} | {counts[first - 1]} | {last} | {share(covered)} | {least} | {ends} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="parts to run (default: all)")
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        print(f"\n## {name}: {PARTS[name].__doc__}")
        PARTS[name](arguments.repeats)
