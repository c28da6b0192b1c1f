"""A bundle as a scikit-learn classifier."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

from models.frames import read_frame
from models.logit_cache import LogitCache
from models.predictor import Predictor
from models.rows import Row

CACHE_ROWS = 1 << 16
"""Distinct texts whose logit is kept, about 200 bytes each: scikit-learn asks for the same rows again and again."""

X = pd.DataFrame | Sequence[Row | Mapping[str, Any]]


class TitanicClassifier(ClassifierMixin, BaseEstimator):
    """The calibrated probabilities of a bundle, for scikit-learn's tools.

    It is fitted already: `fit` checks and learns nothing, so `cross_val_score` scores one and the same model on each
    fold, and rows that the bundle was trained on are no test of it (its held-out scores are in its evaluation).

    X is a data frame (`read_frame`) or a sequence of passengers or mappings; y is 1 for survived and 0 for died. The
    bundle is loaded on first use, once per thread, since MLX is bound to threads; a clone loads it again, and
    `sklearn.frozen.FrozenEstimator` around this keeps what is loaded.
    Raises BundleError, PassengerError, PredictionError.
    """

    classes_ = np.array([0, 1])

    def __init__(self, bundle: str | Path = "artifacts/titanic", target_prevalence: float | None = None):
        self.bundle = bundle
        self.target_prevalence = target_prevalence

    def fit(self, X: Rows, y: Any) -> Self:
        """Check the rows and their labels; nothing is learnt. Raises ValueError for labels other than 0 and 1."""
        rows, labels = _read(X), np.asarray(y)
        if labels.shape != (len(rows),):
            raise ValueError(f"y has the shape {labels.shape}; X has {len(rows)} rows")
        strange = [label for label in labels.tolist() if label not in (0, 1)]
        if strange:
            raise ValueError(f"y holds {strange[0]!r:.60}; it must be 1 for survived or 0 for died")
        return self

    def predict_proba(self, X: Rows) -> np.ndarray:
        """Calibrated probabilities (n, 2) float64 of died and survived."""
        predictor = self._predictor()
        logits = predictor.logits(predictor.render(_read(X)))
        survived = predictor.bundle.record.map.probabilities(logits)
        return np.stack([1 - survived, survived], axis=1)

    def predict(self, X: Rows) -> np.ndarray:
        """1 where the probability of survival is at least ½, else 0, (n,)."""
        return np.take(self.classes_, self.predict_proba(X)[:, 1] >= 0.5)

    def _predictor(self) -> Predictor:
        """This thread's predictor of the parameters as they are now."""
        own = self.__dict__.setdefault("_held", threading.local())
        wanted = (str(self.bundle), self.target_prevalence)
        if getattr(own, "loaded", None) != wanted:
            own.predictor = Predictor.load(self.bundle, LogitCache(CACHE_ROWS), self.target_prevalence)
            own.loaded = wanted
        predictor: Predictor = own.predictor
        return predictor

    def __getstate__(self) -> dict[str, Any]:
        """The parameters alone: another process loads the bundle itself."""
        return {name: value for name, value in super().__getstate__().items() if name != "_held"}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.classifier_tags.multi_class = False
        tags.input_tags.string = tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = False
        return tags


def _read(rows: Rows) -> list[Passenger]:
    if isinstance(rows, pd.DataFrame):
        return read_frame(rows)
    if isinstance(rows, np.ndarray):
        raise TypeError(
            "an array has no names of fields; X must be a data frame, or a sequence of passengers or mappings"
        )
    return check_passengers(rows)
