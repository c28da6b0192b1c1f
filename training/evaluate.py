"""Evaluate a recipe on rows that it did not see, or a finished bundle on labelled rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct, structs

from models.logit import sigmoid
from models.passenger import LABELS, Passenger
from training.calibrate import Inverse, MapRule, fit_record
from training.data import Table
from training.estimates import Estimate, proportion
from training.peers import WORDS, Peer, compare, held_out
from training.scores import Scores, score
from training.subgroups import Subgroup, score_subgroups

if TYPE_CHECKING:  # MLX stays out of what needs only arrays.
    from models.predictor import Prediction


@dataclass(frozen=True)
class Answers:
    """Labelled rows and what was said of each.

    ``labels`` (n,) 0/1; ``calibrated``, ``raw`` (n,) probabilities of survival in (0, 1); ``member`` (n, 2) bool,
    whether the prediction set holds died, survived; ``low``, ``high`` (n,) the interval's ends.
    """

    passengers: tuple[Passenger, ...]
    labels: np.ndarray
    calibrated: np.ndarray
    raw: np.ndarray
    member: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, table: Table, predictions: "Sequence[Prediction]") -> "Answers":
        """A predictor's answers to a table's passengers, in order."""
        confidences = [prediction.confidence for prediction in predictions]
        return cls(
            table.passengers, table.labels, np.array([prediction.probability for prediction in predictions]),
            np.array([one.uncalibrated_probability for one in confidences]),
            np.array([[name in one.prediction_set for name in LABELS] for one in confidences]),
            np.array([one.interval[0] for one in confidences]), np.array([one.interval[1] for one in confidences]),
        )  # fmt: skip


class SetCoverage(Struct, frozen=True, kw_only=True):
    """Conformal sets: nominal and found coverage, over all rows and per class, average size, share that abstains."""

    nominal: float
    overall: Estimate
    by_class: dict[str, Estimate]
    average_size: float
    abstained: float


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
    """What ``evaluation.json`` holds. The last three are of the nested evaluation only."""

    how: str
    rows: int
    calibrated: Scores
    raw: Scores
    sets: SetCoverage
    interval: IntervalValidity
    subgroups: tuple[Subgroup, ...]
    maps_chosen: tuple[str, ...] | None = None
    logistic_regression: PeerScores | None = None
    peers: dict[str, Peer] | None = None


def evaluate_answers(answers: Answers, *, how: str, coverage: float, rng: np.random.Generator) -> Evaluation:
    """All figures of answers whose sets were made for ``coverage``; ``how`` says how they were obtained."""
    y = answers.labels
    return Evaluation(
        how=how, rows=len(y), calibrated=score(answers.calibrated, y, rng), raw=score(answers.raw, y, rng),
        sets=_coverage(answers.member, y, coverage), interval=_interval(answers.low, answers.high, y),
        subgroups=score_subgroups(answers.passengers, y, answers.calibrated, answers.raw, rng),
    )  # fmt: skip


def nested_evaluation(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, passengers: Sequence[Passenger], *,
    inverse: Inverse | None, coverage: float, seed: int, map_rule: MapRule = "least", with_peers: bool = True,
) -> tuple[Evaluation, Answers]:  # fmt: skip
    """Evaluate the recipe on out-of-fold logits (n,), by default beside peers on the same folds (n,).

    For each fold, map, Venn–Abers and sets are fitted on the other folds' logits and judged on this fold, so no row
    is judged by a model or a calibration that saw its label — with one remainder: the *models* that gave the other
    folds' logits had this fold's rows among their training rows. That is what cross-fitting leaves (Barber et al.,
    2021), and with one or no fitted parameter in the map it is far below the standard errors quoted.
    """
    settings: dict[str, Any] = {"inverse": inverse, "coverage": coverage, "seed": seed, "map_rule": map_rule}
    answers, chosen = _cross_calibrated(logits, labels, folds, passengers, settings)
    rng = np.random.default_rng(seed)
    how = f"{len(np.unique(folds))}-fold cross-fitting; each fold calibrated on the other folds' held-out logits"
    if not with_peers:
        evaluation = evaluate_answers(answers, how=how, coverage=coverage, rng=rng)
        return structs.replace(evaluation, maps_chosen=chosen), answers
    probabilities = held_out(passengers, labels, folds, seed)
    peers = compare(answers.calibrated, probabilities, labels, passengers)
    words = PeerScores(
        scores=score(probabilities[WORDS], labels, rng), log_loss_difference=peers[WORDS].log_loss_difference
    )
    evaluation = evaluate_answers(answers, how=how, coverage=coverage, rng=rng)
    return structs.replace(evaluation, maps_chosen=chosen, logistic_regression=words, peers=peers), answers


def _cross_calibrated(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, passengers: Sequence[Passenger], settings: dict[str, Any]
) -> tuple[Answers, tuple[str, ...]]:
    """Answers to each fold's rows by a calibration fitted on the other folds, and the map chosen for each fold."""
    p, p0, p1 = np.empty(len(labels)), np.empty(len(labels)), np.empty(len(labels))
    member = np.empty((len(labels), 2), bool)
    chosen = []
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        record = fit_record(logits[rest], labels[rest], [passengers[i] for i in rest.tolist()], **settings)
        chosen.append(next(candidate.name for candidate in record.candidates if candidate.chosen))
        p[here], (p0[here], p1[here]) = record.map.probabilities(logits[here]), record.venn_abers.interval(logits[here])
        member[here] = record.conformal.sets(p[here])
    answers = Answers(
        tuple(passengers), labels, p, sigmoid(logits), member, np.minimum(p0, p), np.maximum(p1, p)
    )  # fmt: skip
    return answers, tuple(chosen)


def _coverage(member: np.ndarray, labels: np.ndarray, nominal: float) -> SetCoverage:
    held = member[np.arange(len(labels)), labels]
    size = member.sum(axis=1)
    return SetCoverage(
        nominal=nominal, overall=proportion(held), average_size=float(size.mean()), abstained=float((size != 1).mean()),
        by_class={name: proportion(held[labels == index]) for index, name in enumerate(LABELS)},
    )  # fmt: skip


def _interval(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> IntervalValidity:
    observed = float(labels.mean())
    return IntervalValidity(
        mean_low=float(low.mean()), mean_high=float(high.mean()), observed=proportion(labels == 1),
        average_width=float((high - low).mean()),
        outside_by=max(0.0, float(low.mean()) - observed, observed - float(high.mean())),
    )  # fmt: skip
