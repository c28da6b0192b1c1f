"""MLX: on Metal and CUDA, and on a CPU where nothing faster is installed or it is asked for."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np

from models.bert.classifier import load_classifier
from models.bundle.precisions import FULL, PRECISIONS, Precision
from models.engines.backend import device, prepare
from models.engines.batches import padded, token_batches
from models.engines.engine import Chosen
from models.engines.owner_thread import OwnerThread

MAX_ROWS, MAX_TOKENS = 64, 64 * 64
"""Of a batch, with its padding: rows that are longer are computed with fewer beside them."""


def offered() -> tuple[str, tuple[Precision, ...]]:
    """The device, and the precisions that are no slower there than float32."""
    return device(), ((FULL,) if device() == "cpu" else PRECISIONS)


class MLXEngine:
    """Implements `models.engines.engine.Engine`; calls may come from any thread.

    MLX is bound to threads, and ends the process with an abort where a thread ends before its streams do: so one
    thread of its own loads the model, computes, and clears the streams.
    """

    def __init__(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], chosen: Chosen, precision: Precision = FULL,
        threads: int | None = None,
    ):  # fmt: skip
        self._thread = OwnerThread("mlx", mx.clear_streams)
        self._model = self._thread(_Model, config, weights, chosen, precision, threads)
        self.backend = self._model.backend

    def logits(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of each text, unpadded → logits (B, K) float64."""
        return self._thread(self._model.logits, token_ids)

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Compute texts of each length, one alone and a whole batch."""
        self._thread(self._model.warm_up, lengths)


class _Model:
    """The classifier, for one thread."""

    def __init__(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], chosen: Chosen, precision: Precision = FULL,
        threads: int | None = None,
    ):  # fmt: skip
        # Before MLX computes anything.
        prepared = prepare(threads)
        self.backend = msgspec.structs.replace(
            prepared,
            precision=precision,
            offered=chosen.precisions,
            reason=chosen.reason,
            warning=chosen.warning or prepared.warning,
        )
        self._classes = len(weights["classifier.bias"])
        self._model = load_classifier(config, weights, precision)

    def logits(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        logits = np.empty((len(token_ids), self._classes))
        for rows in token_batches(token_ids, MAX_TOKENS, MAX_ROWS):
            ids, lengths = padded([token_ids[row] for row in rows])
            mask = np.arange(ids.shape[1]) < lengths[:, None]
            computed = self._model(mx.array(ids), None if mask.all() else mx.array(mask.astype(np.int32)))
            logits[rows] = np.array(computed, np.float64)
        return logits

    def warm_up(self, lengths: Sequence[int]) -> None:
        for length in lengths:
            for rows in (1, MAX_ROWS):
                self.logits([[0] * length] * rows)
