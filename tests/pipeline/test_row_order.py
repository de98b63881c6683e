"""A sorted and a shuffled copy of one file lead to the same figures and the same verdict."""

import json

import numpy as np
import pytest

from mia_lightning.cli import train

ATTACKS = """
attacks:
  phi_threshold: {class_path: Threshold}
  ratio: {class_path: GaussianLikelihoodRatio, init_args: {per_class: true}}
  mlp: {class_path: MLP, init_args: {hidden: [8], epochs: 3, batch_size: 50}}
  lightgbm: {class_path: LightGBM, init_args: {n_estimators: 10, min_child_samples: 20}}
  fusion: {class_path: Fusion, init_args: {members: [mlp, lightgbm]}}
evaluation: {holdout: 0.2}
"""


@pytest.fixture(scope="module")
def digits():
    """Images, labels and membership of 400 digits as the demo's target was trained, sorted by membership."""
    from mia_lightning.records.readers.digits import read

    records = read("digits:public")
    order = np.concatenate([np.flatnonzero(records.membership == side)[:200] for side in (1, 0)])
    return records.images[order], records.labels[order], records.membership[order]


def run(folder, name, images, labels, membership):
    np.savez(folder / f"{name}.npz", images=images, labels=labels, membership=membership)
    (folder / "attacks.yaml").write_text(ATTACKS)
    arguments = ["--config", str(folder / "attacks.yaml"), "--data.public", str(folder / f"{name}.npz")]
    arguments += ["--data.mean", "[0.31]", "--data.std", "[0.37]", "--output", str(folder / name)]
    arguments += ["--target.architecture", "mia_lightning.targets.demo:digits_target", "--hardware.accelerator", "cpu"]
    assert train(arguments) == 0
    return json.loads((folder / name / "metrics.json").read_text())


@pytest.mark.slow
def test_row_order_decides_nothing(tmp_path, digits):
    shuffle = np.random.default_rng(0).permutation(len(digits[0]))
    by_membership = run(tmp_path, "sorted", *digits)
    shuffled = run(tmp_path, "shuffled", *(values[shuffle] for values in digits))
    assert by_membership["verdict"]["level"] == shuffled["verdict"]["level"]
    assert by_membership["verdict"]["sentences"] == shuffled["verdict"]["sentences"]
    for part in ("attacks", "held_out"):
        first, second = (m["attacks"] if part == "attacks" else m["run"][part] for m in (by_membership, shuffled))
        for attack in first:
            for figure in ("auc", "auc_low", "auc_high", "partial_auc"):
                assert first[attack][figure] == pytest.approx(second[attack][figure], abs=1e-6), (part, attack, figure)
