"""Estimators as targets: scikit-learn, LightGBM, XGBoost and anything with `predict_proba`."""

from __future__ import annotations

import importlib
import inspect
import warnings
import zipfile
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.features import Features
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.runtime.extras import require
from mia_lightning.security.archives import check_list, check_zip, is_zip
from mia_lightning.security.open import open_regular
from mia_lightning.targets.callables import FunctionNetwork, as_array, stacked_outputs
from mia_lightning.targets.imported import first_line

SCHEMA = "schema.json"
"""Member of every .skops archive."""


class EstimatorNetwork(FunctionNetwork):
    """A classifier with `predict_proba` as a network: inputs (B, ...) to probabilities (B, classes).

    Args:
        estimator: Fitted, except for references before `fit`.
        labels: Label of each class as the estimator has it; None: `estimator.classes_`. A class that an estimator was
            not fitted on has probability 0.

    Raises:
        MIAError: no `predict_proba` or no `classes_`; (forward) probabilities that are not one row per record.
    """

    def __init__(self, estimator: Any, labels: NDArray[Any] | None = None) -> None:
        self.estimator, name = estimator, type(estimator).__name__
        if not callable(getattr(estimator, "predict_proba", None)):
            refuse_regressor(estimator)
            raise MIAError(
                f"the {name} has no predict_proba; fit one that has (SVC(probability=True), or "
                "CalibratedClassifierCV around it)"
            )
        self.labels = self._classes() if labels is None else labels
        self.features: Features | None = None
        """Columns of the records, for an estimator that was fitted on a DataFrame."""

        self.categorical = False
        """Whether it takes text as pandas' dtype `category` alone."""

        super().__init__(self._probabilities, f"{name}.predict_proba", convert=as_array)

    def fit(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> None:
        """Fit the estimator on inputs (N, ...) with class numbers (N,), or labels (N, C); warnings are not shown."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.estimator.fit(self._table(inputs), self.labels[labels] if labels.ndim == 1 else labels)

    def untrained(self, seed: int) -> EstimatorNetwork:
        """Return a clone that is not fitted, with a random state from the seed wherever it has one."""
        from sklearn.base import clone

        try:
            estimator = clone(self.estimator)
            states = [key for key in estimator.get_params() if key.split("__")[-1] == "random_state"]
            estimator.set_params(**dict.fromkeys(states, seed % 2**31))
        except Exception as error:
            raise MIAError(f"the {type(self.estimator).__name__} cannot be cloned ({first_line(error)})") from error
        network = EstimatorNetwork(estimator, self.labels)
        network.features, network.categorical = self.features, self.categorical
        return network

    def digest(self) -> str:
        """Return a digest (hex) of everything the estimator holds; fitted values included."""
        import joblib

        try:
            content = joblib.hash(self.estimator)
        except Exception:  # it holds a lambda or the like, so its outputs are not reused by another run
            content = f"{self.estimator!r} {id(self.estimator)}"
        texts = self.features.categories if self.features else {}  # inputs are positions in them
        return sha256(f"{type(self.estimator)} {content}{texts or ''}".encode()).hexdigest()

    def _classes(self) -> NDArray[Any]:
        try:
            classes = self.estimator.classes_
        except AttributeError:
            name = type(self.estimator).__name__
            raise MIAError(f"the {name} has no classes_, so it is not fitted; return it fitted") from None
        if isinstance(classes, list) and all(np.array_equal(values, (0, 1)) for values in classes):
            return np.arange(len(classes))  # of a multi-label estimator
        if isinstance(classes, list) or np.ndim(classes) != 1:
            raise MIAError(f"the {type(self.estimator).__name__} has several outputs; audit one output at a time")
        return np.asarray(classes)

    def _table(self, inputs: NDArray[Any]) -> Any:
        """Return (N, features), as a DataFrame for an estimator that was fitted on one."""
        rows = inputs.reshape(len(inputs), -1)
        fitted = getattr(self.estimator, "feature_names_in_", None)
        if self.features is None or (fitted is None and not self.features.categories):
            return rows
        frame = self.features.frame(rows, categorical=self.categorical)
        if fitted is None:
            return frame
        same = {"_".join(str(name).split()): name for name in fitted}  # readers strip names, LightGBM joins their words
        frame = frame.rename(columns=lambda name: same.get("_".join(name.split()), name))
        missing = [name for name in fitted if name not in frame]
        if missing:
            raise MIAError(
                f"the {type(self.estimator).__name__} was fitted on a column {printable(missing[0], 40)!r}, which the "
                "records lack; give the records every column that it was fitted on"
            )
        return frame[list(fitted)]

    def _returned(self, inputs: NDArray[Any]) -> Any:
        """Return what predict_proba returns; text that it does not take is given as pandas' dtype `category`."""
        if self.features is None or not self.features.categories or self.categorical:
            return self.estimator.predict_proba(self._table(inputs))
        try:
            return self.estimator.predict_proba(self._table(inputs))
        except MIAError:
            raise
        except Exception as error:
            self.categorical = True
            with suppress(Exception):
                return self.estimator.predict_proba(self._table(inputs))
            self.categorical = False
            columns = list(self.features.categories)
            raise MIAError(
                f"{self.name} does not take text, and column {printable(columns[0], 40)!r} is not numeric "
                f"({first_line(error).partition('. ')[0]}); {self.features.encode(columns)}"
            ) from error

    def _probabilities(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        returned = self._returned(inputs)
        returned = stacked_outputs(returned, len(inputs), self.name) if isinstance(returned, list) else returned
        probabilities = np.asarray(returned, np.float64)
        classes = self._classes()
        if probabilities.shape != (len(inputs), len(classes)):
            raise MIAError(
                f"{self.name} returned shape {probabilities.shape} for {len(inputs)} records of {len(classes)} "
                "classes; return one probability per class"
            )
        if len(classes) == len(self.labels):
            return probabilities
        aligned = np.zeros((len(inputs), len(self.labels)))
        aligned[:, np.isin(self.labels, classes)] = probabilities
        return aligned


def refuse_regressor(estimator: object) -> None:
    """Raise MIAError for a regressor of scikit-learn's interface."""
    from sklearn.base import is_regressor

    with suppress(AttributeError):  # a class without scikit-learn's tags
        if is_regressor(estimator):
            raise MIAError(f"the {type(estimator).__name__} is a regressor; only classifiers are audited")


def is_estimator(value: object) -> bool:
    """Whether an object is an estimator, with or without probabilities, rather than a class, network or function."""
    return not isinstance(value, type) and hasattr(value, "fit") and hasattr(value, "predict")


def is_skops(path: Path) -> bool:
    """Whether a file is an archive of skops, by its content."""
    try:
        if not path.is_file() or not is_zip(path):
            return False
        check_list(path)
        with zipfile.ZipFile(path) as archive:
            return SCHEMA in archive.namelist()
    except (MIAError, OSError, zipfile.BadZipFile, ValueError, NotImplementedError):  # the readers of weights report it
        return False


def is_lightgbm(path: Path) -> bool:
    """Whether a file is a LightGBM model in text form, by its content."""
    try:
        with open_regular(path) as file:
            return file.read(16).replace(b"\r", b"").startswith(b"tree\nversion=")
    except (OSError, MIAError):  # the readers of weights report it
        return False


def load_skops(path: Path) -> object:
    """Return the estimator in a .skops file, which may name types of scikit-learn, NumPy and SciPy alone.

    Raises:
        MIAError: it names another type, is damaged, or skops is not installed.
    """
    skops = require("skops.io", "skops")
    check_zip(path)
    try:
        unlisted = skops.get_untrusted_types(file=path)
        untrusted = [name for name in unlisted if not _is_class_of_sklearn(name)]
    except Exception as error:
        raise MIAError(f"{path.name}: is cut short or damaged ({first_line(error)}); copy or save it again") from None
    if untrusted:
        raise MIAError(
            f"{path.name}: refused, it names {printable(untrusted[0], 80)}, no type of scikit-learn or NumPy; return "
            "the estimator from a function of your own (--target.architecture package.module:function)"
        )
    try:
        return skops.load(path, trusted=unlisted)
    except Exception as error:
        raise MIAError(
            f"{path.name}: cannot be loaded ({first_line(error)}); save it again with the installed version of skops"
        ) from None


def _is_class_of_sklearn(name: str) -> bool:
    """Whether a dotted name is a class of scikit-learn or NumPy that skops does not list itself, such as its trees."""
    module, _, attribute = name.rpartition(".")
    if module.partition(".")[0] not in ("sklearn", "numpy") or "externals" in module or "_testing" in module:
        return False
    try:
        return inspect.isclass(getattr(importlib.import_module(module), attribute, None))
    except ImportError:
        return False


def align_labels(records: Records, labels: NDArray[Any], architecture: str) -> Records:
    """Return the records with class numbers in the order of an estimator's classes.

    Args:
        records: Their labels, or the names of their classes, are labels that the estimator was fitted on.
        labels: (C,) label of each class of the estimator.
        architecture: The estimator, for messages.

    Raises:
        MIAError: a label that the estimator was not fitted on.
    """
    number_of = {_text(label): number for number, label in enumerate(labels.tolist())}
    names = records.class_names
    if names is not None and len(names) == len(labels) and list(number_of) == list(map(str, range(len(labels)))):
        note = (
            f"{records.source}: {architecture} has classes 0 to {len(labels) - 1}, taken for the names in their order"
        )
        return replace(records, notes=(*records.notes, note))
    given = [int(value) for value in np.unique(records.labels) if value != UNKNOWN]
    texts = {value: str(value) if names is None else names[value] for value in given}
    for value, text in texts.items():
        if text not in number_of:
            row, count = int(np.argmax(records.labels == value)), int((records.labels == value).sum())
            fitted = ", ".join(printable(name, 30) for name in list(number_of)[:5])
            raise MIAError(
                f"{records.source}: record {records.ids[row]} has label {printable(text, 40)} ({count} such records), "
                f"which {architecture} was not fitted on (its classes are {fitted}); leave these records out"
            )
    numbers = np.full(max(given, default=0) + 2, UNKNOWN, np.int64)
    for value, text in texts.items():
        numbers[value] = number_of[text]
    return replace(records, labels=numbers[records.labels], class_names=tuple(number_of))


def _text(label: object) -> str:
    """Return a label as the records have it: 1.0 and True as 1."""
    whole = isinstance(label, bool | int) or (isinstance(label, float) and label.is_integer())
    return str(int(label)) if whole else str(label)  # type: ignore[call-overload]
