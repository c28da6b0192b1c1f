"""What outcomes teach the service of one bundle: the online step, and the thresholds of its prediction sets."""

import time
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from models.bundle.read import Bundle
from models.calibration.adaptive_sets import AdaptiveThresholds
from models.calibration.online import OnlinePlatt, OnlineStep, log_odds, logistic


class OnlineState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a restart must not lose."""

    platt: OnlinePlatt
    sets: AdaptiveThresholds

    def __post_init__(self) -> None:
        if {2} != {len(each) for each in (self.sets.shifts, self.sets.outcomes, self.sets.missed)}:
            raise ValueError("the thresholds are not those of two classes")


class OnlineRecalibration:
    """Of a bundle of two classes. ``step`` is what is served now: any thread may read it, it is replaced as a whole."""

    def __init__(self, bundle: Bundle):
        self._thresholds, self._shift = SetThresholds(bundle), bundle.record.map.prior_shift
        self.coverage = bundle.record.conformal.coverage
        self.by_class = list(zip(*self._thresholds.rows, strict=True))
        self.begin()

    def begin(self) -> None:
        """Serve the bundle's own probabilities and sets, and learn from now on."""
        self.restore(OnlineState(platt=OnlinePlatt(), sets=AdaptiveThresholds.begin(2)))

    def restore(self, state: OnlineState) -> None:
        """Go on from a state."""
        self.state = state
        self.step = self._step()

    def observe(self, p: float, label: int, bins: Sequence[int] | None) -> None:
        """Learn from an outcome, and the bundle's own probability of the positive class that it had; without the
        ``bins`` (F,) of its row, thresholds by group learn nothing of it."""
        platt, sets = self.state.platt, self.state.sets
        platt.since = platt.since or time.time()
        platt.observe(p, label == 1)
        thresholds = self._thresholds(bins)
        if thresholds is not None:
            unshifted = p if self._shift is None else logistic(log_odds(p) - self._shift.shift)
            score = 1 - unshifted if label else unshifted
            sets.observe(label, score, thresholds[label], self.coverage)
        self.step = self._step()

    def _step(self) -> OnlineStep:
        shifts = self.state.sets.shifts
        return msgspec.structs.replace(self.state.platt.step, threshold_shifts=(shifts[0], shifts[1]))


class SetThresholds:
    """The bins of a row (F,) → the bundle's own thresholds (K) of its prediction set, None where they are by group and
    the row's bins are not known. ``rows`` are those of all groups."""

    def __init__(self, bundle: Bundle):
        sets = bundle.record.conformal
        self._own = sets.thresholds
        self._at = sets.place(bundle.schema)
        self.rows = list(sets.groups.values()) if sets.groups else [sets.thresholds]

    def __call__(self, bins: Sequence[int] | None) -> tuple[float, ...] | None:
        if self._at is None:
            return self._own
        return None if bins is None else self.rows[bins[self._at]]
