"""Contract of all attacks, and each attack against its formula."""

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from mia_lightning.attacks import Attack
from mia_lightning.attacks.attack_p import AttackP
from mia_lightning.attacks.fusion import Fusion
from mia_lightning.attacks.gaussian_ratio import GaussianLikelihoodRatio
from mia_lightning.attacks.learned import ClassScale, FeatureScaler, LearnedAttack
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.mlp import MLP
from mia_lightning.attacks.quantile import QuantileRegression, _tail_score
from mia_lightning.attacks.random_forest import RandomForest
from mia_lightning.attacks.threshold import Threshold
from mia_lightning.config.help import components
from mia_lightning.errors import MIAError
from mia_lightning.signals.table import SignalTable

ATTACKS = [
    Threshold(),
    AttackP(),
    GaussianLikelihoodRatio(),
    GaussianLikelihoodRatio(per_class=True),
    MLP(columns=["phi", "wide"], epochs=5, learning_rate=1e-2, hidden=[16], ensemble_size=2),
    RandomForest(columns=["phi", "wide"], n_estimators=50),
    LightGBM(columns=["phi", "wide"], n_estimators=30, learning_rate=0.1),
    Fusion(["phi", "other"]),
    QuantileRegression(column="phi", columns=["wide"], epochs=5, batch_size=100),
    QuantileRegression(column="phi", columns=["wide"], head="quantiles", epochs=5, batch_size=100),
]


def make(n: int = 1200, shift: float = 1.5, seed: int = 0) -> tuple[SignalTable, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = rng.integers(0, 2, n).astype(np.int8)
    columns = {
        "phi": rng.normal(size=n) + shift * member,
        "other": rng.normal(size=n) + shift * member,
        "wide": rng.normal(size=(n, 4)).astype(np.float32),
    }
    return SignalTable(columns, rng.integers(0, 4, n), 4), member


def added() -> list[Attack]:
    """Return an instance of each attack that is not listed above: by its `example()`, else with default options."""
    listed = {type(attack) for attack in ATTACKS}
    kinds = [k for k in components(Attack) if k.__module__.startswith("mia_lightning.") and k not in listed]
    return [getattr(kind, "example", kind)() for kind in kinds]


LISTED = len(ATTACKS)
ATTACKS += added()


def with_required(attack: Attack, table: SignalTable, member: np.ndarray) -> SignalTable:
    """Return the table with a column for each signal that an added attack names and the table lacks."""
    rng = np.random.default_rng(9)
    missing = {name for name in attack.required_columns() if not set(name) & set("*?[") and name not in table.columns}
    return table.with_columns({name: rng.normal(size=len(table)) + 1.5 * member for name in sorted(missing)})


def test_every_attack_is_under_contract():
    ours = {kind for kind in components(Attack) if kind.__module__.startswith("mia_lightning.")}
    assert {type(attack) for attack in ATTACKS} == ours


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_contract(attack):
    table, member = make()
    new, new_member = make(seed=1)
    table, new = with_required(attack, table, member), with_required(attack, new, new_member)
    scores = attack.fit(table, member, seed=3).score(new)
    assert scores.shape == (len(new),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    listed = any(attack is reference for reference in ATTACKS[:LISTED])
    assert roc_auc_score(new_member, scores) > (0.8 if listed else 0.4)  # two normal distributions 1.5 apart: 0.856
    order = np.random.default_rng(0).permutation(len(new))
    np.testing.assert_allclose(attack.score(new.rows(order)), scores[order], rtol=1e-4, atol=1e-5)
    again = attack.fit(table, member, seed=3).score(new)
    assert (again == scores).all(), "the same seed must give the same scores"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_permuted_membership_gives_chance(attack):
    table, _ = make(n=2000)
    rng = np.random.default_rng(5)
    permuted = rng.permutation(np.repeat([0, 1], 1000)).astype(np.int8)
    table = with_required(attack, table, np.zeros(2000))
    rows = np.arange(2000) < 1000
    scores = attack.fit(table.rows(rows), permuted[rows], seed=0).score(table.rows(~rows))
    assert abs(roc_auc_score(permuted[~rows], scores) - 0.5) < 4 * np.sqrt(1001 / (12 * 500 * 500))


def test_threshold_negates_a_loss():
    table, _ = make(n=10)
    np.testing.assert_array_equal(Threshold(higher_is_member=False).score(table), -Threshold().score(table))


def test_gaussian_ratio_equals_scipy():
    table, member = make()
    scores = GaussianLikelihoodRatio().fit(table, member).score(table)
    phi = table.columns["phi"]
    members, non_members = (stats.norm(phi[member == side].mean(), phi[member == side].std()) for side in (1, 0))
    np.testing.assert_allclose(scores, members.logpdf(phi) - non_members.logpdf(phi), atol=1e-9)


def test_gaussian_ratio_per_class_equals_one_fit_per_class():
    table, member = make()
    scores = GaussianLikelihoodRatio(per_class=True, shrinkage=0).fit(table, member).score(table)
    for label in range(4):
        rows = table.labels == label
        alone = GaussianLikelihoodRatio().fit(table.rows(rows), member[rows]).score(table.rows(rows))
        np.testing.assert_allclose(scores[rows], alone, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 20.0])
def test_class_with_one_member_and_class_never_seen(shrinkage):
    table, member = make(n=200)
    labels = np.where(np.arange(200) == np.flatnonzero(member)[0], 2, np.arange(200) % 2)
    fit = SignalTable(table.columns, labels, 4)
    new = SignalTable(table.columns, np.full(200, 3), 4)  # class 3 was never fitted on
    for attack in (GaussianLikelihoodRatio(per_class=True, shrinkage=shrinkage), AttackP(shrinkage=shrinkage)):
        attack.fit(fit, member)
        assert np.isfinite(attack.score(fit)).all()
        assert np.isfinite(attack.score(new)).all()


def test_class_pvalue_equals_counting():
    table, member = make(n=300)
    scores = AttackP(shrinkage=0).fit(table, member).score(table)
    phi, out = table.columns["phi"], member == 0
    for row in np.flatnonzero(out)[:50]:  # at a known non-member the p-value needs no interpolation
        non_members = phi[out & (table.labels == table.labels[row])]
        assert scores[row] == pytest.approx(-np.log((1 + (non_members >= phi[row]).sum()) / (1 + len(non_members))))


def test_class_pvalue_of_a_non_member_is_uniform():
    rng = np.random.default_rng(0)
    calibration, fresh = (SignalTable({"phi": rng.normal(size=4000)}, rng.integers(0, 2, 4000), 2) for _ in range(2))
    attack = AttackP(shrinkage=0).fit(calibration, np.zeros(4000, dtype=np.int8))
    # two empirical distributions of about 2,000 each: their distance exceeds 0.062 once in a thousand times
    assert stats.kstest(np.exp(-attack.score(fresh)), "uniform").statistic < 0.062


def test_class_pvalue_over_all_non_members_is_attack_p():
    table, member = make()
    scores = AttackP(per_class=False).fit(table, member).score(table)
    non_members = table.columns["phi"][member == 0]
    counted = [(1 + (non_members >= value).sum()) / (len(non_members) + 1) for value in non_members]
    np.testing.assert_allclose(np.exp(-scores[member == 0]), counted)


def difficult(n: int, seed: int) -> tuple[SignalTable, np.ndarray, np.ndarray]:
    """A signal whose center and spread follow what describes the record; returns the z-score of a non-member, too."""
    rng = np.random.default_rng(seed)
    member, x = rng.integers(0, 2, n).astype(np.int8), rng.normal(size=(n, 2))
    center, spread = 3 * x[:, 0], np.exp(0.7 * x[:, 1])
    phi = center + spread * (rng.normal(size=n) + 1.5 * member)
    return SignalTable({"phi": phi, "x": x}, np.zeros(n, np.int64), 1), member, (phi - center) / spread


@pytest.mark.parametrize(
    "attack",
    [QuantileRegression(), QuantileRegression(head="quantiles")],
    ids=lambda attack: f"{type(attack).__name__}-{getattr(attack, 'head', '')}",
)
def test_conditional_attacks_recover_the_distribution(attack):
    table, member, _ = difficult(8000, seed=0)
    new, new_member, z = difficult(4000, seed=1)
    attack.column, attack.columns = "phi", ["x"]
    scores = attack.fit(table, member).score(new)
    # one threshold on the z-score is the best there is: two normal distributions 1.5 apart, AUC 0.856
    assert roc_auc_score(new_member, scores) > roc_auc_score(new_member, z) - 0.015
    assert roc_auc_score(new_member, new.columns["phi"]) < 0.75
    assert len(np.unique(scores)) == len(scores)


def test_quantile_regression_scores_are_calibrated():
    table, member, _ = difficult(8000, seed=0)
    new, new_member, _ = difficult(20_000, seed=1)
    attack = QuantileRegression(column="phi", columns=["x"], head="quantiles").fit(table, member)
    scores = attack.score(new)[new_member == 0]
    for level in (0.1, 0.03):
        assert (scores > -np.log10(level)).mean() == pytest.approx(level, rel=0.3)


def test_tail_score_is_numpys_interpolation_within_the_quantiles():
    rng = np.random.default_rng(0)
    quantiles, heights = np.sort(rng.normal(size=(50, 7)), axis=1), np.arange(7.0) ** 2
    signal = quantiles[:, 0] + rng.random(50) * np.ptp(quantiles, axis=1)
    expected = [np.interp(s, q, heights) for s, q in zip(signal, quantiles, strict=True)]
    np.testing.assert_allclose(_tail_score(signal, quantiles, heights), expected)


def test_fusion_is_the_mean_normal_score():
    table, _ = make(n=101)
    scores = Fusion(["phi", "other"]).score(table)
    ranks = [stats.rankdata(table.columns[name]) for name in ("phi", "other")]
    np.testing.assert_allclose(scores, np.mean([stats.norm.ppf((rank - 0.5) / 101) for rank in ranks], axis=0))


def test_fusion_ignores_the_scale_of_its_members():
    table, _ = make(n=100)
    stretched = table.with_columns({"phi": np.exp(3 * table.columns["phi"])})
    np.testing.assert_array_equal(Fusion(["phi", "other"]).score(table), Fusion(["phi", "other"]).score(stretched))


def test_inputs_are_standardised_on_the_fitting_rows_only():
    table, _ = make()
    attack = LearnedAttack(columns=["phi", "wide"], class_one_hot=True)
    inputs = FeatureScaler(attack, table)
    matrix = inputs(table)
    assert matrix.shape == (len(table), 5 + 4)
    np.testing.assert_allclose(matrix.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(matrix.std(axis=0), 1, atol=1e-3)
    shifted = table.with_columns({"phi": table.columns["phi"] + 1})
    np.testing.assert_allclose(inputs(shifted)[:, 0] - matrix[:, 0], 1 / table.columns["phi"].std(), rtol=1e-3)


def test_inputs_survive_a_constant_column():
    table, _ = make(n=50)
    constant = table.with_columns({"phi": np.full(50, 3.0)})
    assert (FeatureScaler(LearnedAttack(columns=["phi"]), constant)(constant) == 0).all()


def test_components_equal_scikit_learn():
    table, _ = make()
    got = FeatureScaler(LearnedAttack(columns=[], components={"wide": 2}), table)(table)
    expected = PCA(2).fit_transform(table.columns["wide"])
    for axis in range(2):
        assert abs(np.corrcoef(got[:, axis], expected[:, axis])[0, 1]) > 0.9999


def test_class_scale_centres_every_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 30_000)
    values = (rng.normal(size=(30_000, 2)) * 2 + labels[:, None] * 5).astype(np.float32)
    scaled = ClassScale.fit(values, labels, 3)(values, labels)
    for label in range(3):
        np.testing.assert_allclose(scaled[labels == label].mean(axis=0), 0, atol=0.02)
        np.testing.assert_allclose(scaled[labels == label].std(axis=0), 1, atol=0.02)


def test_stacked_networks_learn_as_if_alone():
    """The summed loss gives each network the gradient it would have alone."""
    import torch

    from mia_lightning.attacks._mlp_training import Perceptrons

    torch.manual_seed(0)
    stacked = Perceptrons(MLP(ensemble_size=3, hidden=[8]), inputs=5, steps=1)
    inputs, member = torch.randn(3, 20, 5), torch.randint(0, 2, (3, 20)).float()
    stacked.training_step((inputs, member), 0).backward()
    for k in range(3):
        first, second = (layer for layer in stacked.layers if hasattr(layer, "weight"))
        weights = [
            p[k].detach().clone().requires_grad_() for p in (first.weight, first.bias, second.weight, second.bias)
        ]
        hidden = torch.relu(inputs[k] @ weights[0] + weights[1])
        logits = (hidden @ weights[2] + weights[3]).squeeze(1)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, member[k]).backward()
        for parameter, alone in zip((first.weight, first.bias, second.weight, second.bias), weights, strict=True):
            torch.testing.assert_close(parameter.grad[k], alone.grad)


def test_forest_has_few_ties():
    table, member = make(n=3000)
    scores = RandomForest(columns=["phi", "wide"], n_estimators=100).fit(table, member).score(table)
    assert len(np.unique(scores)) > 2500


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: AttackP(shrinkage=-1), "shrinkage must be 0 or more"),
        (lambda: MLP(hidden=[]), "hidden must hold widths"),
        (lambda: MLP(learning_rate=0), "learning_rate must be above 0"),
        (lambda: Fusion([]), "at least one earlier attack"),
        (lambda: QuantileRegression(column="phi", columns=["phi*"]), "hold the compared signal 'phi' itself"),
    ],
)
def test_bad_options_are_named(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_unknown_and_wide_columns_are_named():
    table, _ = make(n=20)
    with pytest.raises(MIAError, match="did you mean 'phi'"):
        Threshold("phii").score(table)
    with pytest.raises(MIAError, match="4 values per record"):
        Threshold("wide").score(table)
