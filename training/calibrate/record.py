"""Fit all that calibration.json holds: the map, Venn–Abers, conformal sets, typicality."""

from collections.abc import Sequence

import numpy as np

from models.bert.tokenizer import Tokenizer
from models.bins.input_binner import InputBinner
from models.calibration.confidence import CalibrationRecord
from models.calibration.logit import calibration_scores, class_probabilities
from models.calibration.typicality import Typicality
from models.calibration.venn_abers import VennAbers, rounded_log_odds
from models.rows import Row
from models.schema import Schema
from training.calibrate.choice import Inverse, MapRule, fit_map
from training.calibrate.maps import fit_venn_abers
from training.calibrate.sets_choice import SetsBy
from training.calibrate.stack import NO_STACK, Scores, StackSettings, choose_stack

MAX_BAG_VALUES = 60_000
"""Rows times fields of the typicality's bag: a request compares itself with all of them."""


def fit_record(
    logits: np.ndarray, labels: np.ndarray, rows: Sequence[Row], schema: Schema, *, inverse: Inverse | None,
    coverage: float, seed: int, map_rule: MapRule = "least", sets_by: str | None = None,
    tokenizer: Tokenizer | None = None, seconds: Scores | None = None, stacking: StackSettings = NO_STACK,
) -> CalibrationRecord:  # fmt: skip
    """Everything that a bundle needs to turn logits (n, K) into trusted probabilities; ``tokenizer`` as of
    `InputBinner`, ``sets_by`` as of `SetsBy`, ``seconds`` the second models' scores of the same rows."""
    scores = calibration_scores(logits)
    stack = choose_stack(scores, seconds or {}, labels, inverse, seed, stacking)
    if stack is not None:
        scores, inverse = stack(scores, seconds or {}), None
    chosen, candidates = fit_map(scores, labels, inverse, seed, map_rule, stack is not None)
    p = class_probabilities(chosen.probabilities(scores))
    return CalibrationRecord(
        rows=len(labels), map=chosen, candidates=candidates, venn_abers=fit_intervals(scores, labels),
        conformal=SetsBy.of(rows, schema, sets_by).fit(p, labels, coverage),
        typicality=fit_typicality(rows, schema, np.random.default_rng(seed), tokenizer), map_rule=map_rule,
        stack=stack,
    )  # fmt: skip


def fit_intervals(scores: np.ndarray, labels: np.ndarray) -> VennAbers | tuple[VennAbers, ...]:
    """`calibration_scores` and labels (n,) → the predictor of the positive of two classes, or of each of more."""
    if scores.ndim == 1:
        return fit_venn_abers(scores, labels)
    return tuple(
        fit_venn_abers(z, (labels == number).astype(np.int64)).condensed()
        for number, z in enumerate(rounded_log_odds(scores).T)
    )


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
