"""Scores and steps of three and more classes, evaluated."""

import msgspec
import numpy as np
import pytest
from scipy.special import logsumexp

from models.calibration.class_maps import MatrixScaling, VectorScaling
from models.calibration.inverse import ClasswiseInverse
from models.calibration.logit import calibration_scores, class_probabilities, one_vs_rest, softmax
from models.calibration.maps import Beta, CalibrationMap, Platt, Step, Temperature
from models.calibration.venn_abers import MergedVennAbers, VennAbers
from training.calibrate.maps import fit_venn_abers

VECTOR = VectorScaling(weights=(0.5, 1.0, 2.0), offsets=(0.1, 0.2, -0.3))
MATRIX = MatrixScaling(weights=((1.0, 0.1, 0.0), (0.2, 0.8, 0.0), (0.0, -0.1, 1.2)), offsets=(0.0, 0.5, 0.0))
RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 3, (200, 3))
STEPS: tuple[Step, ...] = (
    Temperature(2.0), VECTOR, MATRIX, ClasswiseInverse(gamma=2, smoothing=0.1, alpha=(0.2, 0.3, 0.5)),
)  # fmt: skip


def test_scores_of_two_classes_are_log_odds_and_of_more_the_logits_less_their_mean() -> None:
    assert calibration_scores(np.array([[1.0, 3.5]])).tolist() == [2.5]
    assert calibration_scores(np.array([[1.0, 3.0, 5.0]])).tolist() == [[-2.0, 0.0, 2.0]]
    assert class_probabilities(np.array([0.25])).tolist() == [[0.75, 0.25]]


@pytest.mark.parametrize("classes", [3, 7])
def test_one_vs_rest_by_the_definition(classes: int) -> None:
    scores = np.vstack([np.random.default_rng(1).normal(0, 20, (300, classes)), np.zeros((1, classes))])
    wanted = [[row[k] - logsumexp(np.delete(row, k)) for k in range(classes)] for row in scores]
    assert one_vs_rest(scores) == pytest.approx(np.array(wanted), abs=1e-9)
    assert np.isfinite(one_vs_rest(1e300 * scores)).all()
    assert one_vs_rest(np.empty((0, classes))).shape == (0, classes)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__struct_config__.tag)
def test_a_step_is_of_each_row_alone_of_probabilities_and_comes_back_from_json(step: Step) -> None:
    after = step(SCORES)
    for at in (0, 17, 199):
        assert step(SCORES[at : at + 1])[0].tolist() == after[at].tolist()
    assert softmax(step(SCORES + 5.0)) == pytest.approx(softmax(after), abs=1e-9)
    again = msgspec.json.decode(msgspec.json.encode(CalibrationMap((step,))), type=CalibrationMap)
    assert again == CalibrationMap((step,))
    assert np.isfinite(step(1e30 * SCORES)).all()


def test_vector_scaling_is_the_beta_map_where_two_classes_are_left() -> None:
    """Of a class without probability nothing is left; of the other two it is Kull's beta map of their odds."""
    z = np.linspace(-5, 5, 11)
    scores = np.stack([np.zeros_like(z), z, np.full_like(z, -200.0)], axis=1)
    after = VECTOR(scores)
    assert after[:, 1] - after[:, 0] == pytest.approx(Beta(a=1.0, b=0.5, c=0.1)(z), abs=1e-9)


def test_steps_are_for_a_number_of_classes() -> None:
    for step in STEPS[1:]:
        CalibrationMap((Temperature(1.0), step)).check_classes(3)
        for others in (2, 4):
            with pytest.raises(ValueError, match=f"is for 3 classes; there are {others}"):
                CalibrationMap((step,)).check_classes(others)
    with pytest.raises(ValueError, match="platt is for 2 classes; there are 3"):
        CalibrationMap((Platt(slope=1.0, offset=0.0),)).check_classes(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorScaling(weights=(1.0, 1.0), offsets=(0.0, 0.0)), "three or more"),
        (lambda: VectorScaling(weights=(1.0, -0.1, 1.0), offsets=(0.0, 0.0, 0.0)), "from 0 to"),
        (lambda: VectorScaling(weights=(1.0, 1.0, 1.0, 1.0), offsets=(0.0, 0.0, 0.0)), "equal length"),
        (lambda: VectorScaling(weights=(1.0, float("nan"), 1.0), offsets=(0.0, 0.0, 0.0)), "weights"),
        (lambda: MatrixScaling(weights=((1.0, 0.0, 0.0),) * 2, offsets=(0.0, 0.0, 0.0)), "3 rows"),
        (lambda: MatrixScaling(weights=((1.0, 0.0, 2e6),) * 3, offsets=(0.0, 0.0, 0.0)), "weights"),
    ],
)  # fmt: skip
def test_what_is_no_map_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("decimals", [1, 9])
def test_a_condensed_predictor_answers_the_same(decimals: int) -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=2000).round(decimals)
    whole = fit_venn_abers(z, (rng.random(2000) < 1 / (1 + np.exp(-z))).astype(int))
    small = whole.condensed()
    asked = np.concatenate([z, np.linspace(-6, 6, 5001), np.nextafter(z, 9)])
    assert np.array_equal(small.interval(asked), whole.interval(asked))
    assert len(small.scores) < len(whole.scores) / (1 if decimals == 1 else 5)
    constant = VennAbers((0.0, 1.0), (0.5,) * 5, (0.5,) * 5)
    assert constant.condensed() == VennAbers((0.0,), (0.5,) * 3, (0.5,) * 3)
    assert MergedVennAbers(constant.condensed())(np.zeros(1)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    "step",
    [
        MatrixScaling(weights=((1e6, -1e6, 1e6),) * 2 + ((-1e6, 1e6, 1e6),), offsets=(1e6, -1e6, 0.0)),
        VectorScaling(weights=(1e6, 0.0, 1e-6), offsets=(-1e6, 1e6, 0.0)), Temperature(1e-6), STEPS[3],
    ],
)  # fmt: skip
def test_sixteen_of_the_largest_steps_leave_finite_logits_finite(step: Step) -> None:
    largest = float(np.finfo(np.float32).max)
    logits = np.array([[largest, -largest, 0.0], [0.0, 0.0, largest], [-largest, -largest, -largest], [0.0, 0.0, 0.0]])
    p = CalibrationMap((step,) * 16).probabilities(calibration_scores(logits))
    assert ((p > 0) & (p < 1)).all()
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-12)
