"""Sequential tests that stand watch for ever: Shiryaev–Roberts sums of bets against "nothing has changed".

A bet multiplies its stake by a factor e ≥ 0 whose mean, given all before, is at most 1 while nothing has changed. Its
Shiryaev–Roberts sum M ← (M + 1) · e puts a fresh stake of 1 on every step (Shin, Ramdas & Rinaldo, 2024, "E-detectors",
section 2). E[M_t | before] ≤ M_{t−1} + 1, so M_t − t is a supermartingale from 0; stopped at the alarm, T = the first
time that M ≥ A, it gives E[T] ≥ E[M_T] ≥ A: the average run length to a false alarm is at least A. The mean of the
sums of several bets on one and the same sequence has that property too, so bets on many shapes are averaged.
"""

import math

import numpy as np

MAX_SUM = 1e100
"""Sums are cut here, long past any alarm, so that they stay finite. A lower sum only lowers the false alarms."""

FINEST = 64
EDGES = np.array([0, 1, 2, *range(4, 64, 4), 62, 63, 64]) / FINEST
"""Cells of a rank: sixteenths, and finer ends, where a bin shows that the reference hardly knew."""
WIDTHS = np.diff(EDGES)
CELLS = np.minimum(np.searchsorted(EDGES * FINEST, np.arange(FINEST + 1), "right") - 1, len(WIDTHS) - 1)
"""The cell of each 64th."""

TILTS = (
    *((sign * tilt, 0.0) for tilt in (0.4, 1.0, 2.5, 6.0) for sign in (1, -1)),
    *((0.0, spread) for spread in (1.0, -1.0, 3.0, -3.0, 8.0, -8.0)),
    *((sign * tilt, spread) for tilt, spread in ((1.0, 1.0), (1.0, -1.0), (2.0, 3.0), (3.0, -3.0)) for sign in (1, -1)),
)
"""(a, b) of the fixed bets, densities ∝ exp(a u + b u²), u = 2 · rank − 1: location, spread, and both."""
MEMORIES = np.array([100.0, 400.0])
"""Ranks that the two learning bets remember: their density is a histogram of the past ranks, exponentially weighted."""
FLOOR = 0.1
"""Share of the learning bets' stake that stays on the uniform density, so that no factor is 0."""


def _fixed_bets() -> np.ndarray:
    """Densities (cells, bets) whose mean over a uniform rank is 1."""
    u = EDGES[1:] + EDGES[:-1] - 1
    densities = np.exp([a * u + b * u**2 for a, b in TILTS])
    return np.asarray((densities / (densities @ WIDTHS)[:, None]).T)


FIXED = _fixed_bets()
FIXED_BETS, BETS = len(TILTS), len(TILTS) + len(MEMORIES)
MEAN = np.full(BETS, 1 / BETS)
KEPT, GAINS = 1 - 1 / MEMORIES, 1 / (WIDTHS[:, None] * MEMORIES)


class RankDetector:
    """Conformal tests of S categorical variables: are the rows exchangeable with those that the bags began with?

    A row's bin gets the rank (rows of the bag in lower bins + U · rows in its own bin) / rows of the bag, itself
    among them, U uniform. While rows and reference are exchangeable the ranks are independent and uniform (Vovk,
    Gammerman & Shafer, 2005, section 8.2), because the bag takes in every row; against a bag that stays as it began
    they are not. A bet may look at earlier ranks only, never at bins, counts or the reference: those depend on the
    later ranks. So its cells are the same for every reference, and it learns from ranks alone. Each bet is a density
    on [0, 1] that is constant on the cells.

    ``counts`` (S, B) are the reference's, padded with bins that never occur. Memory does not grow.
    """

    def __init__(self, counts: np.ndarray, rng: np.random.Generator):
        streams, bins = counts.shape
        self.rng = rng
        # Row b adds one row of bin b to the cumulated counts.
        self._steps = (np.arange(bins + 1) > np.arange(bins)[:, None]).astype(float)
        self._first_bin, self._first_cell = np.arange(streams) * (bins + 1), np.arange(streams) * len(WIDTHS)
        self._factors = np.empty((streams, BETS))
        self.cumulated = np.zeros((streams, bins + 1))
        self.sums = np.zeros((streams, BETS))
        self.densities = np.ones((streams, len(WIDTHS), len(MEMORIES)))
        self.begin(slice(None), counts)

    @property
    def counts(self) -> np.ndarray:
        """Rows in each bin of the bags, (S, B)."""
        return np.diff(self.cumulated)

    def evidence(self) -> np.ndarray:
        """The mean of each variable's sums, (S,)."""
        return np.asarray(self.sums @ MEAN)

    def begin(self, streams: slice, counts: np.ndarray) -> None:
        """Start the tests of some variables again, with bags of ``counts``."""
        self.sums[streams], self.densities[streams] = 0, 1
        self.cumulated[streams] = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))

    def ranks(self, bins: np.ndarray) -> np.ndarray:
        """Bin numbers (n, S) of the next n rows → their ranks (n, S) in [0, 1]; the bags take the rows in."""
        n, streams = bins.shape
        cumulated = np.cumsum(self._steps.take(bins, 0), axis=0)
        cumulated += self.cumulated
        self.cumulated = cumulated[-1].copy()
        # take with flat indices costs a third of indexing with three arrays, and this is done for every prediction.
        places = bins + self._first_bin + (np.arange(n) * self.cumulated.size)[:, None]
        low, high = cumulated.take(places), cumulated.take(places + 1)
        return np.asarray((low + self.rng.random((n, streams)) * (high - low)) / cumulated[:, :, -1])

    def observe(self, bins: np.ndarray) -> np.ndarray:
        """Bin numbers (n, S) of the next n rows → the evidence (n, S) after each: the mean of a variable's sums.

        The same however the rows are cut into calls.
        """
        cells = CELLS.take((self.ranks(bins) * FINEST).astype(np.intp))
        fixed, gains, places = FIXED.take(cells, 0), GAINS.take(cells, 0), cells + self._first_cell
        factors, sums, densities = self._factors, self.sums, self.densities
        at_cells = densities.reshape(-1, len(MEMORIES))
        evidence = np.empty(bins.shape)
        for row, place in enumerate(places):
            factors[:, :FIXED_BETS] = fixed[row]
            factors[:, FIXED_BETS:] = FLOOR + (1 - FLOOR) * at_cells.take(place, 0)
            sums += 1
            sums *= factors
            np.minimum(sums, MAX_SUM, out=sums)
            np.dot(sums, MEAN, out=evidence[row])
            densities *= KEPT
            at_cells[place] += gains[row]
        return evidence


LOGIT_STEPS = np.array([0.12, 0.25, 0.5, 1.0, 2.0])
"""How far, in logits past the dead band, the bets on outcomes believe the truth to be."""
NO_BET = np.ones(len(LOGIT_STEPS))
MIDDLE = (0.2, 0.8)
"""Where a shift of the logit moves a probability farthest: near 0 and 1 a dead band hides it."""


class CalibrationDetector:
    """Are the probabilities calibrated, |P(y = 1 | p) − p| ≤ ``dead_band``? Bets on outcomes y as they come in.

    That rates are higher is bet against m = p + dead_band, that they are lower against m = p − dead_band: the factor
    is 1 + λ (y − m), with mean ≤ 1 under every rate within the band, and λ such that it is the likelihood ratio of
    a rate some logits beyond m against m (Waudby-Smith & Ramdas, 2024, section 4). There are bets that all rates are
    higher, that all are lower, the same two on p in `MIDDLE` alone, and that the truth is nearer to ½ than p
    (over-confidence) or farther. A grid stands for a learned λ: the sum of the best bet soon is most of the mean.

    Assumes that which outcomes come in, and when, does not depend on the outcome.
    """

    def __init__(self, dead_band: float):
        self._dead_band = dead_band
        self.sums = np.zeros((6, len(LOGIT_STEPS)))

    def begin(self) -> None:
        """Start again."""
        self.sums[:] = 0

    def observe(self, probability: float, positive: bool) -> float:
        """Served probability in (0, 1), and whether the positive class came true → the evidence after it, the mean of
        the sums."""
        higher = _factors(probability + self._dead_band, positive, 1)
        lower = _factors(probability - self._dead_band, positive, -1)
        nearer, farther = (lower, higher) if probability >= 0.5 else (higher, lower)
        inside = (higher, lower) if MIDDLE[0] <= probability < MIDDLE[1] else (NO_BET, NO_BET)
        self.sums += 1
        self.sums *= (higher, lower, *inside, nearer, farther)
        np.minimum(self.sums, MAX_SUM, out=self.sums)
        return float(self.sums.mean())


def _factors(m: float, positive: bool, sign: int) -> np.ndarray:
    """P(y | a rate each of `LOGIT_STEPS` beyond m) / P(y | m); 1 where the band leaves no room beyond m."""
    if not 0 < m < 1:
        return NO_BET
    rate = 1 / (1 + np.exp(math.log((1 - m) / m) - sign * LOGIT_STEPS))
    return np.asarray(rate / m if positive else (1 - rate) / (1 - m))
