"""An audit of a function that returns labels alone, such as a hosted classifier.

python examples/label_only.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.tree import DecisionTreeClassifier

import mia_lightning
from mia_lightning.metrics import evaluate


def main(folder: Path | None) -> None:
    """Fit a tree on half of the digits with noisy labels; audit with half of all records, compare with the rest."""
    digits, rng = load_digits(), np.random.default_rng(0)
    inputs, labels = digits.images[:, None].astype(np.float32) / 16, digits.target.copy()
    noisy = rng.random(len(labels)) < 0.2
    labels[noisy] = rng.integers(0, 10, noisy.sum())
    member, known = (rng.random(len(labels)) < share for share in (0.5, 0.5))
    tree = DecisionTreeClassifier(random_state=0).fit(inputs[member].reshape(-1, 64), labels[member])

    def classify(batch: np.ndarray) -> np.ndarray:
        """Return the label of each image, all that the service returns."""
        return tree.predict(batch.reshape(len(batch), -1))

    members, non_members = ((inputs[rows], labels[rows]) for rows in (member & known, ~member & known))
    result = mia_lightning.audit(classify, members, non_members, unknown=(inputs[~known], labels[~known]))
    print(result)

    figures = result.table().loc["phi_threshold"]
    records = result.records()
    truth = evaluate(records.phi_threshold[records.part == "unknown"].to_numpy(), member[~known].astype(np.int8))
    print(f"AUC [{figures.auc_low:.3f}, {figures.auc_high:.3f}], withheld [{truth.auc_low:.3f}, {truth.auc_high:.3f}]")
    if folder is not None:
        print(f"report: {result.report(folder / 'audit.html').name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
