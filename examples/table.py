"""Audits of estimators on a table: python examples/table.py [FOLDER] [REFERENCES] [ESTIMATOR...]."""

import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mia_lightning import load_config
from mia_lightning.pipeline.audit import audit

TABLE = load_digits(as_frame=True).frame.rename(columns={"target": "label"})
MEMBER = np.random.default_rng(0).random(len(TABLE)) < 0.5


def fitted(estimator: ClassifierMixin) -> ClassifierMixin:
    """Return the estimator fitted on the members."""
    return estimator.fit(TABLE.drop(columns="label").to_numpy()[MEMBER], TABLE["label"][MEMBER])


def forest() -> ClassifierMixin:
    """Return a random forest of 30 trees."""
    return fitted(RandomForestClassifier(30, random_state=0))


def boosting() -> ClassifierMixin:
    """Return gradient boosting."""
    return fitted(HistGradientBoostingClassifier(max_iter=10, random_state=0))


def mlp() -> ClassifierMixin:
    """Return an MLP with one hidden layer."""
    return fitted(make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=60, random_state=0)))


def main(folder: Path, count: int, names: list[str]) -> None:
    """Audit each estimator with the shipped configuration `table`."""
    table, public = TABLE.assign(member=MEMBER.astype(int)), np.arange(len(TABLE)) % 2 == 0
    table[public].to_parquet(folder / "public.parquet")
    table[~public].to_parquet(folder / "private.parquet")
    data = {"public": str(folder / "public.parquet"), "private": str(folder / "private.parquet")}
    for name in names:
        target, references = {"architecture": f"table:{name}"}, {"count": count}
        config = load_config("table", data=data, target=target, references=references, output=str(folder / name))
        result = audit(config).attacks["rmia_threshold"]
        print(f"{name}: AUC [{result.public.auc_low:.3f}, {result.public.auc_high:.3f}],", end=" ")
        print(f"withheld [{result.private.auc_low:.3f}, {result.private.auc_high:.3f}]")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # where --target.architecture finds `table`
    given = dict(enumerate(sys.argv))
    main(Path(given.get(1) or mkdtemp()), int(given.get(2, 64)), sys.argv[3:] or ["forest", "boosting", "mlp"])
