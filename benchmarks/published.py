"""LiRA on a table compared with SACRO-ML's and LeakPro's, by their published formulas on shadow models of their scheme.

Usage: python benchmarks/published.py [--models 64]

scikit-learn's digits, half of them members. The formulas are written from the projects' documentation and sources:
SACRO-ML's LIRAAttack (shadow models on random subsets of the target's size; a normal density per record and side, with
ddof 0; offline, its default, the probability that a non-member has a lower phi; p clipped to 1e-16), LeakPro's LiRA
(online the same from 64 models on, with p + 1e-45), and SACRO-ML's WorstCaseAttack (a random forest on sorted
probabilities, ten splits, no reference models).
"""

import argparse
import time

import numpy as np
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mia_lightning import audit
from mia_lightning.metrics import evaluate

FPRS = (0.01, 0.05)

ESTIMATORS = {
    "forest": RandomForestClassifier(30, random_state=0),
    "MLP": make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=30, random_state=0)),
}


def phi_of(model, inputs, labels, floor):
    p = model.predict_proba(inputs)[np.arange(len(labels)), labels].astype(np.float64)
    return np.log(np.maximum(p, floor)) - np.log(np.maximum(1 - p, floor))


def shadows(estimator, inputs, labels, members, count):
    """Return models on random subsets of the target's size, and which records each was trained on."""
    models, keep = [], np.zeros((count, len(labels)), bool)
    for number in range(count):
        rows = np.random.default_rng(number).choice(len(labels), members, replace=False)
        keep[number, rows] = True
        model = clone(estimator)
        states = [key for key in model.get_params() if key.split("__")[-1] == "random_state"]
        model.set_params(**dict.fromkeys(states, number + 1))  # the target's seed would be no attacker's
        models.append(model.fit(inputs[rows], labels[rows]))
    return models, keep


def moments(phi, mask, epsilon):
    shown = np.where(mask, phi, np.nan)
    return np.nanmean(shown, axis=0), np.nanstd(shown, axis=0) + epsilon


def online(target, phi, keep, epsilon):
    """Return log p(phi | IN) - log p(phi | OUT)."""
    return norm.logpdf(target, *moments(phi, keep, epsilon)) - norm.logpdf(target, *moments(phi, ~keep, epsilon))


def worst_case(probabilities, member):
    """Return the mean AUC of ten random forests on the sorted probabilities of held-out fifths."""
    features, figures = -np.sort(-probabilities, axis=1), []
    for seed in range(10):
        parts = train_test_split(features, member, test_size=0.2, stratify=member, random_state=seed)
        forest = RandomForestClassifier(min_samples_split=20, min_samples_leaf=10, max_depth=5, random_state=seed)
        figures.append(roc_auc_score(parts[3], forest.fit(parts[0], parts[2]).predict_proba(parts[1])[:, 1]))
    return float(np.mean(figures)), float(np.std(figures) / np.sqrt(10))


def ours(model, sides, models):
    """Return our figures by attack, and phi of target and references with their training records."""
    scores = {
        "online": {"class_path": "LiRA", "init_args": {"variance": "per_sample", "shrink_shift": False}},
        "offline": {"class_path": "LiRA", "init_args": {"variance": "per_sample", "mode": "offline"}},
        "default": {"class_path": "LiRA"},
    }
    attacks = {f"{name} LiRA": {"class_path": "Threshold", "init_args": {"column": name}} for name in scores}
    result = audit(model, *sides, references={"count": models, "scores": scores}, attacks=attacks)
    outputs = result.result.reference_outputs
    return {name: attack.public for name, attack in result.attacks.items()}, outputs


def shown(figures):
    rates = [f"{point.tpr:.3f} ({point.low:.3f}-{point.high:.3f})" for point in figures.points if point.fpr >= 0.01]
    return f"{figures.auc:.3f} ({figures.auc_low:.3f}-{figures.auc_high:.3f}) | " + " | ".join(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=int, default=64)
    count = parser.parse_args().models
    inputs, labels = load_digits(return_X_y=True)
    member = np.random.default_rng(0).random(len(labels)) < 0.5
    order = np.argsort(~member, kind="stable")
    inputs, labels, member = inputs[order], labels[order], member[order]
    truth = member.astype(np.int8)
    print("| target | attack | AUC | TPR at 1% | TPR at 5% |\n|---|---|---:|---:|---:|")
    for name, estimator in ESTIMATORS.items():
        model = clone(estimator).fit(inputs[member], labels[member])
        started = time.process_time()
        models, keep = shadows(estimator, inputs, labels, int(member.sum()), count)
        theirs = {}
        for project, floor, epsilon in (("SACRO-ML", 1e-16, 1e-16), ("LeakPro", 1e-45, 1e-30)):
            phi = np.stack([phi_of(shadow, inputs, labels, floor) for shadow in models])
            target = phi_of(model, inputs, labels, floor)
            theirs[f"{project} online"] = online(target, phi, keep, epsilon)
            theirs[f"{project} offline"] = norm.logcdf(target, *moments(phi, ~keep, epsilon))
        seconds = time.process_time() - started
        for attack, scores in theirs.items():
            print(f"| {name} | {attack} | {shown(evaluate(scores, truth, FPRS))} |")
        started = time.process_time()
        figures, outputs = ours(model, ((inputs[member], labels[member]), (inputs[~member], labels[~member])), count)
        for attack, evaluation in figures.items():
            print(f"| {name} | ours, {attack} | {shown(evaluation)} |")
        same = evaluate(online(outputs.target[:, 0], outputs.references[..., 0], outputs.keep, 1e-16), truth, FPRS)
        print(f"| {name} | SACRO-ML's online formula on our references | {shown(same)} |")
        mean, error = worst_case(model.predict_proba(inputs), truth)
        print(f"| {name} | SACRO-ML worst case | {mean:.3f} (s.e. {error:.3f}) | | |")
        print(f"CPU seconds: theirs {seconds:.1f}, ours {time.process_time() - started:.1f}\n")


if __name__ == "__main__":
    main()
