"""Maps of three and more classes, fitted: against truths that are known, and minima that another way finds too."""

import numpy as np
import pytest
import scipy.optimize
from scipy.special import log_softmax as scipy_log_softmax

from models.calibration.class_maps import MatrixScaling, VectorScaling
from models.calibration.inverse import ClasswiseInverse
from models.calibration.logit import centred, softmax
from training.calibrate.choice import FEW_ROWS_CLASS_MAPS, FLEXIBLE_ROWS_OF_CLASS, chosen_map, fit_map
from training.calibrate.class_maps import (
    fit_class_temperature,
    fit_matrix_scaling,
    fit_vector_scaling,
)
from training.calibrate.maps import fit_temperature

FITS = (fit_class_temperature, fit_vector_scaling, fit_matrix_scaling)


def truth(rows: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, K) that are right, and labels."""
    rng = np.random.default_rng(seed)
    scores = centred(rng.normal(np.linspace(0.5, -0.5, classes), 1.5, (rows, classes)))
    return scores, drawn(softmax(scores), rng)


def drawn(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A label for each row of probabilities (n, K)."""
    return np.asarray((rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=p.shape[1] - 1))


@pytest.mark.parametrize("classes", [3, 5])
def test_a_temperature_is_recovered_from_scores_scaled_by_it(classes: int) -> None:
    scores, labels = truth(10_000, classes)
    for scale in (0.4, 2.5):
        assert fit_class_temperature(scores * scale, labels).temperature == pytest.approx(scale, rel=0.06)


def test_of_two_classes_it_is_the_temperature_of_their_log_odds() -> None:
    scores, labels = truth(5000, 2)
    of_two = fit_temperature(2 * (scores[:, 1] - scores[:, 0]), labels).temperature
    assert fit_class_temperature(2 * scores, labels).temperature == pytest.approx(of_two, rel=3e-3)


def test_vector_scaling_recovers_a_known_map() -> None:
    known = VectorScaling(weights=(0.6, 1.5, 1.0), offsets=(0.7, -0.4, -0.3))
    scores, _ = truth(20_000)
    p = softmax(known(scores))
    labels = drawn(p, np.random.default_rng(1))
    fitted = fit_vector_scaling(scores, labels)
    assert fitted.weights == pytest.approx(known.weights, abs=0.1)
    assert np.abs(softmax(fitted(scores)) - p).mean() < 0.01


def test_matrix_scaling_recovers_what_vector_scaling_cannot() -> None:
    known = MatrixScaling(weights=((1.0, 0.5, -0.2), (-0.3, 0.8, 0.0), (0.0, 0.4, 1.2)), offsets=(0.3, -0.5, 0.2))
    scores, _ = truth(20_000)
    p = softmax(known(scores))
    labels = drawn(p, np.random.default_rng(2))
    assert np.abs(softmax(fit_matrix_scaling(scores, labels)(scores)) - p).mean() < 0.005
    assert np.abs(softmax(fit_vector_scaling(scores, labels)(scores)) - p).mean() > 0.02


def test_the_minimum_is_the_one_that_another_method_finds() -> None:
    scores, labels = truth(80, seed=3)
    log_p, n = scipy_log_softmax(scores, axis=1), len(labels)

    def penalised(change: np.ndarray) -> float:
        """Of (K, K + 1): written from the formula, without a gradient."""
        weights, offsets = np.eye(3) + change[:, :3], change[:, 3]
        fitted = scipy_log_softmax(log_p @ weights.T + offsets, axis=1)
        squares = change[:, :3] ** 2
        ridge = 3 / n * (np.trace(squares) + (offsets**2).sum()) + 6 / n * (squares.sum() - np.trace(squares))
        return float(-fitted[range(n), labels].mean() + ridge)

    matrix = fit_matrix_scaling(scores, labels)
    whole = scipy.optimize.minimize(lambda x: penalised(x.reshape(3, 4)), np.zeros(12), method="BFGS").x.reshape(3, 4)
    assert np.array(matrix.weights) == pytest.approx(np.eye(3) + whole[:, :3], abs=2e-3)
    assert matrix.offsets == pytest.approx(whole[:, 3], abs=2e-3)
    vector = fit_vector_scaling(scores, labels)
    diagonal = scipy.optimize.minimize(
        lambda x: penalised(np.column_stack([np.diag(x[:3]), x[3:]])), np.zeros(6), method="BFGS"
    ).x
    assert vector.weights == pytest.approx(1 + diagonal[:3], abs=2e-3)
    assert vector.offsets == pytest.approx(diagonal[3:], abs=2e-3)


@pytest.mark.parametrize("fit", FITS)
def test_separated_rows_and_a_class_without_rows_leave_a_map_finite(fit: object) -> None:
    labels = np.array([0, 1] * 10)
    scores = 20 * np.eye(4)[labels]
    cooled = fit_class_temperature(scores, labels)(scores)
    p = softmax(fit(cooled, labels)(cooled))
    assert np.isfinite(p).all()
    assert (p.argmax(axis=1) == labels).all()
    assert p.max() < 0.999


@pytest.mark.parametrize("classes", [3, 4])
def test_few_rows_have_one_map_and_many_the_best(classes: int) -> None:
    scores, labels = truth(FLEXIBLE_ROWS_OF_CLASS * classes - 1, classes)
    name, few = chosen_map(scores, labels, None, 0)
    fitted, candidates = fit_map(scores, labels, None, 0)
    assert (name, few) == (FEW_ROWS_CLASS_MAPS[1], fitted)
    assert fit_map(scores, labels, None, 0) == (fitted, candidates)
    assert [one.name for one in candidates if one.chosen] == [name]
    assert [one.name for one in candidates] == [
        "identity", "temperature", "vector_scaling", "matrix_scaling"
    ]  # fmt: skip
    assert [one.parameters for one in candidates] == [0, 1, 1 + 2 * classes, 1 + classes * (classes + 1)]
    scores, labels = truth(1000, classes)
    fitted, candidates = fit_map(3 * scores, labels, None, 0)
    best = min(candidates, key=lambda one: one.log_loss)
    assert best.chosen
    assert min(candidates, key=lambda one: one.worse_by).name != "identity"
    bayes = -np.log(softmax(scores)[range(len(labels)), labels]).mean()
    assert best.log_loss == pytest.approx(bayes, abs=0.02)


def test_few_rows_of_a_loss_with_an_inverse_have_that_and_one_number() -> None:
    scores, labels = truth(FLEXIBLE_ROWS_OF_CLASS * 3 - 1)
    inverse = ClasswiseInverse(gamma=2, smoothing=0.1, alpha=(0.2, 0.3, 0.5))
    name, few = chosen_map(scores, labels, inverse, 0)
    assert name == FEW_ROWS_CLASS_MAPS[0]
    assert few.steps == (inverse, fit_class_temperature(inverse(scores), labels))


def test_a_matrix_is_chosen_where_classes_are_mixed_up() -> None:
    scores, _ = truth(2000)
    mixed = MatrixScaling(weights=((1.0, 0.9, 0.0), (0.0, 0.7, 0.0), (0.6, 0.0, 1.2)), offsets=(0.0, 0.0, 0.0))(scores)
    labels = drawn(softmax(mixed), np.random.default_rng(4))
    assert chosen_map(scores, labels, None, 0)[0] == "matrix_scaling"


def test_the_loss_inverse_competes_and_the_identity_of_a_proper_loss_does_not() -> None:
    scores, labels = truth(400)
    inverse = ClasswiseInverse(gamma=2, smoothing=0.1, alpha=(0.2, 0.3, 0.5))
    _, candidates = fit_map(scores, labels, inverse, 0)
    assert [one.name for one in candidates][4:] == [
        "classwise_inverse", "classwise_inverse+temperature", "classwise_inverse+vector_scaling",
        "classwise_inverse+matrix_scaling",
    ]  # fmt: skip
    proper = ClasswiseInverse(gamma=0, smoothing=0, alpha=(1.0, 1.0, 1.0))
    assert len(fit_map(scores, labels, proper, 0)[1]) == 4


def test_a_class_of_one_row_is_no_obstacle() -> None:
    scores, labels = truth(200)
    labels[labels == 2] = 0
    labels[0] = 2
    fitted, candidates = fit_map(scores, labels, None, 0)
    assert len(candidates) == 4
    assert all(np.isfinite(one.log_loss) for one in candidates)
    assert ((p := fitted.probabilities(scores)) > 0).all()
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-12)
