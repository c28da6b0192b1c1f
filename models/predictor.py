"""Bundle → predictions: the only place where text, tokens, logits, calibration and confidence meet."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from models.bert.classifier import BertClassifier, load_classifier
from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import PRECISIONS_FILE, WEIGHTS, BundleError
from models.bundle.precisions import FULL, Precision
from models.bundle.read import Bundle, open_bundle
from models.engines.backend import Backend, prepare
from models.engines.streams import StreamParallel
from models.logit_cache import LogitCache
from models.passenger import Passenger, check_passengers
from models.prediction import EncodedText, Prediction, PredictionError, predictions_from_logits
from models.text import every_word, render

WARM_UP = Passenger(pclass=3, sex="male", name="Braund, Mr. Owen Harris", age=22, sibsp=1, fare=7.25, embarked="S")
WARM_UP_TOKENS = (16, 24)
"""About the shortest and the longest texts of passengers."""


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
        self._streams = StreamParallel(backend)

    @classmethod
    def load(
        cls, folder: Path | str, cache: LogitCache | None = None, target_prevalence: float | None = None,
        keys: Path | str | None = None, threads: int | None = None, precision: Precision = FULL,
    ) -> Self:  # fmt: skip
        """Verify and load a bundle; raises BundleError naming the file and the fault. Without ``cache``, none.

        ``target_prevalence``: the share of survivors where it serves, if not the bundle's own; see `Bundle.shifted`.
        ``keys``: public keys of which one must have signed it; see `open_bundle`. ``threads``: the cores
        to compute on, by default all.
        ``precision``: of the weights; other than float32 only one that was measured and not refused
        (`models.bundle.precisions`).
        """
        bundle, tokenizer, weights = open_bundle(Path(folder), None if keys is None else Path(keys))
        if target_prevalence is not None:
            bundle = bundle.shifted(target_prevalence)
        # Before MLX computes anything, and for nothing where the bundle is refused.
        backend = msgspec.structs.replace(prepare(threads), precision=precision)
        if refusal := bundle.precisions.refusal(precision, backend.device):
            raise BundleError(f"{PRECISIONS_FILE}: {refusal}")
        model = load_classifier(bundle.config, weights, precision)
        loaded = cls(bundle, model, tokenizer, backend, LogitCache(0) if cache is None else cache)
        loaded._try()
        return loaded

    def _try(self) -> None:
        """Finite weights may still overflow: no word may give a logit that is not finite."""
        try:
            self._compute(self._tokenizer.token_ids(every_word()))
        except PredictionError as error:
            raise BundleError(f"{WEIGHTS}: {error}") from error

    def render(self, passengers: Sequence[Passenger]) -> list[str]:
        """Each passenger's text, with the bundle's companions."""
        return [render(passenger, self.bundle.companions) for passenger in passengers]

    def encode(self, passengers: Sequence[Passenger]) -> list[EncodedText]:
        """Each passenger's text and token ids; may be called on any thread, ahead of `predict_checked`."""
        texts = self.render(passengers)
        return list(map(EncodedText, texts, self._tokenizer.token_ids(texts)))

    def predict(self, rows: Sequence[Passenger | Mapping[str, Any]]) -> list[Prediction]:
        """Predictions in the order of ``rows``: `Passenger` objects, or mappings of the same fields.

        Raises PassengerError (`check_passengers`), PredictionError. Memory grows with the rows, by about 6 KB each.
        """
        return self.predict_checked(check_passengers(rows))

    def predict_checked(
        self, passengers: Sequence[Passenger], encoded: Sequence[EncodedText] | None = None
    ) -> list[Prediction]:  # fmt: skip
        """`predict` of rows that were checked where they came in; ``encoded`` where `encode` was called ahead."""
        if not passengers:
            return []
        if encoded is None:
            texts = self.render(passengers)
            logits = self.logits(texts)
        else:
            texts, token_ids = [row.text for row in encoded], dict(encoded)
            logits = self._logits(texts, lambda new: [token_ids[text] for text in new])
        return predictions_from_logits(self.bundle.record, self.bundle.reference, logits, passengers, texts)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """z = logit_survived − logit_died of each text, (B,) float64; identical texts are computed once.

        Raises PredictionError when a logit is not finite.
        """
        return self._logits(texts, self._tokenizer.token_ids)

    def _logits(self, texts: Sequence[str], tokenize: Callable[[Sequence[str]], list[list[int]]]) -> np.ndarray:
        distinct = sorted(set(texts))
        known = self._cache.get(distinct)
        new = [text for text in distinct if text not in known]
        computed = dict(zip(new, self._compute(tokenize(new)).tolist(), strict=True))
        self._cache.add(computed)
        known |= computed
        return np.array([known[text] for text in texts])

    def _compute(self, token_ids: Sequence[list[int]]) -> np.ndarray:
        """The model's logits (B,)."""
        logits = np.empty(len(token_ids))
        # Neighbours in length share a forward pass, so that little of it is padding.
        by_length = sorted(range(len(token_ids)), key=lambda row: len(token_ids[row]))
        for first in range(0, len(by_length), self._streams.rows):
            rows = by_length[first : first + self._streams.rows]
            pair = self._streams(self._model, *self._tokenizer.pad([token_ids[row] for row in rows]))
            logits[rows] = pair[:, 1] - pair[:, 0]
        if not np.isfinite(logits).all():
            raise PredictionError("the model's logits are not finite")
        return logits

    def warm_up(self) -> None:
        """Run the shapes that short texts have, so that the first request is as fast as the next."""
        longest = int(self.bundle.config["max_position_embeddings"])
        for tokens in WARM_UP_TOKENS:
            for rows in (1, self._streams.rows):
                self._compute([[0] * min(tokens, longest)] * rows)
        logits = self._compute([row.token_ids for row in self.encode([WARM_UP])])
        predictions_from_logits(self.bundle.record, self.bundle.reference, logits, [WARM_UP], [""])
