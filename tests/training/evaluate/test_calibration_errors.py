"""Each measure by hand, against an independent computation, under perfect calibration, and on a known fault."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from models.calibration.logit import logit, sigmoid
from models.reference import probability_bin, probability_bins
from training.evaluate.calibration_errors import (
    debiased_squared_error,
    mass_cuts,
    murphy,
    smooth_error,
    sweep_error,
)


def truth(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rising probabilities (n,) that are true, and labels (1, n)."""
    rng = np.random.default_rng(seed)
    p = np.sort(sigmoid(rng.normal(-0.5, 1.5, rows)))
    return p, (rng.random((1, rows)) < p).astype(float)


def ones(p: np.ndarray) -> np.ndarray:
    return np.ones((1, len(p)))


def test_ece_and_murphys_parts_by_hand() -> None:
    p, y = np.array([0.05, 0.05, 0.75, 0.75, 1.0]), np.array([[0.0, 1, 1, 1, 1]])
    parts = {name: value[0] for name, value in murphy(p, y, ones(p)).items()}
    # Bins: two rows at .05 with rate .5, two at .75 with rate 1, one at 1 with rate 1; the base rate is .8.
    assert parts["ece"] == pytest.approx((2 * 0.45 + 2 * 0.25) / 5)
    assert parts["reliability"] == pytest.approx((2 * 0.45**2 + 2 * 0.25**2) / 5)
    assert parts["resolution"] == pytest.approx((2 * 0.3**2 + 3 * 0.2**2) / 5)
    assert parts["uncertainty"] == pytest.approx(0.16)
    assert parts["within_bins"] == pytest.approx(0, abs=1e-12)


def test_murphys_parts_make_up_the_brier_score_exactly() -> None:
    p, y = truth(500, 1)
    parts = {name: value[0] for name, value in murphy(p, y, ones(p)).items()}
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within_bins"]
    assert total == pytest.approx(brier_score_loss(y[0], p), abs=1e-12)
    assert abs(parts["within_bins"]) > 1e-4
    rounded = (np.floor(p * 10) + 0.5) / 10
    grouped = {name: value[0] for name, value in murphy(rounded, y, ones(p)).items()}
    assert grouped["within_bins"] == pytest.approx(0, abs=1e-12)


def test_ece_equals_scikit_learns_calibration_curve() -> None:
    p, y = truth(500, 2)
    rates, means = calibration_curve(y[0], p, n_bins=10)
    counts = np.bincount(probability_bins(p), minlength=10)
    found = murphy(p, y, ones(p))["ece"][0]
    assert found == pytest.approx((counts[counts > 0] * np.abs(rates - means)).sum() / 500)


def test_cuts_keep_ties_together_and_bins_about_equal() -> None:
    assert mass_cuts(np.linspace(0, 1, 10), 3).tolist() == [0, 4, 7, 10]
    assert mass_cuts(np.array([0.1, 0.1, 0.1, 0.1, 0.2, 0.3]), 3).tolist() == [0, 4, 6]
    assert mass_cuts(np.full(5, 0.5), 10).tolist() == [0, 5]


def test_debiased_error_is_kumars_where_scores_of_a_bin_are_equal() -> None:
    p = np.repeat([0.2, 0.6], [10, 20])
    y = np.concatenate([np.repeat([1.0, 0.0], [4, 6]), np.repeat([1.0, 0.0], [15, 5])])[None]
    by_hand = sum(n / 30 * ((s - r) ** 2 - r * (1 - r) / (n - 1)) for s, r, n in ((0.2, 0.4, 10), (0.6, 0.75, 20)))
    debiased, plain = debiased_squared_error(p, y, ones(p))
    assert debiased[0] == pytest.approx(by_hand)
    assert plain[0] == pytest.approx((10 * 0.2**2 + 20 * 0.15**2) / 30)


def test_debiased_error_is_unbiased_and_the_plain_one_is_not() -> None:
    rng = np.random.default_rng(3)
    p, _ = truth(300, 3)
    for shift in (0.0, 0.1):
        true = np.clip(p + shift, 0, 1)
        y = (rng.random((4000, 300)) < true).astype(float)
        debiased, plain = debiased_squared_error(p, y, ones(p))
        # The bins' own error: scores are averaged within a bin, so that is what any binned estimate can see.
        cuts = mass_cuts(p, 10)
        gap = np.add.reduceat(true - p, cuts[:-1])
        wanted = (gap**2 / np.diff(cuts)).sum() / 300
        error = debiased.std(ddof=1) / np.sqrt(len(debiased))
        assert abs(debiased.mean() - wanted) < 4 * error
        assert plain.mean() - wanted > 20 * error


def test_sweep_by_hand() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7])
    # Two bins: rates 1/3, 2/3 rise. Three bins: 0.5, 0, 1 do not. So the error is that of two bins.
    y = np.array([[0.0, 1, 0, 0, 1, 1]])
    assert sweep_error(p, y, ones(p))[0] == pytest.approx((abs(1 - 0.6) + abs(2 - 1.7)) / 6)
    # Two bins already fall: one bin, the difference of the means.
    y = np.array([[1.0, 1, 1, 0, 0, 0]])
    assert sweep_error(p, y, ones(p))[0] == pytest.approx(abs(3 - 2.3) / 6)


def test_smooth_error_equals_direct_integration() -> None:
    p, y = truth(60, 4)
    p = 0.3 * p
    residuals = y[0] - p

    def size(width: float) -> float:
        images = [sign * p + 2 * shift for shift in range(-4, 5) for sign in (1, -1)]

        def smoothed(t: float) -> float:
            return abs(float(np.mean(residuals * sum(norm.pdf(t, image, width) for image in images))))

        return float(quad(smoothed, 0, 1, limit=200, epsabs=1e-6)[0])

    wanted = brentq(lambda width: size(width) - width, 0.01, 1, xtol=1e-5)
    assert smooth_error(p, y, ones(p))[0] == pytest.approx(wanted, abs=2e-4)


def test_smooth_error_of_a_constant_shift_is_the_shift() -> None:
    """With y = p + d for every row the smoothed residual is d times a density, whose integral is d at any width."""
    p = np.linspace(0.05, 0.85, 400)
    assert smooth_error(p, (p + 0.1)[None], ones(p))[0] == pytest.approx(0.1, abs=1e-3)
    assert smooth_error(p, p[None], ones(p))[0] == pytest.approx(0, abs=1e-12)


def test_weights_count_rows() -> None:
    p, y = truth(80, 5)
    w = np.random.default_rng(5).multinomial(80, np.full(80, 1 / 80), 1).astype(float)
    again = np.repeat(np.arange(80), w[0].astype(int))
    for name, value in murphy(p, y, w).items():
        assert value[0] == pytest.approx(murphy(p[again], y[:, again], ones(p))[name][0]), name
    assert smooth_error(p, y, w)[0] == pytest.approx(smooth_error(p[again], y[:, again], ones(p))[0])


def test_many_label_vectors_at_once_are_each_alone() -> None:
    p, _ = truth(200, 6)
    y = (np.random.default_rng(6).random((20, 200)) < p).astype(float)
    for measure in (sweep_error, smooth_error, lambda *a: debiased_squared_error(*a)[0], lambda *a: murphy(*a)["ece"]):
        alone = [measure(p, row[None], ones(p))[0] for row in y]
        assert measure(p, y, ones(p)) == pytest.approx(np.array(alone))


def test_a_known_miscalibration_is_recovered() -> None:
    """Probabilities sharpened by a temperature of 1/2: every measure approaches the true mean error."""
    rng = np.random.default_rng(7)
    true = np.sort(sigmoid(rng.normal(-0.5, 1.5, 40_000)))
    p = sigmoid(2 * logit(true))
    y = (rng.random((1, len(true))) < true).astype(float)
    mean_error, squared = np.abs(p - true).mean(), ((p - true) ** 2).mean()
    assert murphy(p, y, ones(p))["ece"][0] == pytest.approx(mean_error, rel=0.05)
    assert sweep_error(p, y, ones(p))[0] == pytest.approx(mean_error, rel=0.05)
    assert debiased_squared_error(p, y, ones(p))[0][0] == pytest.approx(squared, rel=0.1)
    # Smoothing over a width as large as the error itself loses some of it.
    assert 0.5 * mean_error < smooth_error(p, y, ones(p))[0] < mean_error


def test_evaluation_and_serving_find_one_bin_for_a_probability() -> None:
    """Between the tenths, on them, and one step of a float beside them."""
    edges = np.arange(11) / 10
    p = np.unique(np.clip(np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1), [0.05, 0.77]]), 0, 1))
    served = np.array([probability_bin(float(one)) for one in p])
    assert served[p == np.nextafter(0.9, 0)] == 8
    parts = [murphy(p, (served == place).astype(float)[None], np.ones((1, len(p)))) for place in range(10)]
    for place, found in enumerate(parts):
        # Labels that are the bin's own are resolved wholly: reliability and resolution by hand, of these bins.
        inside = served == place
        means = np.array([p[served == each].mean() for each in range(10)])
        share = np.bincount(served, minlength=10) / len(p)
        expected = (share * (means - (np.arange(10) == place)) ** 2).sum()
        assert found["reliability"][0] == pytest.approx(expected, abs=1e-12)
        assert found["uncertainty"][0] == pytest.approx(inside.mean() * (1 - inside.mean()))
