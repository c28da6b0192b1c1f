"""The inverse of any pointwise loss, from its two slopes: what true probability would make this output the best one."""

from collections.abc import Callable

import numpy as np

from models.calibration.inverse import SATURATED, LossInverse
from models.calibration.logit import logit

Slopes = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""z (n,) → (dL₀/dz, dL₁/dz), both (n,) float64: the slopes of the losses of a row of either class."""

MAX_LOGIT = 20.0
KNOTS = 1001


class InverseError(ValueError):
    """A loss whose minimiser does not tell the true probability."""


def true_logit(slopes: Slopes, logits: np.ndarray) -> np.ndarray:
    """logit η of η = L₀′ / (L₀′ − L₁′) at each logit (n,), NaN where that is no probability.

    The slopes may be taken in z as well as in p: dp/dz cancels. It is the stationary point of the expected loss
    η L₁ + (1 − η) L₀; NaN stands where both losses fall, or both rise, so that no η makes it stationary.
    """
    down, up = slopes(logits)
    possible = (down > 0) & (up < 0)
    true = np.full(len(logits), np.nan)
    true[possible] = np.log(down[possible]) - np.log(-up[possible])
    return true


def numeric_inverse(slopes: Slopes) -> LossInverse:
    """Tabulate `true_logit` over the outputs that stand for a probability in [1 − `SATURATED`, `SATURATED`].

    Straight lines between 1,001 knots are within 3e-4 of the curve in the logit for the losses of the registry.
    Raises InverseError when the curve is not there around z = 0, falls, or does not reach both ends within
    |z| ≤ 20: then an output would stand for two probabilities, or for none.
    """
    coarse = np.linspace(-MAX_LOGIT, MAX_LOGIT, 8001)
    value, limit = true_logit(slopes, coarse), float(logit(np.array(SATURATED)))
    middle = int(np.nanargmin(np.abs(value))) if not np.isnan(value).all() else 0
    inside = np.abs(value) <= limit
    if not inside[middle]:
        raise InverseError("no output of this loss stands for an even chance")
    first = middle - int(np.argmin(inside[: middle + 1][::-1])) + 1
    last = middle + int(np.argmin(inside[middle:])) - 1
    if inside[: middle + 1].all() or inside[middle:].all():
        raise InverseError(f"the outputs up to {MAX_LOGIT:g} do not reach a probability of {SATURATED}")
    fine = np.linspace(coarse[first], coarse[last], KNOTS)
    values = true_logit(slopes, fine)
    if not (np.diff(values) > 0).all() or (inside.sum() != last - first + 1):
        raise InverseError("two true probabilities share one minimiser of this loss")
    return LossInverse(tuple(fine.tolist()), tuple(values.tolist()))
