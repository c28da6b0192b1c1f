"""May a new bundle take an old one's place? A decision by paired tests on rows that neither saw, with a stated risk.

Every criterion must be shown to be no worse than its limit allows, each by a test at the level of the risk. A candidate
that is in truth past a limit, by whichever criterion, must pass that criterion's test to be promoted, which it does
with a chance of at most the risk: the chances do not add up over criteria (the intersection–union test; Berger, 1982,
"Multiparameter hypothesis testing and acceptance sampling"). So the risk is of a wrong promotion and holds for all
criteria together. A refusal claims nothing; where a candidate is *shown* to be worse, Holm's method keeps the chance of
even one such wrong claim within the risk.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from models.bundle.read import Bundle
from training.calibrate.maps import log_losses
from training.data.source import DataError
from training.data.table import Table
from training.evaluate.comparisons.paired import holm
from training.evaluate.groups import Members, group_title, members
from training.evaluate.predictions import probabilities
from training.promote.clusters import row_clusters
from training.promote.noninferiority import Bound, calibration_bound, mean_bound, median_bound

if TYPE_CHECKING:
    from models.predictor import Predictor

MIN_ROWS = 200
"""With fewer, bounds for losses as skewed as these are not to be trusted."""
MIN_GROUP_ROWS = 50
"""A subgroup of fewer rows decides nothing."""
TIMED_ROWS = 64
Verdict = Literal["passed", "not shown", "worse", "too few rows"]


class PromotionLimits(Struct, frozen=True, kw_only=True):
    """What a candidate may be worse by, and the chance of promoting one that is worse than that.

    ``log_loss`` and ``subgroup_log_loss`` in nats over the current bundle's; ``calibration`` in probability: squared
    calibration errors differ by less than its square; ``slower`` the ratio of the times per row.
    """

    risk: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    log_loss: Annotated[float, Meta(ge=0, le=1)] = 0.02
    subgroup_log_loss: Annotated[float, Meta(ge=0, le=1)] = 0.1
    calibration: Annotated[float, Meta(gt=0, le=0.5)] = 0.1
    slower: Annotated[float, Meta(ge=1, le=100)] = 1.25


class Criterion(Struct, frozen=True, kw_only=True):
    """One figure of both bundles; it passes where ``bound``, at the level of the risk, is below ``limit``.

    ``difference`` is candidate less current, or their ratio for the time, and ``bound`` the upper bound of it.
    ``rows_needed``: how many rows like these would show what is not shown, if the estimate stayed as it is; None where
    more rows would not help.
    """

    name: str
    rows: int
    candidate: float
    current: float
    difference: float
    standard_error: float
    bound: float
    limit: float
    verdict: Verdict
    rows_needed: int | None = None


class Promotion(Struct, frozen=True, kw_only=True):
    """The decision, as it is kept beside the candidate. ``caveats`` are what the tests cannot know."""

    promoted: bool
    decided: str
    candidate: str
    current: str
    data_sha256: str
    rows: int
    clusters: int
    limits: PromotionLimits
    risk: str
    criteria: tuple[Criterion, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class PairedPredictions:
    """Both bundles' predictions of the same rows: labels (n,), probabilities in (0, 1), (n,) of the positive of two
    classes or (n, K), clusters (n,), and the seconds of each round of timing, (rounds, 2) of candidate and current."""

    labels: np.ndarray
    candidate: np.ndarray
    current: np.ndarray
    clusters: np.ndarray
    groups: Members
    seconds: np.ndarray


def predict_with_both(
    tables: Sequence[Table], predictors: "Sequence[Predictor]", rounds: int, seed: int
) -> PairedPredictions:
    """The candidate's and the current bundle's predictions of all rows, and their times in alternation.

    ``tables`` are the same rows, as each bundle's schema reads them. Raises DataError for too few rows.
    """
    table = tables[0]
    if len(table) < MIN_ROWS:
        raise DataError(f"{len(table)} rows are too few to decide; at least {MIN_ROWS} are needed")
    ours, theirs = (
        probabilities(predictor.predict_checked(each.rows)) for predictor, each in zip(predictors, tables, strict=True)
    )
    groups = members(table.rows, table.schema, [predictors[0].bundle.known] * len(table))
    return PairedPredictions(
        table.labels, ours, theirs, row_clusters(table), groups,
        _times(tables, predictors, rounds, np.random.default_rng(seed)),
    )  # fmt: skip


def _times(tables: Sequence[Table], pair: "Sequence[Predictor]", rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Seconds per row (rounds, 2): in each round both predict the same few rows, in random order."""
    seconds, count = np.empty((rounds, 2)), len(tables[0])
    for predictor in pair:
        predictor.warm_up()
    for of_round in seconds:
        chosen = rng.choice(count, min(TIMED_ROWS, count), replace=False)
        for which in rng.permutation(2):
            rows = [tables[which].rows[row] for row in chosen]
            start = time.perf_counter()
            pair[which].predict_checked(rows)
            of_round[which] = (time.perf_counter() - start) / len(rows)
    return seconds


def evaluate_criteria(predictions: PairedPredictions, limits: PromotionLimits, seed: int) -> tuple[Criterion, ...]:
    """All criteria: log loss, calibration error, log loss of each subgroup, time."""
    losses = [log_losses(p, predictions.labels) for p in (predictions.candidate, predictions.current)]
    all_rows = np.arange(len(predictions.labels))
    chosen = {"log loss": (all_rows, limits.log_loss)} | {
        f"log loss, {group_title(attribute, group)}": (rows, limits.subgroup_log_loss)
        for (attribute, group), rows in predictions.groups.items()
    }
    bounds = {
        name: mean_bound((losses[0] - losses[1])[rows], predictions.clusters[rows], limits.risk)
        for name, (rows, _) in chosen.items()
    }
    tested = [name for name, (rows, _) in chosen.items() if len(rows) >= MIN_GROUP_ROWS]
    p_values = [bounds[name].worse_p for name in tested]
    worse = {tested[place] for place in np.argsort(p_values)[: holm(p_values, limits.risk)]}
    criteria = [
        _of_mean(name, [float(loss[rows].mean()) for loss in losses], bounds[name], limit, len(rows), name in worse)
        for name, (rows, limit) in chosen.items()
    ]
    return (criteria[0], _calibration(predictions, limits, seed), *criteria[1:], _time_ratio(predictions, limits))


def _of_mean(name: str, means: list[float], bound: Bound, limit: float, rows: int, worse: bool) -> Criterion:
    verdict: Verdict = "passed" if bound.upper < limit else "worse" if worse else "not shown"
    if rows < MIN_GROUP_ROWS:
        verdict = "too few rows"
    needed = None
    if verdict == "not shown" and bound.value < limit and np.isfinite(bound.upper):
        needed = int(np.ceil(rows * ((bound.upper - bound.value) / (limit - bound.value)) ** 2))
    return Criterion(
        name=name, rows=rows, candidate=means[0], current=means[1], difference=bound.value,
        standard_error=bound.standard_error, bound=bound.upper, limit=limit, verdict=verdict, rows_needed=needed,
    )  # fmt: skip


def _calibration(predictions: PairedPredictions, limits: PromotionLimits, seed: int) -> Criterion:
    """Root mean square calibration errors, of more than two classes over the classes too. ``difference`` is the root of
    the squares' difference, with its sign.

    The bound is of squares, which near 0 have a standard error where roots have none.
    """
    candidate, current = predictions.candidate, predictions.current
    ours, theirs, excess = (
        calibration_bound(p, predictions.labels, predictions.clusters, limits.risk, np.random.default_rng(seed), over)
        for p, over in ((candidate, None), (current, None), (candidate, current))
    )
    bound = _root(excess.upper)
    return Criterion(
        name="calibration error", rows=len(predictions.labels), candidate=max(_root(ours.value), 0.0),
        current=max(_root(theirs.value), 0.0), difference=_root(excess.value), standard_error=float("nan"), bound=bound,
        limit=limits.calibration, verdict="passed" if bound < limits.calibration else "not shown",
    )  # fmt: skip


def _root(square: float) -> float:
    return float(np.sign(square) * np.sqrt(abs(square)))


def _time_ratio(predictions: PairedPredictions, limits: PromotionLimits) -> Criterion:
    bound = median_bound(predictions.seconds[:, 0] / predictions.seconds[:, 1], limits.risk)
    candidate, current = (np.median(predictions.seconds, axis=0) * 1e3).tolist()
    return Criterion(
        name="milliseconds per row", rows=len(predictions.seconds), candidate=candidate, current=current,
        difference=bound.value, standard_error=bound.standard_error, bound=bound.upper, limit=limits.slower,
        verdict="passed" if bound.upper < limits.slower else "not shown",
    )  # fmt: skip


def decide(
    table: Table,
    predictions: PairedPredictions,
    candidate: Bundle,
    current: Bundle,
    limits: PromotionLimits,
    caveats: Sequence[str],
    seed: int,
) -> Promotion:
    """The decision: promoted where no criterion fails; subgroups of too few rows decide nothing, which is a caveat."""
    criteria = evaluate_criteria(predictions, limits, seed)
    few = [criterion.name.removeprefix("log loss, ") for criterion in criteria if criterion.verdict == "too few rows"]
    if few:
        too_few = f"of {', '.join(few)} there are fewer than {MIN_GROUP_ROWS} rows: nothing is shown of them"
        caveats = (*caveats, too_few)
    return Promotion(
        promoted=all(criterion.verdict in ("passed", "too few rows") for criterion in criteria),
        decided=datetime.now(UTC).isoformat(timespec="seconds"), candidate=candidate.version, current=current.version,
        data_sha256=table.sha256, rows=len(table), clusters=len(np.unique(predictions.clusters)), limits=limits,
        criteria=criteria, caveats=tuple(caveats),
        risk=f"a candidate that is worse than a limit, by whichever criterion, is promoted with a chance of at most "
        f"{limits.risk:g}, all criteria together",
    )  # fmt: skip


def promotion_path(candidate: Path) -> Path:
    """DIR → DIR.promotion.json beside it: a bundle holds no file that its manifest does not name."""
    return candidate.absolute().with_name(f"{candidate.absolute().name}.promotion.json")
