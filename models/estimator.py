"""A bundle as a scikit-learn classifier."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

from models.calibration.logit import class_probabilities
from models.engines.logit_cache import LogitCache
from models.frames import read_frame
from models.predictor import Predictor
from models.rows import Row
from models.schema import Schema

CACHE_ROWS = 1 << 16
"""Distinct texts whose logits are kept, about 250 bytes each: scikit-learn asks for the same rows again and again."""

Table = pd.DataFrame | Sequence[Row | Mapping[str, Any]]


class BundleClassifier(ClassifierMixin, BaseEstimator):
    """The calibrated probabilities of a bundle, for scikit-learn's tools.

    It is fitted already: `fit` checks and learns nothing, so `cross_val_score` scores one and the same model on each
    fold, and rows that the bundle was trained on are no test of it (its held-out scores are in its evaluation).

    X is a data frame (`read_frame`) or a sequence of rows or mappings; y holds the values of the label's column, as
    the training table spells them. Any thread may call it; the bundle is loaded on first use. A clone loads it again;
    `sklearn.frozen.FrozenEstimator` around this keeps what is loaded.
    Raises BundleError, RowError, PredictionError.
    """

    def __init__(self, bundle: str | Path = "artifacts/titanic", target_prevalence: float | None = None):
        self.bundle = bundle
        self.target_prevalence = target_prevalence

    @property
    def classes_(self) -> np.ndarray:
        """The label's values (K,) in the order of the probabilities: whole numbers where all of them are."""
        return label_values(self._loaded().schema)

    def fit(self, X: Table, y: Any) -> Self:
        """Check the rows and their labels; nothing is learnt. Raises ValueError for labels that are no class."""
        loaded = self._loaded()
        rows, labels = loaded.read(X), np.asarray(y)
        if labels.shape != (len(rows),):
            raise ValueError(f"y has the shape {labels.shape}; X has {len(rows)} rows")
        values = label_values(loaded.schema).tolist()
        strange = [label for label in labels.tolist() if label not in values]
        if strange:
            raise ValueError(f"y holds {strange[0]!r:.60}; it must be one of {', '.join(map(repr, values))}")
        return self

    def predict_proba(self, X: Table) -> np.ndarray:
        """Calibrated probabilities (n, K) float64 of ``classes_``."""
        return self._loaded().probabilities(X)

    def predict(self, X: Table) -> np.ndarray:
        """The class of the greatest probability (n,), the later one of equals."""
        last = self.predict_proba(X)[:, ::-1].argmax(axis=1)
        return np.take(self.classes_[::-1], last)

    def _loaded(self) -> "_Loaded":
        """What is loaded of the parameters as they are now."""
        with self.__dict__.setdefault("_lock", Lock()):
            wanted = (str(self.bundle), self.target_prevalence)
            if self.__dict__.get("_held_for") != wanted:
                self._held = _Loaded(self.bundle, self.target_prevalence)
                self._held_for = wanted
            return self._held

    def __getstate__(self) -> dict[str, Any]:
        """The parameters alone: another process loads the bundle itself."""
        held = ("_held", "_held_for", "_lock")
        return {name: value for name, value in super().__getstate__().items() if name not in held}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.classifier_tags.multi_class = False
        tags.input_tags.string = tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = False
        return tags


def label_values(schema: Schema) -> np.ndarray:
    """The values (K,) of the label's column: int64 where all are whole numbers, else texts."""
    values = [each.value for each in schema.label.classes]
    whole = all(value.lstrip("+-").isdecimal() for value in values)
    return np.array([int(value) for value in values] if whole else values)


class _Loaded:
    """A predictor that reads scikit-learn's X."""

    def __init__(self, bundle: str | Path, target_prevalence: float | None):
        self._predictor = Predictor.load(bundle, LogitCache(CACHE_ROWS), target_prevalence)
        self.schema = self._predictor.bundle.schema

    def read(self, table: Table) -> list[Row]:
        if isinstance(table, pd.DataFrame):
            return read_frame(table, self._predictor.rows)
        if isinstance(table, np.ndarray):
            raise TypeError(
                "an array has no names of fields; X must be a data frame, or a sequence of rows or mappings"
            )
        return self._predictor.rows.check(table)

    def probabilities(self, table: Table) -> np.ndarray:
        return class_probabilities(self._predictor.probabilities(self.read(table)))
