"""int8 on a CPU: codes with a scale, and the words' embeddings, which are looked up outside of the encoder.

Activations have codes of −127 … 127 with a scale for each token, weights of −63 … 63 with a scale for each output.
Weights have 7 bits because x86-64 processors without VNNI add the products of two pairs in 16 bits, which more would
overflow silently (ONNX Runtime's documentation of quantisation, "saturation issue"): 2 · 255 · 63 < 2¹⁵.
"""

import numpy as np

from models.bundle.precisions import Precision

MAX_CODE = 127
"""Of the codes −127 … 127 of activations and word embeddings."""
MAX_WEIGHT_CODE = 63
"""Of the codes −63 … 63 of weights."""
ZERO_CODE = 128
"""What stands for 0 where codes are unsigned."""
SMALLEST_SCALE = 1e-30
"""So that zeros have a scale too."""


def rounded(matrix: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix (O, I) → codes (O, I) int8 up to ``largest`` and a scale (O,) float32 for each row."""
    scales = np.maximum(np.abs(matrix).max(axis=1), SMALLEST_SCALE).astype(np.float32) / np.float32(largest)
    return np.round(matrix / scales[:, None]).astype(np.int8), scales


class WordTable:
    """The embeddings of words, a row each."""

    def __init__(self, table: np.ndarray, precision: Precision):
        self._table, self._scales = table, np.empty(0, np.float32)
        if precision == "int8":
            self._table, self._scales = rounded(table, MAX_CODE)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """ids (T,) → (T, D) float32."""
        found: np.ndarray = self._table[ids]
        return found * self._scales[ids][..., None] if len(self._scales) else found
