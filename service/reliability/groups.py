"""Outcomes by the bins of the fields: how many came true, how many the probabilities promised, and whether that fits.

Of two classes it is the positive one that comes true, of more the predicted one. The groups are the bins of all fields,
so their number is bounded by the schema; group 0 is all rows.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from models.schema import Schema

TILTS = np.array([-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0])
"""Shifts of the log-odds that are bet on."""
EDGE = 1e-9


class GroupState(Struct, frozen=True, forbid_unknown_fields=True):
    """What a restart must not lose: `GroupCounts.counts` and `GroupCounts.log_wealth`."""

    counts: list[list[float]]
    log_wealth: list[list[float]]


class GroupCounts:
    """``counts`` (1 + G, 4): outcomes, those that came true, the sums of p and of p (1 − p), p their probabilities.

    ``log_wealth`` (1 + G, 8): of each tilt θ the logarithm of Π e^{θ y} / (1 − q + q e^θ), where q is the p, moved by
    the dead band towards θ. If the rate of every row is within the band of its p, each factor has a mean of at most 1
    given all before: a test supermartingale (Ville, 1939), so that P(it ever reaches 1/α) ≤ α, however often it is
    looked at.
    """

    def __init__(self, schema: Schema, dead_band: float):
        self.names = [(bins.field, name) for bins in schema.input_bins for name in bins.names]
        starts = np.cumsum([1, *(len(bins.names) for bins in schema.input_bins)])[:-1]
        self._starts, self._dead_band = starts, dead_band
        self.begin()

    def begin(self) -> None:
        """Forget all outcomes."""
        self.counts = np.zeros((1 + len(self.names), 4))
        self.log_wealth = np.zeros((1 + len(self.names), len(TILTS)))

    def add(self, p: float, came_true: bool, bins: Sequence[int]) -> None:
        """Count an outcome; ``bins`` (F,) are the numbers of its row's bins."""
        groups = np.append(0, self._starts + bins)
        q = np.clip(p + self._dead_band * np.sign(TILTS), EDGE, 1 - EDGE)
        self.counts[groups] += (1.0, came_true, p, p * (1 - p))
        self.log_wealth[groups] += TILTS * came_true - np.log1p(q * np.expm1(TILTS))

    def log_evidence(self, log_wealth: np.ndarray) -> np.ndarray:
        """ln of the mean over the tilts (…, 8) of what they won."""
        return np.asarray(np.logaddexp.reduce(log_wealth, axis=-1) - np.log(len(TILTS)))

    def state(self) -> GroupState:
        """All of it."""
        return GroupState(self.counts.tolist(), self.log_wealth.tolist())

    def restore(self, state: GroupState) -> None:
        """Go on from a state; raises ValueError where it is not one of these groups."""
        counts, log_wealth = (np.array(rows, float) for rows in (state.counts, state.log_wealth))
        fits = counts.shape == self.counts.shape and log_wealth.shape == self.log_wealth.shape
        if not (fits and np.isfinite(counts).all() and (counts >= 0).all() and np.isfinite(log_wealth).all()):
            raise ValueError("the outcomes by group are not those of this table's groups")
        self.counts, self.log_wealth = counts, log_wealth
