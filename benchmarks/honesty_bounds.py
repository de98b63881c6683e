"""Lower bounds on epsilon by simulation: how often they are above the truth, and their tightness.

Rows are (promise, scenario, measured, standard error, nominal).

    python benchmarks/honesty.py --only epsilon
"""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.honesty_parts import Row, share
from mia_lightning.evaluation.config import OneRun
from mia_lightning.evaluation.one_run import gaussian_epsilon
from mia_lightning.evaluation.privacy import privacy_bounds

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Scores and memberships of one repetition."""

JAX_PRIVACY = {(500, 1.0): 1.01, (500, 2.0): 2.68, (2000, 1.0): 1.59, (2000, 2.0): 3.50}
"""Records a side and mu to the median of jax_privacy 2.0.0's best count-based bound on the same scores."""


def above_truth(scenario: int, repetitions: int, records: int = 1000, delta: float = 1e-5) -> Iterator[Row]:
    """Yield how often each bound is above the truth; that of a Gaussian mechanism is a bound for no other."""
    for name, draw, true in list(scenarios(records, delta))[scenario : scenario + 1]:
        bounds = []
        for repetition in range(repetitions):
            scores, member = draw(np.random.default_rng((6, repetition)))
            bounds.append(privacy_bounds("a", scores, member, delta=delta, seed=repetition, one_run=OneRun(True)))
        for index, bound in enumerate(bounds[0]):
            if "Gaussian" in bound.method and not name.startswith("Gaussian"):
                continue  # stated to be no bound there
            above = [(each[index].epsilon or 0.0) > true + 1e-9 for each in bounds]
            yield share(f"epsilon above truth: {bound.method}", f"{name}, {records:,} records", above, 0, 0.05)


def scenarios(records: int, delta: float) -> Iterator[tuple[str, Draw, float]]:
    """Yield name, draw and true epsilon of Gaussian mechanisms and of randomized response."""

    def gaussian(mu: float) -> Draw:
        def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            member = rng.integers(0, 2, records)
            return rng.normal(size=records) + mu * member, member

        return draw

    def response(epsilon: float) -> Draw:
        def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            member = rng.integers(0, 2, records)
            right = rng.random(records) < 1 / (1 + np.exp(-epsilon))
            return np.where(right, member, 1 - member).astype(float), member

        return draw

    for mu in (0.0, 1.0):
        yield f"Gaussian mechanism, mu {mu:g}", gaussian(mu), gaussian_epsilon(mu, delta)
    for epsilon in (0.5, 1.0, 3.0):
        yield f"randomized response, epsilon {epsilon:g}", response(epsilon), epsilon


def tightness(repetitions: int) -> Iterator[Row]:
    """Yield the median of the count-based bound, between jax_privacy's and the truth."""
    for (size, mu), rival in JAX_PRIVACY.items():
        bounds = []
        for repetition in range(repetitions if size == 500 else (repetitions + 1) // 2):
            rng = np.random.default_rng((21, size, round(10 * mu), repetition))
            member = rng.integers(0, 2, 2 * size)
            scores = rng.normal(size=2 * size) + mu * member
            bounds.append(privacy_bounds("a", scores, member, delta=1e-5, seed=repetition)[0].epsilon or 0.0)
        error = float(np.std(bounds, ddof=1) / np.sqrt(len(bounds)))
        name, median = f"Gaussian mechanism, mu {mu:g}, {size:,} a side", float(np.median(bounds))
        true = round(gaussian_epsilon(mu, 1e-5), 2)
        yield Row("epsilon from counts, median, at least jax_privacy's", name, median, error, rival, true)
