"""What the model does not know: its parts against linear models whose variances are known, and the interval against a
known η."""

import numpy as np
import pytest

from benchmarks.interval import intervals, simulate
from models.calibration.logit import logit, sigmoid, softmax
from models.calibration.uncertainty import Z_90, Uncertainty
from training.calibrate.uncertainty import fit_uncertainty
from training.evaluate.folds import make_folds
from training.evaluate.validity import compatible, interval_validity


def newton(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression."""
    found = np.zeros(x.shape[1])
    for _ in range(12):
        p = sigmoid(x @ found)
        found += np.linalg.solve((x.T * (p * (1 - p))) @ x, x.T @ (y - p))
    return found


def test_the_three_parts_of_a_logistic_regression_add_up_to_its_known_variance() -> None:
    rng, parts, errors, of_maps = np.random.default_rng(0), [], [], []
    for _ in range(30):
        x = np.column_stack([np.ones(600), rng.normal(size=(600, 11))])
        truth = x @ np.append(-0.5, rng.normal(size=11) / 3)
        y = (rng.random(600) < sigmoid(truth)).astype(np.int64)
        scores = []
        for seed in range(3):
            folds, z = make_folds(y, 5, seed), np.empty(600)
            for fold in range(5):
                z[folds == fold] = x[folds == fold] @ newton(x[folds != fold], y[folds != fold])
            scores.append(z)
        final = x @ newton(x, y)
        found = fit_uncertainty(scores, [sigmoid] * 3, final, y, 5)
        parts.append([found.between_seeds[0], found.rows[0], found.map[0]])
        errors.append(((final - truth) ** 2).mean())
        of_maps.append(2 / (sigmoid(truth) * sigmoid(-truth)).sum())
    between, rows, of_map = np.mean(parts, axis=0)
    # A deterministic model: a quarter of its variance is between seeds, three quarters are what they share.
    assert between == pytest.approx(rows / 3, rel=0.35)
    assert between + rows == pytest.approx(np.mean(errors), rel=0.25)
    assert of_map == pytest.approx(np.mean(of_maps), rel=0.1)


def test_noise_of_each_fine_tuning_is_between_seeds_and_makes_the_rows_part_err_on_the_wide_side() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=20_000)
    y = (rng.random(20_000) < sigmoid(truth)).astype(np.int64)
    scores = [truth + 0.5 * rng.normal(size=20_000) for _ in range(3)]

    def shrunk(z: np.ndarray) -> np.ndarray:
        # With an error of variance ¼, the true log-odds are 0.8 z on average, and vary by 0.2 around that.
        return sigmoid(0.8 * z)

    seen = truth + 0.5 * rng.normal(size=20_000)
    found = fit_uncertainty(scores, [shrunk] * 3, seen, y, 5)
    assert found.between_seeds[0] == pytest.approx(0.2, rel=0.05)
    missed = sigmoid(truth) - shrunk(scores[0])
    slope = (0.8 * (seen - scores[0]) * missed).mean() / ((y - shrunk(scores[0])) ** 2).mean()
    assert found.rows[0] == pytest.approx(0.75 * slope, abs=0.02)
    assert found.rows[0] < 0.75 * found.between_seeds[0]
    assert ((truth - 0.8 * scores[0]) ** 2).mean() == pytest.approx(found.between_seeds[0], rel=0.05)


def test_of_several_classes_each_is_against_all_others() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(2000, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(truth)])
    scores = [truth + 0.4 * rng.normal(size=(2000, 3)) for _ in range(3)]
    found = fit_uncertainty(scores, [softmax] * 3, scores[0], y, 5)
    z = [logit(softmax(each)) for each in scores]
    spread = np.var(z, axis=0, ddof=1).mean(axis=0)
    assert (np.array(found.between_seeds) > spread).all()
    assert found.rows == (0, 0, 0)
    p = softmax(scores[0])
    low, high = found.interval(p, p, p)
    assert logit(high) - logit(low) == pytest.approx(2 * Z_90 * np.sqrt(found.variance) * np.ones_like(p))


def test_the_interval_is_the_formulas() -> None:
    uncertainty = Uncertainty(seeds=3, between_seeds=(0.2,), rows=(0.1,), map=(0.02,))
    p = np.array([1e-9, 0.02, 0.5, 0.97])
    p0, p1 = p * 0.9, p * 0.9 + 0.05
    low, high = uncertainty.interval(p, p0, p1)
    half = 1.6448536 * np.sqrt(0.32 + 0.25 * 0.05 / (p * (1 - p)))
    assert logit(low[1:]) == pytest.approx((logit(p) - half)[1:], abs=1e-6)
    assert logit(high[1:]) == pytest.approx((logit(p) + half)[1:], abs=1e-6)
    for extreme in (np.array([2.0**-1074, 1 - 2.0**-53]), np.array([1e-300, 1 - 1e-16])):
        ends = uncertainty.interval(extreme, np.zeros(2), np.ones(2))
        assert np.isfinite(ends).all()
        assert (ends[0] <= extreme).all()
        assert (extreme <= ends[1]).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": (0.1, 0.2)}, "must each have one number"),
        ({"map": (-0.1,)}, "each must be from 0 to"),
        ({"between_seeds": (float("nan"),)}, "each must be from 0 to"),
    ],
)
def test_a_variance_that_is_none_is_refused(change: dict[str, tuple[float, ...]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Uncertainty(**{"seeds": 3, "between_seeds": (0.1,), "rows": (0.1,), "map": (0.1,), **change})


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "tables"), [(200, 60), (900, 25)])
def test_nine_in_ten_true_frequencies_are_inside(rows: int, tables: int) -> None:
    found = [intervals(simulate(rows, 1000 + number)) for number in range(tables)]
    covered, width = np.mean([one["served"] for one in found], axis=0)
    assert covered == pytest.approx(0.9, abs=0.03)
    assert width < 0.55
    assert np.mean([one["Venn–Abers"][0] for one in found]) < 0.3


def test_a_group_is_compatible_where_the_interval_does_not_exclude_its_count() -> None:
    ones = np.ones(20)
    assert compatible(0.3 * ones, 0.5 * ones, np.arange(20) < 8)
    # Of 20 rows at .5, 14 or more happen in 5.8 %, 15 or more in 2.1 %.
    assert compatible(0.3 * ones, 0.5 * ones, np.arange(20) < 14)
    assert not compatible(0.3 * ones, 0.5 * ones, np.arange(20) < 15)
    # Of 20 rows at .3, 3 or fewer happen in 10.7 %, 2 or fewer in 3.5 %.
    assert compatible(0.3 * ones, 0.5 * ones, np.arange(20) < 3)
    assert not compatible(0.3 * ones, 0.5 * ones, np.arange(20) < 2)
    p, labels = np.linspace(0.01, 0.99, 60), np.arange(60) >= 30
    texts = np.repeat(np.arange(20), 3)
    texts[:5] = 99
    found = interval_validity(p, p - 0.01, p + 0.01, labels, texts=texts)
    assert found.groups == 11
