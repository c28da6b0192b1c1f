"""Bundle → predictions: the only place where text, tokens, logits, calibration and confidence meet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import Struct

from models.backend import Backend, prepare
from models.bundle import Bundle, read_bundle
from models.cache import LogitCache
from models.classifier import BertClassifier, load_classifier
from models.confidence import Confidence, diagnose
from models.lanes import Lanes
from models.passenger import Passenger, describe
from models.tokenizer import Tokenizer

WARM_UP = Passenger(pclass=3, sex="male", name="Braund, Mr. Owen Harris", age=22, sibsp=1, fare=7.25, embarked="S")
WARM_UP_TOKENS = (16, 24)


class PredictionError(Exception):
    """The model gave a number that is not finite, so there is no probability to serve."""


class Prediction(Struct, frozen=True):
    """``survived`` is ``probability`` ≥ ½, the calibrated probability of survival."""

    survived: bool
    probability: float
    confidence: Confidence


class Predictor:
    """A loaded bundle. MLX is bound to threads: load it and call it on one and the same thread.

    predictor = Predictor.load("artifacts/titanic")
    predictor.predict([Passenger(pclass=1, sex="female", age=38)])[0].probability
    """

    def __init__(
        self, bundle: Bundle, model: BertClassifier, tokenizer: Tokenizer, backend: Backend, cache: LogitCache
    ):  # fmt: skip
        self.bundle, self.backend = bundle, backend
        self._model, self._tokenizer, self._cache = model, tokenizer, cache
        self._lanes = Lanes(backend)

    @classmethod
    def load(cls, folder: Path | str, cache: LogitCache | None = None) -> Self:
        """Verify and load a bundle; raises BundleError naming the file and the fault. Without ``cache``, none."""
        backend = prepare()
        bundle = read_bundle(Path(folder))
        model = load_classifier(bundle.config, bundle.folder / "model.safetensors")
        tokenizer = Tokenizer.load(bundle.folder / "tokenizer.json", int(bundle.config["max_position_embeddings"]))
        return cls(bundle, model, tokenizer, backend, LogitCache(0) if cache is None else cache)

    def predict(self, passengers: Sequence[Passenger]) -> list[Prediction]:
        """Predictions in the order of ``passengers``; raises PredictionError."""
        if not passengers:
            return []
        logits = self.logits([describe(passenger) for passenger in passengers])
        probabilities, confidences = diagnose(self.bundle.record, self.bundle.reference, logits, passengers)
        return [
            Prediction(survived=p >= 0.5, probability=p, confidence=confidence)
            for p, confidence in zip(probabilities.tolist(), confidences, strict=True)
        ]

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """z = logit_survived − logit_died of each text, (B,) float64; identical texts are computed once.

        Raises PredictionError when a logit is not finite.
        """
        distinct = sorted(set(texts))
        known = self._cache.find(distinct)
        new = [text for text in distinct if text not in known]
        computed = dict(zip(new, self._compute(new).tolist(), strict=True))
        self._cache.keep(computed)
        known |= computed
        return np.array([known[text] for text in texts])

    def _compute(self, texts: Sequence[str]) -> np.ndarray:
        """The model's logits (B,) of distinct texts."""
        tokens = self._tokenizer.token_ids(texts)
        logits = np.empty(len(texts))
        # Neighbours in length share a forward pass, so that little of it is padding.
        by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        for first in range(0, len(by_length), self._lanes.rows):
            rows = by_length[first : first + self._lanes.rows]
            ids, mask = self._tokenizer.pad([tokens[row] for row in rows])
            pair = self._lanes(self._model, ids, mask)
            logits[rows] = pair[:, 1] - pair[:, 0]
        if not np.isfinite(logits).all():
            raise PredictionError("the model's logits are not finite")
        return logits

    def warm_up(self) -> None:
        """Run the shapes that short texts have, so that the first request is as fast as the next."""
        for tokens in WARM_UP_TOKENS:
            for rows in (1, self._lanes.rows):
                ids = np.zeros((rows, tokens), np.int32)
                self._lanes(self._model, ids, np.ones_like(ids))
        diagnose(self.bundle.record, self.bundle.reference, self._compute([describe(WARM_UP)]), [WARM_UP])
