"""The calibration test of K > 2 classes: bets on each class against the rest, and on the likeliest one."""

from collections.abc import Sequence

import numpy as np

from service.drift.detectors import LOGIT_STEPS, MAX_SUM, MIDDLE

ODDS = np.exp(np.stack([-LOGIT_STEPS, LOGIT_STEPS]))
"""What the odds against a class are multiplied by where its rate is some logits higher, and lower."""


class ClasswiseCalibrationDetector:
    """Are the probabilities of K classes calibrated, |P(y = k | p) − p_k| ≤ ``dead_band`` for every class k?

    The bets of `CalibrationDetector`, on each class against the rest and on whether the outcome is the class with the
    greatest probability ("top label"; Gupta & Ramdas, 2022). Given all before and the row's K probabilities, each
    factor has a mean ≤ 1 while every rate is within the band, however the classes are tied together. So all are
    e-detectors of one and the same sequence, and so is the mean of their sums (Shin, Ramdas & Rinaldo, 2024,
    section 2; that a mean of e-values is one, whatever their dependence: Vovk & Wang, 2021, section 3). It costs at
    most ln(K + 1) of evidence.

    Assumes that which outcomes come in, and when, does not depend on the outcome.
    """

    def __init__(self, dead_band: float, classes: int):
        self._dead_band, self._classes = dead_band, np.arange(classes)
        self.sums = np.zeros((classes + 1, 6, len(LOGIT_STEPS)))

    def begin(self) -> None:
        """Start again."""
        self.sums[:] = 0

    def observe(self, probabilities: Sequence[float], label: int) -> float:
        """Served probabilities (K,), and the number of the class that came true → the evidence after it, the mean of
        the sums."""
        p = np.array(probabilities)
        top = int(p.argmax())
        self.sums += 1
        self.sums *= factors(
            np.append(p, p[top]), np.append(self._classes == label, label == top), self._dead_band
        )  # fmt: skip
        np.minimum(self.sums, MAX_SUM, out=self.sums)
        return float(self.sums.mean())


def factors(p: np.ndarray, happened: np.ndarray, dead_band: float) -> np.ndarray:
    """The factors (C, 6, 5) of the bets of `CalibrationDetector` on C events, of their probabilities (C,) and whether
    each happened (C,)."""
    m = np.stack([p + dead_band, p - dead_band], axis=1)
    possible = (m > 0) & (m < 1)
    m = np.where(possible, m, 0.5)[:, :, None]
    rate = 1 / (1 + (1 - m) / m * ODDS)
    beyond = np.where(happened[:, None, None], rate / m, (1 - rate) / (1 - m))
    beyond = np.where(possible[:, :, None], beyond, 1.0)
    middle = ((p >= MIDDLE[0]) & (p < MIDDLE[1]))[:, None, None]
    nearer_first = np.where((p >= 0.5)[:, None, None], beyond[:, ::-1], beyond)
    return np.concatenate([beyond, np.where(middle, beyond, 1.0), nearer_first], axis=1)
