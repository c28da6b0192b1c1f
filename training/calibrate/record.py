"""Fit all that calibration.json holds: the map, Venn–Abers, conformal sets, typicality."""

import math
from collections.abc import Sequence

import numpy as np

from models.calibration.confidence import CalibrationRecord
from models.calibration.conformal import ConformalSets
from models.calibration.typicality import Typicality
from models.passenger import Passenger
from models.reference import input_bins
from training.calibrate.choice import Inverse, MapRule, fit_map
from training.calibrate.maps import fit_venn_abers


def fit_record(
    logits: np.ndarray, labels: np.ndarray, passengers: Sequence[Passenger], *, inverse: Inverse | None,
    coverage: float, seed: int, map_rule: MapRule = "least",
) -> CalibrationRecord:  # fmt: skip
    """Everything that a bundle needs to turn logits (n,) into trusted probabilities."""
    chosen, candidates = fit_map(logits, labels, inverse, seed, map_rule)
    return CalibrationRecord(
        rows=len(labels), map=chosen, candidates=candidates, venn_abers=fit_venn_abers(logits, labels),
        conformal=fit_sets(chosen.probabilities(logits), labels, coverage), typicality=fit_typicality(passengers),
        map_rule=map_rule,
    )  # fmt: skip


def fit_sets(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> ConformalSets:
    """Thresholds: the ⌈(n_class + 1) coverage⌉-th smallest 1 − p_class of the class's rows, 1 if they are too few."""

    def threshold(non_conformity: np.ndarray) -> float:
        rank = math.ceil((len(non_conformity) + 1) * coverage)
        return float(np.sort(non_conformity)[rank - 1]) if rank <= len(non_conformity) else 1.0

    died, survived = probabilities[labels == 0], 1 - probabilities[labels == 1]
    return ConformalSets(coverage=coverage, died=threshold(died), survived=threshold(survived))


def fit_typicality(passengers: Sequence[Passenger]) -> Typicality:
    """The bag of the calibration rows' bin numbers."""
    patterns, weights = np.unique(input_bins(passengers), axis=0, return_counts=True)
    return Typicality(tuple(tuple(row) for row in patterns.tolist()), tuple(weights.tolist()))
