"""False-positive rate of the blind baseline, and the reason for its p-values with twice the variance.

    python benchmarks/blind.py [--sets 400] [--sizes 300 1500]

Data sets have random labels, covariates and memberships. For each size it prints the share of sets with a warning, the
share with p-values for independent scores, and the variance of the AUC's deviation in units of DeLong's.
"""

import argparse
import json

import numpy as np

from mia_lightning.evaluation.blind_baseline import (
    BLIND_LEVEL,
    blind_features,
    blind_scores,
    chance_p_values,
    of_doubled_variance,
)
from mia_lightning.evaluation.comparison import comparable_rates
from mia_lightning.metrics.roc import evaluate
from mia_lightning.scores.scored_records import ScoredRecords


def one(size, seed):
    rng = np.random.default_rng(seed)
    member = rng.integers(0, 2, size).astype(np.int8)
    columns = {str(number): rng.normal(size=size) for number in range(20)}
    labels = rng.integers(0, 10, size)
    records = ScoredRecords(np.arange(size), member, {"none": np.zeros(size)}, labels, "simulated")
    groups = blind_features(records, columns=columns)
    scores = blind_scores(np.concatenate(list(groups.values()), axis=1), member, folds=5, seed=0)
    evaluation = evaluate(scores, member, comparable_rates((0.01, 0.05), int((member == 0).sum())))
    independent = chance_p_values(evaluation)
    warned = [
        min(p_values) * len(p_values) < BLIND_LEVEL
        for p_values in ([of_doubled_variance(p) for p in independent], independent)
    ]
    return *warned, (evaluation.auc - 0.5) / evaluation.auc_standard_error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--sizes", type=int, nargs="+", default=(300, 1500))
    options = parser.parse_args()
    for size in options.sizes:
        warned, independent, deviations = zip(*(one(size, seed) for seed in range(options.sets)), strict=True)
        figures = {
            "records": size,
            "sets": options.sets,
            "aimed at": BLIND_LEVEL,
            "warned": float(np.mean(warned)),
            "would warn with p-values for independent scores": float(np.mean(independent)),
            "variance of the AUC over DeLong's": float(np.var(deviations)),
        }
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
