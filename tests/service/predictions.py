"""Predictions made up for tests that are not about the model."""

from models.calibration.confidence import Confidence
from models.passenger import Passenger
from models.prediction import Prediction
from models.reference import input_bins, probability_bin

CONFIDENCE = Confidence(
    interval=(0, 1), prediction_set=(), coverage=0.9, margin=0, entropy_bits=0, typicality=1, abstain=True,
    uncalibrated_probability=0.5, calibration=(), warnings=(),
)  # fmt: skip
OWEN = Passenger(pclass=3, sex="male", name="Braund, Mr. Owen Harris", age=22, fare=7.25)


def prediction(probability: float, passenger: Passenger = OWEN, unshifted: float | None = None) -> Prediction:
    """The prediction that a model with this ``probability`` would make; ``unshifted`` is that before a prior shift."""
    before = probability if unshifted is None else unshifted
    return Prediction(
        survived=probability >= 0.5, probability=probability, confidence=CONFIDENCE, text="", logit=0.0,
        unshifted_probability=before, probability_bin=probability_bin(probability),
        unshifted_bin=probability_bin(before), input_bins=tuple(input_bins([passenger])[0].tolist()),
    )  # fmt: skip
