"""Conformal prediction sets."""

from functools import cached_property

import numpy as np
from msgspec import Struct


class ConformalSets(Struct, frozen=True, kw_only=True, dict=True, forbid_unknown_fields=True):
    """Label-conditional conformal prediction sets (Vovk et al., 2005, section 4.5).

    A class belongs to the set when 1 − p_class is at most its threshold (``thresholds``, in the order of the classes).
    If the rows that set the thresholds and the new row are exchangeable, a row of each class has its class in the set
    with probability ≥ ``coverage``. The thresholds here come from cross-fitted probabilities, for which theory promises
    only about 1 − 2(1 − coverage) (Barber et al., 2021, theorem 4); the evaluation reports the share that it found.

    The guarantee is within each class, so a shift of the classes' shares leaves it, as long as each class looks as it
    did; the scores are therefore the probabilities *before* a prior shift, whatever the shift.
    """

    coverage: float
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1 or len(self.thresholds) < 2 or not all(0 <= t <= 1 for t in self.thresholds):
            raise ValueError("coverage must be inside (0, 1), and thresholds one in [0, 1] for each class")

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (B, K) of the classes → membership (B, K) bool."""
        return np.asarray(1 - probabilities <= self._thresholds)

    @cached_property
    def _thresholds(self) -> np.ndarray:
        return np.array(self.thresholds)
