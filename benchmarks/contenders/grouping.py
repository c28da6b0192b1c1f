"""A batch in groups of rows of like length, for the other contenders: what Evenkeel does for itself."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.texts import draw
from models.bert.tokenizer import Tokenizer

GROUP_ROWS = (16, 32, 64)
TRIAL_ROWS, TRIALS = 256, 3

Pairs = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""ids, mask (B, L) int32 → logits (B, 2)."""


class Grouped:
    """Tokenises, sorts by length, and computes ``rows`` rows at a time, padded to the longest of them."""

    def __init__(self, bundle: Path, pairs: Pairs, rows: int | None):
        """``rows`` None takes the fastest of `GROUP_ROWS`."""
        self._tokenizer = Tokenizer.load(bundle / "tokenizer.json")
        self._pairs = pairs
        self.rows = rows or self._fastest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → z (B,)."""
        tokens = self._tokenizer.token_ids(texts)
        by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        logits = np.empty(len(texts))
        for first in range(0, len(texts), self.rows):
            rows = by_length[first : first + self.rows]
            pair = self._pairs(*self._tokenizer.pad([tokens[row] for row in rows]))
            logits[rows] = pair[:, 1] - pair[:, 0]
        return logits

    def _fastest(self) -> int:
        texts = draw(np.random.default_rng(0), TRIAL_ROWS)
        seconds = dict.fromkeys(GROUP_ROWS, np.inf)
        for _ in range(TRIALS):
            for self.rows in GROUP_ROWS:
                start = time.perf_counter()
                self(texts)
                seconds[self.rows] = min(seconds[self.rows], time.perf_counter() - start)
        return min(seconds, key=lambda rows: seconds[rows])
