"""How good the probabilities of three classes or more are for each group of rows, with counts and spread."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from scipy.stats import chi2

from training.calibrate.maps import log_losses
from training.evaluate.clusters.dependence import INDEPENDENT, Dependence
from training.evaluate.clusters.errors import cluster_sums
from training.evaluate.clusters.label_draws import LabelDraws
from training.evaluate.estimates import Estimate, mean, proportion, reflected
from training.evaluate.groups import Members, group_title
from training.evaluate.scores import POSITIVE, CalibrationError, against_noise
from training.evaluate.several_classes.scores import (
    brier_losses,
    draws_if_calibrated,
    measures,
    resampled,
    top_classes,
)


class ClassGroupScores(Struct, frozen=True, kw_only=True):
    """Probabilities (n, K) of one subgroup's rows.

    ``expected`` is the mean probability of each class. ``shares_p`` is the p-value of the test that they agree with the
    observed shares: with s = Σ_i (1{y_i = ·} − p_i) and V = Σ_i (diag p_i − p_i p_iᵀ), both without the last class,
    sᵀ V⁻¹ s is χ² with K − 1 degrees of freedom in the limit. There are as many tests as subgroups, so compare with
    .05 over their number (Bonferroni). ``top`` is the mean of the greatest probability, which the ``accuracy`` is to
    agree with.
    """

    expected: dict[str, float]
    shares_p: float
    log_loss: Estimate
    brier: Estimate
    accuracy: Estimate
    top: float
    top_label_error: CalibrationError


class ClassSubgroup(Struct, frozen=True, kw_only=True):
    """One group of one attribute: its rows, their share of each class, and both kinds of probabilities."""

    attribute: str
    group: str
    rows: int
    observed: dict[str, Estimate]
    calibrated: ClassGroupScores
    raw: ClassGroupScores

    @property
    def title(self) -> str:
        """The group as it stands alone."""
        return group_title(self.attribute, self.group)


def score_class_subgroups(
    groups: Members, y: np.ndarray, calibrated: np.ndarray, raw: np.ndarray, classes: Sequence[str],
    rng: np.random.Generator, dependence: Dependence = INDEPENDENT,
) -> tuple[ClassSubgroup, ...]:  # fmt: skip
    """Scores of probabilities (n, K) against labels (n,), for each of the groups."""
    return tuple(
        ClassSubgroup(
            attribute=attribute, group=group, rows=len(rows),
            observed={name: proportion(y[rows] == k, dependence[rows].errors) for k, name in enumerate(classes)},
            calibrated=_score(calibrated[rows], y[rows], classes, rng, dependence[rows]),
            raw=_score(raw[rows], y[rows], classes, rng, dependence[rows]),
        )
        for (attribute, group), rows in groups.items()
    )  # fmt: skip


def _score(
    p: np.ndarray, y: np.ndarray, classes: Sequence[str], rng: np.random.Generator, dependence: Dependence
) -> ClassGroupScores:
    clusters, tests = dependence.errors, dependence.tests
    observed = float(measures(p, y[None], np.ones((1, len(y))))["top_label"][0])
    error = reflected(observed, resampled(p, y, rng, clusters)["top_label"], bounds=POSITIVE)
    return ClassGroupScores(
        expected=dict(zip(classes, p.mean(axis=0).tolist(), strict=True)), shares_p=shares_p_value(p, y, tests),
        log_loss=mean(log_losses(p, y), clusters), brier=mean(brier_losses(p, y), clusters),
        accuracy=proportion(top_classes(p) == y, clusters),
        top=float(p.max(axis=1).mean()),
        top_label_error=against_noise(error, draws_if_calibrated(p, rng, LabelDraws(p, y, tests))["top_label"]),
    )  # fmt: skip


def shares_p_value(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """How rarely labels drawn from p (n, K) have shares as far from p's means as y (n,) has: `ClassGroupScores`.

    Of rows in clusters (n,) the variance is that of the clusters' sums about 0, and the degrees of freedom its rank.
    """
    free = p[:, :-1]
    missed = np.bincount(y, minlength=p.shape[1])[:-1] - free.sum(axis=0)
    variance, freedom = np.diag(free.sum(axis=0)) - free.T @ free, p.shape[1] - 1
    if clusters is not None:
        residuals = np.eye(p.shape[1])[y][:, :-1] - free
        sums = np.array([cluster_sums(column, clusters) for column in residuals.T])
        variance, freedom = sums @ sums.T, max(1, int(np.linalg.matrix_rank(sums)))
    return float(chi2.sf(missed @ np.linalg.pinv(variance) @ missed, freedom))
