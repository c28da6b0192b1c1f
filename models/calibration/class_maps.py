"""Steps of a calibration map for more than two classes: scores (B, K) → scores (B, K) that sum to 0 in each row.

Each works on ln p of its input, so what is common to a row's scores says nothing.
"""

from functools import cached_property

import numpy as np
from msgspec import Struct

from models.calibration.logit import MAX_VALUE, centred, log_softmax


class VectorScaling(
    Struct, frozen=True, dict=True, kw_only=True, tag_field="step", tag="vector_scaling", forbid_unknown_fields=True
):
    """weight_k · ln p_k + offset_k, weights ≥ 0 (Guo et al., 2017, section 4.2, there on logits).

    On log-probabilities it is the beta map where there are two classes: each class is bent by itself.
    """

    weights: tuple[float, ...]
    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_numbers("weights", self.weights, low=0)
        _check_numbers("offsets", self.offsets)
        if len(self.weights) != len(self.offsets):
            raise ValueError("weights and offsets must be of equal length")

    @property
    def classes(self) -> int:
        """For how many classes it is."""
        return len(self.offsets)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        weights, offsets = self._arrays
        return centred(log_softmax(scores) * weights + offsets)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.weights), np.array(self.offsets)


class MatrixScaling(
    Struct, frozen=True, dict=True, kw_only=True, tag_field="step", tag="matrix_scaling", forbid_unknown_fields=True
):
    """Σ_j weights_kj · ln p_j + offset_k: a Dirichlet calibration map (Kull et al., 2019, section 3)."""

    weights: tuple[tuple[float, ...], ...]
    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_numbers("offsets", self.offsets)
        if [len(row) for row in self.weights] != [len(self.offsets)] * len(self.offsets):
            raise ValueError(f"weights must be {len(self.offsets)} rows of as many numbers")
        for row in self.weights:
            _check_numbers("weights", row)

    @property
    def classes(self) -> int:
        """For how many classes it is."""
        return len(self.offsets)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        weights, offsets = self._arrays
        log_p = log_softmax(scores)
        # By sums, not by a product of matrices, whose last bits depend on the rows beside a row.
        return centred(np.stack([(log_p * row).sum(axis=1) for row in weights], axis=1) + offsets)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.weights), np.array(self.offsets)


def _check_numbers(name: str, numbers: tuple[float, ...], low: float = -MAX_VALUE) -> None:
    if len(numbers) < 3 or not all(low <= number <= MAX_VALUE for number in numbers):
        raise ValueError(f"{name} must be three or more numbers from {low:g} to {MAX_VALUE:g}")
