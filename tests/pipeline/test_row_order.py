"""A sorted and a shuffled copy of one file lead to the same figures and the same verdict."""

import numpy as np
import pytest

from mia_lightning import load_config
from mia_lightning.pipeline.audit import attack_target, prepare
from mia_lightning.pipeline.run_report import assess_result, report_of
from mia_lightning.report.verdict import verdict

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
    """Return verdict and figures of a run, without its files."""
    np.savez(folder / f"{name}.npz", images=images, labels=labels, membership=membership)
    (folder / "attacks.yaml").write_text(ATTACKS)
    config = load_config(
        folder / "attacks.yaml",
        data={"public": str(folder / f"{name}.npz"), "mean": [0.31], "std": [0.37]},
        target={"architecture": "mia_lightning.targets.demo:digits_target"},
        hardware={"accelerator": "cpu"},
        output=str(folder / name),
    )
    prepared = prepare(config)
    result = attack_target(config, prepared)
    report = report_of(result, prepared, assess_result(result, prepared), 0.0)
    return verdict(report), {"attacks": report.assessment.attacks, "held out": report.run.held_out}


@pytest.mark.slow
def test_row_order_decides_nothing(tmp_path, digits):
    shuffle = np.random.default_rng(0).permutation(len(digits[0]))
    (verdict_sorted, by_membership), (verdict_shuffled, shuffled) = (
        run(tmp_path, "sorted", *digits),
        run(tmp_path, "shuffled", *(values[shuffle] for values in digits)),
    )
    assert verdict_sorted.level == verdict_shuffled.level
    assert verdict_sorted.sentences == verdict_shuffled.sentences
    for part, first in by_membership.items():
        assert set(first) == {"phi_threshold", "ratio", "mlp", "lightgbm", "fusion"}
        for attack, evaluation in first.items():
            for figure in ("auc", "auc_low", "auc_high", "partial_auc"):
                other = getattr(shuffled[part][attack], figure)
                assert getattr(evaluation, figure) == pytest.approx(other, abs=1e-6), (part, attack, figure)
