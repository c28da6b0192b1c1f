"""Evaluate a recipe on rows that it did not see, or a finished bundle on labelled rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct, structs

from models.logit import sigmoid
from models.passenger import LABELS, Companions, Passenger
from training.calibrate import Inverse, MapRule, fit_record, fit_sets
from training.data import Table
from training.estimates import Estimate, proportion
from training.peers import WORDS, Peer, compare, held_out
from training.risk import SetCoverage, risk_coverage, set_coverage
from training.scores import Scores, score
from training.subgroups import Members, Subgroup, members, score_subgroups

if TYPE_CHECKING:  # MLX stays out of what needs only arrays.
    from models.predictor import Prediction


@dataclass(frozen=True)
class Answers:
    """Labelled rows and what was said of each.

    ``labels`` (n,) 0/1; ``calibrated``, ``raw`` (n,) probabilities of survival in (0, 1); ``member`` (n, 2) bool,
    whether the prediction set holds died, survived; ``low``, ``high`` (n,) the interval's ends.
    """

    groups: Members
    labels: np.ndarray
    calibrated: np.ndarray
    raw: np.ndarray
    member: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, table: Table, predictions: "Sequence[Prediction]", companions: Companions) -> "Answers":
        """A predictor's answers to a table's passengers, in order; ``companions`` are its bundle's."""
        confidences = [prediction.confidence for prediction in predictions]
        return cls(
            members(table.passengers, [companions] * len(table)), table.labels,
            np.array([prediction.probability for prediction in predictions]),
            np.array([one.uncalibrated_probability for one in confidences]),
            np.array([[name in one.prediction_set for name in LABELS] for one in confidences]),
            np.array([one.interval[0] for one in confidences]), np.array([one.interval[1] for one in confidences]),
        )  # fmt: skip


COVERAGES = (0.8, 0.9, 0.95)
"""Nominal coverages that the nested evaluation reports, whatever the bundle's own."""


class RiskArea(Struct, frozen=True, kw_only=True):
    """Mean error over all shares of rows answered, most certain first; see `risk.RiskCoverage` for the other two."""

    area: float
    random: float
    oracle: float


class IntervalValidity(Struct, frozen=True, kw_only=True):
    """Venn–Abers intervals: calibrated ones hold the observed rate between the mean p0 and the mean p1."""

    mean_low: float
    mean_high: float
    observed: Estimate
    average_width: float
    outside_by: float


class PeerScores(Struct, frozen=True, kw_only=True):
    """All scores of one peer, and our log loss minus its (paired, over rows)."""

    scores: Scores
    log_loss_difference: Estimate


class Evaluation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``evaluation.json`` holds; what has a default is of the nested evaluation only.

    ``sets`` are at the bundle's coverage, ``sets_at`` at `COVERAGES`.
    """

    how: str
    rows: int
    calibrated: Scores
    raw: Scores
    sets: SetCoverage
    risk: RiskArea
    interval: IntervalValidity
    subgroups: tuple[Subgroup, ...]
    sets_at: tuple[SetCoverage, ...] | None = None
    maps_chosen: tuple[str, ...] | None = None
    logistic_regression: PeerScores | None = None
    peers: dict[str, Peer] | None = None


def evaluate_answers(answers: Answers, *, how: str, coverage: float, rng: np.random.Generator) -> Evaluation:
    """All figures of answers whose sets were made for ``coverage``; ``how`` says how they were obtained."""
    y, curve = answers.labels, risk_coverage(answers.calibrated, answers.labels)
    return Evaluation(
        how=how, rows=len(y), calibrated=score(answers.calibrated, y, rng), raw=score(answers.raw, y, rng),
        sets=set_coverage(answers.member, y, coverage), interval=_interval(answers.low, answers.high, y),
        risk=RiskArea(area=curve.area, random=curve.random, oracle=curve.oracle),
        subgroups=score_subgroups(answers.groups, y, answers.calibrated, answers.raw, rng),
    )  # fmt: skip


def nested_evaluation(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, passengers: Sequence[Passenger], *,
    companions: Sequence[Companions], inverse: Inverse | None, coverage: float, seed: int,
    map_rule: MapRule = "least", with_peers: bool = True,
) -> tuple[Evaluation, Answers]:  # fmt: skip
    """Evaluate the recipe on out-of-fold logits (n,), by default beside peers on the same folds (n,).

    ``companions`` are those that each fold's model and peers are told of: none of the fold's own rows.
    For each fold, map, Venn–Abers and sets are fitted on the other folds' logits and judged on this fold, so no row
    is judged by a model or a calibration that saw its label — with one remainder: the *models* that gave the other
    folds' logits had this fold's rows among their training rows and companions. That is what cross-fitting leaves
    (Barber et al., 2021), and with one or no fitted parameter in the map it is far below the standard errors quoted.
    """
    settings: dict[str, Any] = {"inverse": inverse, "coverage": coverage, "seed": seed, "map_rule": map_rule}
    answers, sets_at, chosen = _cross_calibrated(logits, labels, folds, passengers, companions, settings)
    rng = np.random.default_rng(seed)
    how = f"{len(np.unique(folds))}-fold cross-fitting; each fold calibrated on the other folds' held-out logits"
    if not with_peers:
        evaluation = evaluate_answers(answers, how=how, coverage=coverage, rng=rng)
        return structs.replace(evaluation, sets_at=sets_at, maps_chosen=chosen), answers
    probabilities = held_out(passengers, labels, folds, companions, seed)
    peers = compare(answers.calibrated, probabilities, labels, answers.groups)
    words = PeerScores(
        scores=score(probabilities[WORDS], labels, rng), log_loss_difference=peers[WORDS].log_loss_difference
    )
    evaluation = evaluate_answers(answers, how=how, coverage=coverage, rng=rng)
    evaluation = structs.replace(
        evaluation, sets_at=sets_at, maps_chosen=chosen, logistic_regression=words, peers=peers
    )  # fmt: skip
    return evaluation, answers


def _cross_calibrated(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, passengers: Sequence[Passenger],
    companions: Sequence[Companions], settings: dict[str, Any],
) -> tuple[Answers, tuple[SetCoverage, ...], tuple[str, ...]]:  # fmt: skip
    """Answers to each fold's rows by a calibration fitted on the other folds, its sets at `COVERAGES`, its map."""
    p, p0, p1 = np.empty(len(labels)), np.empty(len(labels)), np.empty(len(labels))
    member, members_at = np.empty((len(labels), 2), bool), np.empty((len(COVERAGES), len(labels), 2), bool)
    chosen = []
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        record = fit_record(logits[rest], labels[rest], [passengers[i] for i in rest.tolist()], **settings)
        chosen.append(next(candidate.name for candidate in record.candidates if candidate.chosen))
        p[here], (p0[here], p1[here]) = record.map.probabilities(logits[here]), record.venn_abers.interval(logits[here])
        member[here], known = record.conformal.sets(p[here]), record.map.probabilities(logits[rest])
        for found, nominal in zip(members_at, COVERAGES, strict=True):
            found[here] = fit_sets(known, labels[rest], nominal).sets(p[here])
    groups = members(passengers, [companions[fold] for fold in folds.tolist()])
    answers = Answers(groups, labels, p, sigmoid(logits), member, np.minimum(p0, p), np.maximum(p1, p))
    sets_at = tuple(map(set_coverage, members_at, [labels] * len(COVERAGES), COVERAGES))
    return answers, sets_at, tuple(chosen)


def _interval(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> IntervalValidity:
    observed = float(labels.mean())
    return IntervalValidity(
        mean_low=float(low.mean()), mean_high=float(high.mean()), observed=proportion(labels == 1),
        average_width=float((high - low).mean()),
        outside_by=max(0.0, float(low.mean()) - observed, observed - float(high.mean())),
    )  # fmt: skip
