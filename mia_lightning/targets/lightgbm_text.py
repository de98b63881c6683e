"""LightGBM models in their text form (`booster.save_model`) as estimators.

LightGBM follows the numbers of such a file unchecked, so that only what the checks here have seen is given to it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from mia_lightning.errors import MIAError, reason
from mia_lightning.security.open import open_regular

LARGEST = 2**30
"""Bytes of a model."""

MOST_CLASSES = 10_000

HEADER = ("num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "feature_names",
          "feature_infos")  # fmt: skip

OBJECTIVE = re.compile(r"(binary|multiclass|multiclassova|cross_entropy|xentropy)( num_class:\d+| sigmoid:[\d.e+-]+)*")

TRAINING = re.compile(
    r"^\[(boosting|learning_rate|num_leaves|max_depth|max_bin|min_data\w*|min_sum\w*|min_gain\w*|lambda_l.|cat_\w+"
    r"|\w+_fraction|feature_fraction_bynode|bagging_freq|max_cat\w+|path_smooth|extra_trees|is_unbalance"
    r"|scale_pos_weight|drop_rate|top_rate|other_rate): (\S+)\]$",
    re.MULTILINE,
)
"""Parameters that references are trained with; none names a file."""


class BoosterClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """A LightGBM model as a classifier of scikit-learn's interface.

    Args:
        model: Its checked text.
        training: Parameters, number of iterations and categorical columns of its training.
        categories: Categories of its columns of pandas' dtype `category`, in their order.
        random_state: Seed of `fit`.
    """

    def __init__(self, model: str, training: Any, categories: Any = None, random_state: int = 0) -> None:
        self.model, self.training, self.categories, self.random_state = model, training, categories, random_state

    @property
    def classes_(self) -> NDArray[np.int64]:
        """(C,) 0, 1, ...: the file has no names of classes."""
        return np.arange(max(2, int(self.training["params"]["num_class"])))

    @property
    def feature_names_in_(self) -> NDArray[np.str_]:
        """Names of its columns; AttributeError where it was trained on an array."""
        if all(re.fullmatch(r"Column_\d+", name) for name in self.training["names"]):
            raise AttributeError("feature_names_in_")
        return np.array(self.training["names"])

    def fit(self, inputs: Any, labels: NDArray[np.int64]) -> BoosterClassifier:
        """Train another model with the same parameters."""
        import lightgbm

        columns = self.training["categorical"]
        data = lightgbm.Dataset(
            self._typed(inputs), labels, categorical_feature="auto" if self.categories else columns or "auto"
        )
        params = {**self.training["params"], "seed": self.random_state, "verbosity": -1, "num_threads": 1}
        self._booster = lightgbm.train(params, data, self.training["iterations"])
        return self

    def predict_proba(self, inputs: Any) -> NDArray[np.float64]:
        """Return probabilities (N, C)."""
        values = np.asarray(self._booster.predict(self._typed(inputs), num_threads=1))
        return np.stack([1 - values, values], axis=1) if values.ndim == 1 else values

    def predict(self, inputs: Any) -> NDArray[np.int64]:
        """Return classes (N,)."""
        return np.asarray(self.predict_proba(inputs).argmax(axis=1))

    def _typed(self, inputs: Any) -> Any:
        """Return a DataFrame with the categories of the training."""
        import pandas as pd

        if not self.categories:
            return inputs
        names = [self.training["names"][index] for index in self.training["categorical"]]
        pairs = zip(names, self.categories, strict=True)
        return inputs.astype({name: pd.CategoricalDtype(values) for name, values in pairs})


def load_model(path: Path) -> BoosterClassifier:
    """Return the classifier in a file.

    Raises:
        MIAError: it is damaged, no classifier, or has linear trees.
    """
    import lightgbm

    with open_regular(path) as file:
        content = file.read(LARGEST)
    try:
        classifier = _classifier(content.decode().replace("\r\n", "\n"), path.name)
        classifier._booster = lightgbm.Booster(model_str=classifier.model)
        return classifier
    except (
        *(ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError),
        lightgbm.basic.LightGBMError,
    ) as error:
        raise MIAError(
            f"{path.name}: is a LightGBM model that is cut short or damaged ({reason(error, 80)}); save it again by "
            "booster.save_model(PATH)"
        ) from None


def _classifier(text: str, source: str) -> BoosterClassifier:
    head, trees, tail = re.fullmatch(r"(.*?)\n\n(.*?)\nend of trees\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    header = _fields(head)
    if not OBJECTIVE.fullmatch(header["objective"]):
        objective = header["objective"].split()[0][:40]
        raise MIAError(f"{source}: is a LightGBM model of objective {objective}; only classifiers are audited")
    names, ranges = header["feature_names"].split(" "), header["feature_infos"].split(" ")
    last = int(header["max_feature_idx"])
    each, classes = int(header["num_tree_per_iteration"]), int(header["num_class"])
    blocks = [_fields(block) for block in trees.split("\n\n") if block.strip()]
    is_multi = header["objective"].startswith("multiclass")
    if not (is_multi <= (f"num_class:{classes}" in header["objective"].split()) and each == classes <= MOST_CLASSES):
        raise ValueError("numbers of classes differ")
    if len(blocks) % each or not blocks or not len({*names, ""}) - 1 == len(list(filter(None, ranges))) == last + 1:
        raise ValueError("trees or names are missing")
    average = "average_output\n" if "\naverage_output\n" in f"{head}\n" else ""
    checked = "\n\n".join(_tree(number, block, last) for number, block in enumerate(blocks))
    kept = "\n".join(f"{key}={header[key]}" for key in HEADER)
    given = TRAINING.findall(tail)
    params: dict[str, Any] = {k: v == "1" if k in ("extra_trees", "is_unbalance") else v for k, v in given}
    objective, *options = header["objective"].split()
    params |= {"objective": objective, "num_class": classes, **dict(option.split(":") for option in options)}
    match = re.search(r"^\[categorical_feature: ([\d,]+)\]$", tail, re.MULTILINE)
    columns = [int(column) for column in match[1].split(",")] if match else []
    categories = json.loads((re.search(r"^pandas_categorical:(.*)$", tail, re.MULTILINE) or ["", "null"])[1]) or None
    if any(column > last for column in columns) or (categories and len(categories) != len(columns)):
        raise ValueError("columns of categories differ")
    training = {"params": params, "iterations": len(blocks) // each, "categorical": columns, "names": names}
    end = f"end of trees\n\npandas_categorical:{json.dumps(categories)}\n"
    return BoosterClassifier(f"tree\nversion=v4\n{kept}\n{average}\n{checked}\n\n\n{end}", training, categories)


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(number: int, fields: dict[str, str], last: int) -> str:
    """Return the text of a tree whose numbers lead nowhere outside of it; ValueError otherwise."""
    leaves, categorical = int(fields["num_leaves"]), int(fields["num_cat"])
    if fields.get("is_linear", "0") != "0":
        raise ValueError("linear trees are not read")

    def numbers(key: str, count: int, low: float = -np.inf, high: float = np.inf) -> NDArray[np.float64]:
        values = np.array(fields.get(key, "").split(), np.float64)
        if len(values) != count or not ((values >= low) & (values <= high)).all():
            raise ValueError(f"{key} of tree {number}")
        return values

    nodes = leaves - 1
    numbers("leaf_value", leaves)
    keys = ["num_leaves", "num_cat", "leaf_value", "shrinkage"]
    numbers("shrinkage", 1)
    if nodes:
        keys += ["split_feature", "threshold", "decision_type", "left_child", "right_child"]
        numbers("split_feature", nodes, 0, last)
        kinds = numbers("decision_type", nodes, 0, 127).astype(np.int64)
        places = numbers("threshold", nodes)[kinds & 1 == 1]
        if ((places < 0) | (places >= categorical)).any():
            raise ValueError(f"threshold of tree {number}")
        for key in ("left_child", "right_child"):
            children = numbers(key, nodes, -leaves, nodes - 1)
            if ((children >= 0) & (children <= np.arange(nodes))).any():  # a child precedes its parent
                raise ValueError(f"{key} of tree {number}")
    if categorical:
        keys += ["cat_boundaries", "cat_threshold"]
        bounds = numbers("cat_boundaries", categorical + 1, 0)
        numbers("cat_threshold", int(bounds[-1]), 0, 2**32 - 1)
        if bounds[0] or (np.diff(bounds) < 0).any():
            raise ValueError(f"cat_boundaries of tree {number}")
    return f"Tree={number}\n" + "\n".join(f"{key}={fields[key]}" for key in keys) + "\nis_linear=0"
