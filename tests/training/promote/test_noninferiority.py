"""The bounds hold as often as they say, whatever the shape of the differences and however clusters are tied."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy import stats

from models.calibration.logit import sigmoid, softmax
from training.calibrate.maps import log_losses
from training.promote.noninferiority import calibration_bound, mean_bound, median_bound

RISK = 0.05
MARGIN = 0.02
Model = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""True logits (n,) → a candidate's probabilities (n,)."""


def truths(rows: int, rng: np.random.Generator) -> np.ndarray:
    return 1.6 * rng.normal(size=rows) - 0.5


def current(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return sigmoid(z + 0.3 * rng.normal(size=len(z)))


CANDIDATES: dict[str, tuple[Callable[[float], Model], float]] = {
    "overconfident": (lambda s: lambda z, _: sigmoid((1 + s) * z), 5.0),
    "biased": (lambda s: lambda z, _: sigmoid(z + s), 3.0),
    "noisy": (lambda s: lambda z, rng: sigmoid(z + s * rng.normal(size=len(z))), 3.0),
}
"""Each is the worse the larger its number, up to the one beside it."""


def excess(model: Model) -> float:
    """The expected log loss over the current model's, on the true rates of many rows."""
    rng = np.random.default_rng(0)
    z = truths(100_000, rng)
    eta = sigmoid(z)
    ours, theirs = model(z, rng), current(z, rng)
    return float(-(eta * np.log(ours / theirs) + (1 - eta) * (np.log1p(-ours) - np.log1p(-theirs))).mean())


def at_the_limit(name: str, margin: float) -> Model:
    """The candidate that is worse by just the margin."""
    make, high = CANDIDATES[name]
    low = 0.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(make(middle)) < margin else (low, middle)
    return make(low)


def tables(rows: int, samples: int) -> Iterator[tuple[np.random.Generator, np.ndarray, np.ndarray]]:
    """Labelled tables: generator, true logits (rows,), labels (rows,)."""
    for seed in range(samples):
        rng = np.random.default_rng(seed)
        z = truths(rows, rng)
        yield rng, z, (rng.random(rows) < sigmoid(z)).astype(int)


def share_passed(model: Model, rows: int, margin: float, samples: int) -> float:
    """How often the bound of the log loss lies below the margin."""
    passed = 0
    for rng, z, labels in tables(rows, samples):
        differences = log_losses(model(z, rng), labels) - log_losses(current(z, rng), labels)
        passed += mean_bound(differences, np.arange(rows), RISK).upper < margin
    return passed / samples


def allowed(samples: int) -> float:
    """The risk and three standard errors of its simulation: at a level of just the risk one seed in 400 would fail."""
    return RISK + 3 * float(np.sqrt(RISK * (1 - RISK) / samples))


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize(("rows", "margin"), [(200, MARGIN), (50, 0.1)])
def test_a_candidate_at_the_limit_passes_no_more_often_than_the_risk(name: str, rows: int, margin: float) -> None:
    samples = 1500
    found = share_passed(at_the_limit(name, margin), rows, margin, samples)
    assert found <= allowed(samples)
    assert found > 0.02  # Nor is it bought with blindness.


def test_a_better_candidate_passes_the_more_often_the_more_rows_there_are() -> None:
    # It knows the true rates; the current model is off by noise.
    few, many = (share_passed(lambda z, _: sigmoid(z), rows, MARGIN, 300) for rows in (200, 800))
    assert few > 0.75
    assert many > 0.99


def test_rows_that_live_or_die_together_count_as_one() -> None:
    """Four copies of each row say no more than one: the bound must know."""
    rng = np.random.default_rng(1)
    differences = rng.gamma(0.5, size=300)
    once = mean_bound(differences, np.arange(300), RISK)
    copied = mean_bound(np.repeat(differences, 4), np.repeat(np.arange(300), 4), RISK)
    blind = mean_bound(np.repeat(differences, 4), np.arange(1200), RISK)
    assert copied.upper == pytest.approx(once.upper)
    assert copied.standard_error == pytest.approx(once.standard_error)
    assert blind.standard_error == pytest.approx(once.standard_error / 2, rel=0.01)


def test_without_skewness_it_is_students() -> None:
    half = np.random.default_rng(2).normal(size=100)
    differences = np.concatenate([half, -half]) + 0.3
    bound = mean_bound(differences, np.arange(200), RISK)
    assert bound.standard_error == pytest.approx(stats.sem(differences))
    assert bound.upper == pytest.approx(0.3 - stats.sem(differences) * stats.t.ppf(0.8 * RISK, 199))
    assert bound.worse_p == pytest.approx(stats.ttest_1samp(differences, 0, alternative="greater").pvalue)


def test_equal_answers_have_no_spread_and_one_party_has_no_bound() -> None:
    bound = mean_bound(np.zeros(40), np.arange(40), RISK)
    assert (bound.value, bound.upper, bound.worse_p) == (0, 0, 1)
    assert mean_bound(np.arange(4.0), np.zeros(4, int), RISK).upper == np.inf


def share_calibrated(model: Model, rows: int, limit: float, samples: int, over: Model | None = None) -> float:
    """How often the bound of the calibration error, or of its excess over another's, lies below the limit."""
    passed = 0
    for rng, z, labels in tables(rows, samples):
        other = over(z, rng) if over else None
        passed += calibration_bound(model(z, rng), labels, np.arange(rows), RISK, rng, other).upper < limit**2
    return passed / samples


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_calibration_error_at_the_limit_passes_no_more_often_than_the_risk(sign: float) -> None:
    rng, limit, samples = np.random.default_rng(3), 0.1, 400
    z = truths(200_000, rng)

    def error(size: float) -> float:
        """Of logits that are off by ``size``: root mean square over tenths of the rows."""
        served = sigmoid(z + size)
        residual = (sigmoid(z) - served)[np.argsort(served)].reshape(10, -1).mean(axis=1)
        return float(np.sqrt((residual**2).mean()))

    low, high = 0.0, 3.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if error(sign * middle) < limit else (low, middle)

    def off(size: float) -> Model:
        return lambda z, _: sigmoid(z + size)

    assert share_calibrated(off(sign * low), 300, limit, samples) <= allowed(samples)
    # So it is over a current model that knows the true rates, and over one that is off to the other side.
    assert share_calibrated(off(sign * low), 300, limit, samples, off(0.0)) <= allowed(samples)
    other = -sign * low / 2
    excess = float(np.sqrt(limit**2 - error(other) ** 2))
    assert share_calibrated(off(sign * low), 300, excess, samples, off(other)) <= allowed(samples)


def several(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities (n, 3), and labels drawn from them."""
    z = rng.normal(size=(rows, 3)) + np.array([0.8, 0.0, -0.6])
    return softmax(z), (rng.random(rows)[:, None] > softmax(z).cumsum(axis=1)[:, :-1]).sum(axis=1)


def test_of_several_classes_an_error_at_the_limit_passes_no_more_often_than_the_risk() -> None:
    rng, samples, rows = np.random.default_rng(5), 300, 300
    true, _ = several(200_000, rng)
    served = true**2.2 / (true**2.2).sum(axis=1, keepdims=True)
    squares = []
    for k in range(3):
        tenths = (true - served)[np.argsort(served[:, k]), k].reshape(10, -1).mean(axis=1)
        squares.append((tenths**2).mean())
    limit, passed = np.mean(squares), 0
    for seed in range(samples):
        rng = np.random.default_rng(seed)
        p, labels = several(rows, rng)
        off = p**2.2 / (p**2.2).sum(axis=1, keepdims=True)
        passed += calibration_bound(off, labels, np.arange(rows), RISK, rng).upper < limit
    assert passed / samples <= allowed(samples)
    p, labels = several(900, np.random.default_rng(0))
    assert calibration_bound(p, labels, np.arange(900), RISK, rng).upper < 0.1**2


def test_true_probabilities_are_seen_to_be_calibrated() -> None:
    assert share_calibrated(lambda z, _: sigmoid(z), 600, 0.1, 100) > 0.95


def test_the_bias_of_a_calibration_error_is_taken_out_though_parties_are_tied() -> None:
    values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        z = np.repeat(truths(200, rng), 3)
        labels = np.repeat((rng.random(200) < sigmoid(z[::3])).astype(int), 3)
        values.append(calibration_bound(sigmoid(z), labels, np.repeat(np.arange(200), 3), RISK, rng).value)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values)) + 2e-4


def test_a_medians_bound_is_an_order_statistic() -> None:
    values = np.random.default_rng(4).permutation(np.arange(1.0, 22.0))
    bound = median_bound(values, RISK)
    # P(Binomial(21, ½) ≥ 15) = 0.0392, ≥ 14: 0.0946.
    assert (bound.value, bound.upper) == (11, 15)
    assert median_bound(values[:3], RISK).upper == np.inf
