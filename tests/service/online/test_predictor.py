"""What is served after the online step, of a real bundle's predictions."""

import math

import pytest

from models.bundle.manifest import BundleError
from models.bundle.read import Bundle
from models.calibration.online import OnlineStep
from models.predictor import Predictor
from service.online.predictor import RecalibratedPredictor


def odds(p: float) -> float:
    return math.log(p / (1 - p))


def test_what_is_said_of_probabilities_is_said_of_the_served_ones(tiny_bundle: Bundle) -> None:
    own = Predictor.load(tiny_bundle.folder)
    step = OnlineStep(slope=0.5, offset=1.5, outcomes=7, threshold_shifts=(0.2, -1.0))
    served = RecalibratedPredictor(own, lambda version: step if version == tiny_bundle.version else OnlineStep())
    rows = own.rows.check(
        [{"pclass": 1 + n % 3, "sex": ("female", "male")[n % 2], "age": 4.0 * n, "fare": 9.0 * n} for n in range(12)]
    )
    for before, after in zip(own.predict_checked(rows), served.predict_checked(rows), strict=True):
        p, q = before.probabilities[1], after.probabilities[1]
        assert odds(q) == pytest.approx(0.5 * odds(p) + 1.5)
        assert after.bundle_probability == p
        assert (after.probability, after.probabilities[0]) == (q, 1 - q)
        assert after.outcome == tiny_bundle.schema.classes[q >= 0.5]
        assert after.probability_bin == min(9, int(10 * q))
        was, now = before.confidence, after.confidence
        assert [odds(end) for end in now.interval] == pytest.approx([0.5 * odds(end) + 1.5 for end in was.interval])
        assert now.interval[0] <= q <= now.interval[1]
        assert now.margin == pytest.approx(abs(2 * q - 1))
        assert now.entropy_bits == pytest.approx(-q * math.log2(q) - (1 - q) * math.log2(1 - q))
        assert now.calibration[:-1] == was.calibration
        last = now.calibration[-1]
        assert (last.step, last.probability, last.offset, last.slope, last.outcomes) == ("online", q, 1.5, 0.5, 7)
        # The bundle's own, which drift tests and sets keep to.
        assert (after.unshifted_probabilities, after.unshifted_bin) == (
            before.unshifted_probabilities,
            before.unshifted_bin,
        )
        assert now.uncalibrated_probability == was.uncalibrated_probability
        threshold = tiny_bundle.record.conformal.thresholds[0] + 0.2
        assert now.prediction_set == (("died",) if 1 - before.unshifted_probabilities[0] <= threshold else ())
        assert now.abstain == (len(now.prediction_set) != 1)


def test_more_than_two_classes_are_refused(penguins_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="keeps the probabilities of two classes up to date, and tiny has 3"):
        RecalibratedPredictor(Predictor.load(penguins_bundle.folder), lambda _: OnlineStep())
