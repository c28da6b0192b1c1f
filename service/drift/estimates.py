"""Accuracy and shares of the classes from the recent probabilities alone, of two classes or of more."""

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from service.drift import label_shift
from service.drift.label_free import (
    Estimate,
    expected_accuracy,
    expected_prevalence,
    prevalence_differs,
    shift_fit,
    shifted_prevalence,
    tenth_means,
)
from service.drift.monitor import DriftMonitor
from service.drift.recent import FineCounts

MIN_ROWS = 100
"""Fewer recent rows than these say nothing about a prevalence."""
SIGNIFICANCE = 0.05


class LabelFreeEstimates(Struct, frozen=True, kw_only=True):
    """From the probabilities of the recent rows alone, and right only while these are calibrated.

    ``prior_shift_prevalence`` is the share of the positive class here if only that share moved; ``prior_shift_fit``
    is the p-value of "that explains the probabilities", ``baseline_prevalence`` the share that they are served for.
    Of more than two classes there are shares by class in place of one: ``expected_prevalences``,
    ``prior_shift_prevalences``, ``baseline_prevalences``.
    """

    rows: int
    expected_accuracy: Estimate
    expected_prevalence: Estimate | UnsetType = UNSET
    expected_prevalences: dict[str, Estimate] | UnsetType = UNSET
    prior_shift_prevalence: Estimate | UnsetType = UNSET
    prior_shift_prevalences: dict[str, Estimate] | UnsetType = UNSET
    prior_shift_fit: float
    baseline_prevalence: float | UnsetType = UNSET
    baseline_prevalences: dict[str, float] | UnsetType = UNSET


class Estimated(Struct, frozen=True):
    """The estimates, whether the shares differ from the baseline's by more than both samples' errors, and the share of
    the class that differs most: its name, the estimate, the baseline."""

    estimates: LabelFreeEstimates
    differs: bool
    moved: tuple[str, Estimate, float]


def estimate(drift: DriftMonitor, live: np.ndarray) -> Estimated | None:
    """The estimates of the recent rows, ``live`` of them in each cell (B,); None of too few."""
    if live.sum() < MIN_ROWS:
        return None
    return _of_two(drift, live) if isinstance(drift.recent, FineCounts) else _of_more(drift, live)


def _of_two(drift: DriftMonitor, live: np.ndarray) -> Estimated:
    assert isinstance(drift.recent, FineCounts)
    counts, sums = drift.recent.totals()
    served, baseline, training = sums, drift.training_prevalence, drift.training_prevalence
    if drift.prior_shift is not None:
        served = counts * drift.prior_shift.probabilities(sums / np.maximum(counts, 1))
        baseline = drift.prior_shift.target
    prevalence = shifted_prevalence(counts, sums, training)
    estimates = LabelFreeEstimates(
        rows=int(counts.sum()), expected_accuracy=expected_accuracy(counts, served),
        expected_prevalence=expected_prevalence(counts, served), prior_shift_prevalence=prevalence,
        prior_shift_fit=shift_fit(
            live, np.array(drift.reference.probability_counts), tenth_means(counts, sums), training, prevalence.value
        ), baseline_prevalence=baseline,
    )  # fmt: skip
    differs = prevalence_differs(prevalence, baseline, drift.reference.rows)
    return Estimated(estimates, differs, (drift.schema.positive, prevalence, baseline))


def _of_more(drift: DriftMonitor, live: np.ndarray) -> Estimated:
    assert not isinstance(drift.recent, FineCounts)
    p, baseline, classes = drift.recent.array(), drift.training_shares, drift.schema.classes
    sample = label_shift.sample_of(p)
    shares, covariance = label_shift.shifted_shares(sample, baseline)
    prevalences = label_shift.share_estimates(shares, covariance)
    fit = label_shift.cell_fit(
        live, np.array(drift.reference.probability_counts), sample, drift.cells.of(sample), shares / baseline
    )  # fmt: skip
    estimates = LabelFreeEstimates(
        rows=len(p), expected_accuracy=label_shift.expected_accuracy(p),
        expected_prevalences=dict(zip(classes, label_shift.expected_shares(p), strict=True)),
        prior_shift_prevalences=dict(zip(classes, prevalences, strict=True)), prior_shift_fit=fit,
        baseline_prevalences=dict(zip(classes, baseline.tolist(), strict=True)),
    )  # fmt: skip
    at = int((abs(shares - baseline) / np.sqrt(covariance.diagonal() + 1e-12)).argmax())
    p_value = label_shift.share_difference(shares, covariance, baseline, drift.reference.rows)
    return Estimated(estimates, p_value < SIGNIFICANCE, (classes[at], prevalences[at], float(baseline[at])))
