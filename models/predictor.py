"""Bundle → predictions: the only place where text, tokens, logits, calibration and confidence meet."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from models import selftest
from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import PRECISIONS_FILE, WEIGHTS, BundleError
from models.bundle.precisions import FULL, Precision
from models.bundle.read import Bundle, open_bundle
from models.engines.choice import EngineChoice, choose_engine, load_engine
from models.engines.engine import Engine, EngineError
from models.engines.logit_cache import LogitCache
from models.prediction import Diagnosis, EncodedText, Prediction, PredictionError, Stage, timed
from models.rows import Row, Rows
from models.text import Renderer

WARM_UP_TOKENS = (16, 24)
"""Lengths of short texts."""


class Predictor:
    """A loaded bundle; any thread may call it, and several at once.

    predictor = Predictor.load("artifacts/churn")
    predictor.predict([{"plan": "small", "bill": 38.5}])[0].probability

    ``rows`` makes and checks the rows of its table, ``renderer`` puts them into words.
    """

    def __init__(self, bundle: Bundle, engine: Engine, tokenizer: Tokenizer, cache: LogitCache):
        self.bundle, self.backend = bundle, engine.backend
        self.rows, self.renderer = Rows(bundle.schema), Renderer(bundle.schema)
        self._diagnosis = Diagnosis(
            bundle.record, bundle.reference, bundle.schema, tokenizer, bundle.scorers(tokenizer)
        )  # fmt: skip
        self._engine, self._tokenizer, self._cache = engine, tokenizer, cache
        self._process = os.getpid()

    @classmethod
    def load(
        cls, folder: Path | str, cache: LogitCache | None = None, target_prevalence: float | None = None,
        keys: Path | str | None = None, threads: int | None = None, precision: Precision = FULL,
        engine: EngineChoice = "auto", costs: str | None = None,
    ) -> Self:  # fmt: skip
        """Verify and load a bundle; raises BundleError naming the file and the fault. Without ``cache``, none.

        ``target_prevalence``: the positive class's share where it serves, if not the bundle's; see `Bundle.shifted`.
        ``keys``: public keys of which one must have signed it; see `open_bundle`. ``threads``: the cores
        to compute on, by default all.
        ``precision``: of the weights; other than float32 only one that was measured and not refused
        (`models.bundle.precisions`). ``engine``: what computes, by default what is fastest on this machine; raises
        EngineError (`models.engines.engine`) where it is not to be had, or not in that precision. ``costs``: of
        mistakes, if not the bundle's; see `Bundle.with_costs`.
        """
        bundle, tokenizer, weights = open_bundle(Path(folder), None if keys is None else Path(keys))
        served = bundle if target_prevalence is None else bundle.shifted(target_prevalence)
        served = served if costs is None else served.with_costs(costs)
        # For nothing where the bundle is refused.
        chosen = choose_engine(engine, bundle.config)
        chosen.check(precision)
        if refusal := bundle.precisions.refusal(precision, chosen.device):
            raise BundleError(f"{PRECISIONS_FILE}: {refusal}")
        computing = load_engine(chosen, bundle.config, weights, precision, threads)
        selftest.check(bundle, tokenizer, computing)
        loaded = cls(served, computing, tokenizer, LogitCache(0) if cache is None else cache)
        loaded._try()
        return loaded

    def _try(self) -> None:
        """Finite weights may still overflow: no word may give a logit that is not finite."""
        try:
            self._compute(self._tokenizer.token_ids(self.renderer.every_word()))
        except PredictionError as error:
            raise BundleError(f"{WEIGHTS}: {error}") from error

    def render(self, rows: Sequence[Row]) -> list[str]:
        """Each row's text, with what the bundle's feature knows."""
        return [self.renderer(row, self.bundle.known) for row in rows]

    def encode(self, rows: Sequence[Row]) -> list[EncodedText]:
        """Each row's text and token ids; may be called on any thread, ahead of `predict_checked`."""
        texts = self.render(rows)
        return list(map(EncodedText, texts, self._tokenizer.token_ids(texts)))

    def predict(self, rows: Sequence[Row | Mapping[str, Any]]) -> list[Prediction]:
        """Predictions in the order of ``rows``: of the type ``self.rows.struct``, or mappings of the same fields.

        Raises RowError (`Rows.check`), PredictionError. Memory grows with the rows, by about 6 KB each.
        """
        return self.predict_checked(self.rows.check(rows))

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: list[Stage] | None = None
    ) -> list[Prediction]:
        """`predict` of rows that were checked where they came in; ``encoded`` where `encode` was called ahead.

        To ``stages`` is added what took how long: tokenise and inference, of the texts that the cache has not, and
        diagnostics."""
        if not rows:
            return []
        if encoded is None:
            texts = self.render(rows)
            logits = self._logits(texts, timed(stages, "tokenise", self._tokenizer.token_ids), stages)
        else:
            texts, token_ids = [row.text for row in encoded], dict(encoded)
            logits = self._logits(texts, lambda new: [token_ids[text] for text in new], stages)
        return timed(stages, "diagnostics", self._diagnosis.predictions)(logits, rows, texts)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """The model's logits (B, K) float64 of each text; identical texts are computed once.

        Raises PredictionError when a logit is not finite.
        """
        return self._logits(texts, self._tokenizer.token_ids)

    def probabilities(self, rows: Sequence[Row]) -> np.ndarray:
        """Calibrated probabilities alone of checked rows: (n,) of the positive of two classes, or (n, K)."""
        return self._diagnosis.probabilities(self.logits(self.render(rows)), rows)

    def second_scores(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """The scores of the stack's second models by name, of checked rows (`SecondScorers`); none without a stack."""
        return self._diagnosis.second_scores(rows)

    def _logits(
        self, texts: Sequence[str], tokenize: Callable[[Sequence[str]], list[list[int]]],
        stages: list[Stage] | None = None,
    ) -> np.ndarray:  # fmt: skip
        distinct = sorted(set(texts))
        known = self._cache.get(distinct)
        new = [text for text in distinct if text not in known]
        if new:
            logits = timed(stages, "inference", self._compute)(tokenize(new))
            computed = dict(zip(new, map(tuple, logits.tolist()), strict=True))
            self._cache.add(computed)
            known |= computed
        return np.array([known[text] for text in texts]).reshape(len(texts), len(self.bundle.schema.classes))

    def _compute(self, token_ids: Sequence[list[int]]) -> np.ndarray:
        """The model's logits (B, K)."""
        if os.getpid() != self._process:
            # They would be waited for without end.
            raise EngineError("after a fork the engine's threads are not in the child: load the bundle there again")
        logits = self._engine.logits(token_ids)
        if not np.isfinite(logits).all():
            raise PredictionError("the model's logits are not finite")
        return logits

    def warm_up(self) -> None:
        """Run the shapes that this table's texts have, so that the first request is as fast as the next."""
        row = self.rows.typical()
        (encoded,) = self.encode([row])
        longest = self.bundle.config["max_position_embeddings"]
        self._engine.warm_up(sorted({min(tokens, longest) for tokens in (len(encoded.token_ids), *WARM_UP_TOKENS)}))
        self._diagnosis.predictions(self._compute([encoded.token_ids]), [row], [encoded.text])
