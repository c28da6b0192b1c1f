"""Evaluate a recipe on rows that it did not see: each fold's calibration is fitted on the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from msgspec import structs

from models.calibration.logit import calibration_scores, score_probabilities
from models.calibration.maps import CalibrationMap
from models.calibration.uncertainty import Uncertainty
from models.calibration.venn_abers import venn_abers_interval
from models.rows import Row
from models.schema import Schema
from models.text import Renderer
from training.calibrate.choice import Inverse, MapRule, chosen_map
from training.calibrate.record import fit_intervals
from training.calibrate.sets_choice import SetsBy
from training.calibrate.stack import NO_STACK, StackSettings, choose_stack
from training.evaluate.baselines import compare_baselines, held_out_probabilities
from training.evaluate.clusters.dependence import Dependence
from training.evaluate.evaluation import AnyEvaluation, evaluate_predictions
from training.evaluate.folds import FOLDS, Units, make_folds
from training.evaluate.groups import Members, members
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.sets.cross_fitted import CrossFittedSets
from training.evaluate.stack import compare_stack

Choose = Callable[[int, np.ndarray], tuple[str, CalibrationMap, np.ndarray]]
"""The number of a part and the places of all other rows → the map fitted on those, its name, and the scores of all rows
that it is applied to."""


def nested_evaluation(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, rows: Sequence[Row], schema: Schema,
    known: Sequence[Any], *, inverse: Inverse | None, coverage: float, seed: int, map_rule: MapRule = "least",
    sets_by: str | None = None, with_baselines: bool = True, units: Units | None = None,
    seconds: Mapping[str, np.ndarray] | None = None, stacking: StackSettings = NO_STACK,
    uncertainty: Uncertainty | None = None,
) -> tuple[AnyEvaluation, LabelledPredictions]:  # fmt: skip
    """Evaluate the recipe on out-of-fold logits (n, K), by default beside baselines on the same folds (n,).

    Rows whose fold is `folds.TRAINED_ON` are scored by nobody; a single fold is a part that was held out, and its rows
    are divided once more, for the calibration alone.

    ``units`` are the rows that stay together, by default none (`Dependence`). With ``stacking``, each fold's stack, the
    choice of its second models too, is fitted on the other folds' scores, as the map is; ``seconds`` are the second
    models' held-out scores.

    ``known`` is what the schema's feature knows for each fold's model and baselines: none of the fold's own rows.
    For each fold, map, Venn–Abers and sets (with the field that they are by, where ``sets_by`` and the schema name
    none) are fitted on the other folds' logits and scored on this fold, so no row
    is scored by a model or a calibration that saw its label — with two remainders: ``uncertainty``, three variances
    of all rows, and the *models* that gave the other
    folds' logits had this fold's rows among their training rows. That is what cross-fitting leaves
    (Barber et al., 2021); what it does is not in the standard errors.
    """
    held = np.flatnonzero(folds >= 0)
    scores, y, parts = calibration_scores(logits[held]), labels[held], folds[held]
    groups = members([rows[at] for at in held.tolist()], schema, [known[fold] for fold in parts.tolist()])
    how = f"{int(folds.max()) + 1}-fold cross-fitting; each fold calibrated on the other folds' held-out logits"
    if not parts.any():
        parts = make_folds(y, min(FOLDS, int(np.bincount(y).min())), seed)
        how = (
            f"{len(held)} of {len(labels)} rows held out, each of {int(parts.max()) + 1} parts calibrated on the others"
        )

    others = {name: each[held] for name, each in (seconds or {}).items()}
    stacks = [
        choose_stack(
            scores[rest], {name: each[rest] for name, each in others.items()}, y[rest], inverse, seed, stacking
        )
        for rest in (np.flatnonzero(parts != part) for part in np.unique(parts))
    ]

    def alone(part: int, places: np.ndarray) -> tuple[str, CalibrationMap, np.ndarray]:
        return *chosen_map(scores[places], y[places], inverse, seed, map_rule), scores

    def choose(part: int, places: np.ndarray) -> tuple[str, CalibrationMap, np.ndarray]:
        if (stack := stacks[part]) is None:
            return alone(part, places)
        stacked = stack(scores, others)
        return *chosen_map(stacked[places], y[places], None, seed, map_rule, stacked=True), stacked

    dependence = _dependence(rows, schema, known, folds, units)
    of_rows = SetsBy.of([rows[at] for at in held.tolist()], schema, sets_by)
    sets = CrossFittedSets(of_rows, y, schema, coverage, dependence.errors)
    predictions, chosen = _cross_calibrated(scores, y, parts, schema, groups, sets, choose, uncertainty)
    predictions = replace(predictions, dependence=dependence)
    comparison = None
    if stacking.candidates:
        p_alone = _calibrated_alone(scores, parts, alone)
        comparison = compare_stack(stacks, predictions.calibrated, p_alone, others, y, dependence.errors)
    rng = np.random.default_rng(seed)
    baselines = None
    if with_baselines:
        probabilities = held_out_probabilities(rows, labels, folds, schema, known, seed, seconds or {})
        compared = {name: p[held] for name, p in probabilities.items()}
        baselines = compare_baselines(predictions.calibrated, compared, y, groups, schema.classes, dependence.errors)
    evaluation = evaluate_predictions(predictions, how=how, coverage=coverage, rng=rng)
    return structs.replace(
        evaluation, sets_at=sets.coverages(), conditional_sets=sets.conditional(groups), maps_chosen=chosen,
        baselines=baselines, stack=comparison,
    ), predictions  # fmt: skip


def _dependence(
    rows: Sequence[Row], schema: Schema, known: Sequence[Any], folds: np.ndarray, units: Units | None
) -> Dependence:
    """Of the rows that are in a fold, by what the model of that fold reads of them."""
    held, renderer = np.flatnonzero(folds >= 0), Renderer(schema)
    texts = [renderer(rows[at], known[folds[at]]) for at in held.tolist()]
    of_row = np.arange(len(rows)) if units is None else units.of_row
    return Dependence.of(of_row[held], texts)


def _cross_calibrated(
    scores: np.ndarray, labels: np.ndarray, folds: np.ndarray, schema: Schema, groups: Members,
    sets: CrossFittedSets, choose: Choose, uncertainty: Uncertainty | None,
) -> tuple[LabelledPredictions, tuple[str, ...]]:  # fmt: skip
    """Predictions of each fold's rows by a calibration fitted on the other folds, and its map; ``scores`` are the raw
    ones, ``sets`` are filled."""
    p, p0, p1 = np.empty_like(scores), np.empty_like(scores), np.empty_like(scores)
    chosen = []
    for part, fold in enumerate(np.unique(folds)):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        name, fitted, used = choose(part, rest)
        chosen.append(name)
        p[here], p_rest = fitted.probabilities(used[here]), fitted.probabilities(used[rest])
        p0[here], p1[here] = venn_abers_interval(fit_intervals(used[rest], labels[rest]), used[here])
        sets.fit(rest, here, p_rest, p[here])
    low, high = (p0, p1) if uncertainty is None else uncertainty.interval(p, p0, p1)
    predictions = LabelledPredictions(
        schema, groups, labels, p, score_probabilities(scores), sets.member, np.minimum(low, p), np.maximum(high, p)
    )
    return predictions, tuple(chosen)


def _calibrated_alone(scores: np.ndarray, folds: np.ndarray, choose: Choose) -> np.ndarray:
    """Probabilities of each fold's rows by the model alone, under a map fitted on the other folds."""
    p = np.empty_like(scores)
    for part, fold in enumerate(np.unique(folds)):
        here = np.flatnonzero(folds == fold)
        _, fitted, used = choose(part, np.flatnonzero(folds != fold))
        p[here] = fitted.probabilities(used[here])
    return p
