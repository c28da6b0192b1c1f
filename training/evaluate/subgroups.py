"""How good the probabilities are for each group of rows, with counts and spread."""

import numpy as np
from msgspec import Struct
from scipy.stats import norm

from training.calibrate.maps import log_losses
from training.evaluate.calibration_errors import murphy
from training.evaluate.clusters.dependence import INDEPENDENT, Dependence
from training.evaluate.clusters.errors import cluster_sums
from training.evaluate.clusters.label_draws import LabelDraws
from training.evaluate.estimates import Estimate, mean, proportion, reflected
from training.evaluate.groups import Members, group_title
from training.evaluate.scores import (
    POSITIVE,
    CalibrationError,
    against_noise,
    draws_if_calibrated,
    resampled,
    spiegelhalter,
)


class GroupScores(Struct, frozen=True, kw_only=True):
    """Probabilities of one subgroup's rows.

    ``expected`` is the mean probability. ``excess`` is the observed rate less it, ``excess_p`` its two-sided p-value by
    the normal limit of Σ(y − p) / √Σp(1 − p), of rows in clusters over the root of the clusters' squared sums;
    ``spiegelhalter_p`` as in `Scores`. With many subgroups, a p-value below .05 is to be expected when nothing is
    wrong: compare with .05 over the number of tests (Bonferroni).
    """

    expected: float
    excess: Estimate
    excess_p: float
    log_loss: Estimate
    brier: Estimate
    calibration_error: CalibrationError
    spiegelhalter_p: float


class Subgroup(Struct, frozen=True, kw_only=True):
    """One group of one attribute: its rows, their share of the positive class, and both kinds of probabilities."""

    attribute: str
    group: str
    rows: int
    observed: Estimate
    calibrated: GroupScores
    raw: GroupScores

    @property
    def title(self) -> str:
        """The group as it stands alone."""
        return group_title(self.attribute, self.group)


def score_subgroups(
    groups: Members, labels: np.ndarray, calibrated: np.ndarray, raw: np.ndarray, rng: np.random.Generator,
    dependence: Dependence = INDEPENDENT,
) -> tuple[Subgroup, ...]:  # fmt: skip
    """Scores of probabilities (n,) in (0, 1) against labels (n,), for each of the groups."""
    return tuple(
        Subgroup(
            attribute=attribute, group=group, rows=len(rows),
            observed=proportion(labels[rows] == 1, dependence[rows].errors),
            calibrated=_score(calibrated[rows], labels[rows], rng, dependence[rows]),
            raw=_score(raw[rows], labels[rows], rng, dependence[rows]),
        )
        for (attribute, group), rows in groups.items()
    )  # fmt: skip


def _score(
    probabilities: np.ndarray, labels: np.ndarray, rng: np.random.Generator, dependence: Dependence
) -> GroupScores:
    order = np.argsort(probabilities, kind="stable")
    p, y, dependence = probabilities[order], labels[order].astype(float), dependence[order]
    clusters, tests = dependence.errors, dependence.tests
    observed = float(murphy(p, y[None], np.ones((1, len(p))))["ece"][0])
    error = reflected(observed, resampled(murphy, p, y, rng, clusters)["ece"], bounds=POSITIVE)
    variance = (p * (1 - p)).sum() if tests is None else (cluster_sums(y - p, tests) ** 2).sum()
    z = float((y - p).sum() / np.sqrt(variance))
    return GroupScores(
        expected=float(p.mean()), excess=mean(y - p, clusters), excess_p=float(2 * norm.sf(abs(z))),
        log_loss=mean(log_losses(p, y), clusters), brier=mean((p - y) ** 2, clusters),
        calibration_error=against_noise(error, draws_if_calibrated(murphy, p, rng, LabelDraws(p, y, tests))["ece"]),
        spiegelhalter_p=spiegelhalter(p, y, tests)[1],
    )  # fmt: skip
