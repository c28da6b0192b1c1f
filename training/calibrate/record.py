"""Fit all that calibration.json holds: the map, Venn–Abers, conformal sets, typicality."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from models.bert.tokenizer import Tokenizer
from models.calibration.confidence import CalibrationRecord
from models.calibration.conformal import ConformalSets
from models.calibration.logit import calibration_scores, class_probabilities
from models.calibration.typicality import Typicality
from models.calibration.venn_abers import VennAbers, rounded_log_odds
from models.reference import InputBinner
from models.rows import Row
from models.schema import Schema
from training.calibrate.choice import Inverse, MapRule, fit_map
from training.calibrate.maps import fit_venn_abers

MAX_BAG_VALUES = 60_000
"""Rows times fields of the typicality's bag: a request compares itself with all of them."""


def fit_record(
    logits: np.ndarray, labels: np.ndarray, rows: Sequence[Row], schema: Schema, *, inverse: Inverse | None,
    coverage: float, seed: int, map_rule: MapRule = "least", tokenizer: Tokenizer | None = None,
) -> CalibrationRecord:  # fmt: skip
    """Everything that a bundle needs to turn logits (n, K) into trusted probabilities; ``tokenizer`` as of
    `InputBinner`."""
    scores = calibration_scores(logits)
    chosen, candidates = fit_map(scores, labels, inverse, seed, map_rule)
    return CalibrationRecord(
        rows=len(labels), map=chosen, candidates=candidates, venn_abers=fit_intervals(scores, labels),
        conformal=fit_sets(class_probabilities(chosen.probabilities(scores)), labels, coverage),
        typicality=fit_typicality(rows, schema, np.random.default_rng(seed), tokenizer), map_rule=map_rule,
    )  # fmt: skip


def fit_intervals(scores: np.ndarray, labels: np.ndarray) -> VennAbers | tuple[VennAbers, ...]:
    """`calibration_scores` and labels (n,) → the predictor of the positive of two classes, or of each of more."""
    if scores.ndim == 1:
        return fit_venn_abers(scores, labels)
    return tuple(
        fit_venn_abers(z, (labels == number).astype(np.int64)).condensed()
        for number, z in enumerate(rounded_log_odds(scores).T)
    )


def fit_sets(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> ConformalSets:
    """Probabilities (n, K) → thresholds: the ⌈(n_class + 1) coverage⌉-th smallest 1 − p_class of each class's rows, 1
    where they are too few."""

    def threshold(non_conformity: np.ndarray) -> float:
        # By fractions: 100 · 0.55 is 55.00000000000001 in floats, a rank too many.
        rank = math.ceil((len(non_conformity) + 1) * Fraction(str(coverage)))
        return float(np.sort(non_conformity)[rank - 1]) if rank <= len(non_conformity) else 1.0

    scores = 1 - probabilities
    return ConformalSets(
        coverage=coverage,
        thresholds=tuple(threshold(scores[labels == k, k]) for k in range(probabilities.shape[1])),
    )  # fmt: skip


def fit_typicality(
    rows: Sequence[Row], schema: Schema, rng: np.random.Generator, tokenizer: Tokenizer | None = None
) -> Typicality:
    """The bag of the calibration rows' bin numbers, or of a random sample of them where they are many.

    A p-value is as valid with a sample, which is exchangeable with a new row too.
    """
    size = max(100, MAX_BAG_VALUES // len(schema.fields))
    chosen = rows if len(rows) <= size else [rows[at] for at in rng.choice(len(rows), size, replace=False)]
    patterns, weights = np.unique(InputBinner(schema, tokenizer).array(chosen), axis=0, return_counts=True)
    return Typicality(
        tuple(len(bins.names) for bins in schema.input_bins), tuple(map(tuple, patterns.tolist())),
        tuple(weights.tolist()),
    )  # fmt: skip
