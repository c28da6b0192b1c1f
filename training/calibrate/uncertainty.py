"""Fit what the model does not know: from held-out logits of several seeds, and those that the final model gives to the
rows that it was trained on."""

from collections.abc import Callable, Sequence

import numpy as np

from models.calibration.logit import logit, sigmoid
from models.calibration.uncertainty import MAX_VARIANCE, Uncertainty

MAP_PARAMETERS = 2
"""Of a calibration map: a slope and an offset, whatever else it has."""
MAX_SHARE = 0.9
"""Of the variance over rows that counts as noise, so that the correction for it stays finite."""

Calibrate = Callable[[np.ndarray], np.ndarray]
"""Scores → calibrated probabilities of the same shape."""


def fit_uncertainty(
    scores: Sequence[np.ndarray], maps: Sequence[Calibrate], seen: np.ndarray, labels: np.ndarray, folds: int
) -> Uncertainty:
    """Held-out `calibration_scores` of at least two seeds, each (n,) or (n, K), by models of ``folds`` ≥ 2 folds, each
    seed's map, the scores ``seen`` of the final model on the same rows, which it was trained on, and labels (n,).

    With z the calibrated log-odds, p the probability and y the label of a row (of each class against all others):

    - between seeds: s² / (1 − s² / var z), s² the mean variance of a row's z between seeds. The divisor is that of a
      regression on a noisy z: given the calibrated z, the true log-odds vary by more than z does around them.
    - rows: two seeds' models share most of their rows. Of the variance q that other rows would give, 1 / (folds − 1) is
      in s² (two random shares 1 − 1/folds of the rows), so that q (folds − 2) / (folds − 1) is left. q is how far a
      row's own label moves its own z: the slope of z_seen − z_held-out on y − p, Σ d r / Σ r². For a logistic
      regression leaving a row out moves its log-odds by x'H⁻¹x times the residual, and x'H⁻¹x is their variance
      (Pregibon, 1981; Giordano et al., 2019, for other models).
    - map: 2 / Σ p (1 − p), the mean variance, weighted by p (1 − p), of log-odds from two fitted parameters.
    """
    columns = [_log_odds(calibrated(z)) for z, calibrated in zip((*scores, seen), (*maps, maps[0]), strict=True)]
    *held_out, final = columns
    each = np.stack(held_out)
    classes = each.shape[2]
    y = (labels[:, None] == np.arange(classes)) if classes > 1 else labels[:, None] == 1
    first = each[0]
    p = sigmoid(first)
    residual = y - p
    spread, over_rows = each.var(axis=0, ddof=1).mean(axis=0), each.var(axis=1).mean(axis=0)
    noise = np.minimum(spread / np.maximum(over_rows, 1e-12), MAX_SHARE)
    moved = ((final - first) * residual).sum(axis=0) / np.maximum((residual**2).sum(axis=0), 1e-12)
    rows = np.maximum(moved, 0) * (folds - 2) / (folds - 1)
    of_map = MAP_PARAMETERS / np.maximum((p * (1 - p)).sum(axis=0), 1e-12)
    parts = (np.minimum(part, MAX_VARIANCE).tolist() for part in (spread / (1 - noise), rows, of_map))
    between_seeds, of_rows, of_map = map(tuple, parts)
    return Uncertainty(seeds=len(scores), between_seeds=between_seeds, rows=of_rows, map=of_map)


def _log_odds(p: np.ndarray) -> np.ndarray:
    """Probabilities (n,), or (n, K) → log-odds (n, 1), or (n, K)."""
    return logit(p[:, None] if p.ndim == 1 else p)
