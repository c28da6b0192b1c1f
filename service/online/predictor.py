"""A predictor whose probabilities pass through the online step, which outcomes keep up to date."""

from collections.abc import Callable, Sequence

import msgspec

from models.bundle.manifest import BundleError
from models.bundle.read import Bundle
from models.calibration.confidence import CalibrationStep, entropy_bits
from models.calibration.online import OnlineStep
from models.prediction import EncodedText, Prediction, Stage
from models.reference import PredictionBins, top_class
from models.rows import Row
from models.schema import Schema
from service.inference.inference_thread import PredictorLike
from service.online.recalibration import SetThresholds

STEP = "online"


class RecalibratedPredictor:
    """A predictor of two classes, and what ``step`` says of its bundle's version when rows are predicted.

    Raises BundleError for a bundle of more classes.
    """

    def __init__(self, predictor: PredictorLike, step: Callable[[str], OnlineStep]):
        self.bundle, self.backend, self.rows = predictor.bundle, predictor.backend, predictor.rows
        check_two_classes(self.bundle.schema)
        self.encode, self.warm_up = predictor.encode, predictor.warm_up
        self._predictor, self._step = predictor, step
        self._recalibrate = Recalibrate(self.bundle)

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: list[Stage] | None = None
    ) -> list[Prediction]:
        """`Predictor.predict_checked`, all of these rows with one and the same step."""
        step = self._step(self.bundle.version)
        return [self._recalibrate(one, step) for one in self._predictor.predict_checked(rows, encoded, stages)]


def check_two_classes(schema: Schema) -> None:
    """Raise BundleError where there are more than two."""
    if len(schema.classes) > 2:
        raise BundleError(
            f"recalibrate_online keeps the probabilities of two classes up to date, and {schema.name} has "
            f"{len(schema.classes)}: serve it without"
        )


class Recalibrate:
    """A prediction of two classes by the bundle alone → what is served after an `OnlineStep`.

    What is said of probabilities is said of the ones that are served, the interval's ends among them. The prediction
    set is that of the bundle's scores and the moved thresholds. What drift tests look at stays the bundle's.
    """

    def __init__(self, bundle: Bundle):
        schema, self._thresholds = bundle.schema, SetThresholds(bundle)
        self._classes, self._cells, self._costs = schema.classes, PredictionBins(schema.classes), schema.decision_costs

    def __call__(self, own: Prediction, step: OnlineStep) -> Prediction:
        p = step.probability(own.probabilities[1])
        probabilities = (1 - p, p)
        low, high = own.confidence.interval or (p, p)
        pair = own.confidence.venn_abers
        confidence = msgspec.structs.replace(
            own.confidence,
            interval=(min(step.probability(low), p), max(step.probability(high), p)),
            venn_abers=(step.probability(pair[0]), step.probability(pair[1])) if isinstance(pair, tuple) else pair,
            margin=abs(2 * p - 1), entropy_bits=entropy_bits(probabilities),
            calibration=(*own.confidence.calibration, _shown(step, p)), prediction_set=(names := self._set(own, step)),
            abstain=len(names) != 1,
        )  # fmt: skip
        return msgspec.structs.replace(
            own, outcome=self._classes[top_class(probabilities)], probability=p, probabilities=probabilities,
            confidence=confidence, probability_bin=self._cells.of_row(probabilities),
            bundle_probability=own.probability,
            decision=None if self._costs is None else self._classes[self._costs.decide(probabilities)],
        )  # fmt: skip

    def _set(self, own: Prediction, step: OnlineStep) -> tuple[str, ...]:
        """The classes whose score, 1 − p by the bundle, is within the moved threshold."""
        thresholds = self._thresholds(own.input_bins)
        assert thresholds is not None  # The bins are known.
        columns = zip(self._classes, own.unshifted_probabilities, thresholds, step.threshold_shifts, strict=True)
        return tuple(name for name, p, threshold, shift in columns if 1 - p <= threshold + shift)


def _shown(step: OnlineStep, p: float) -> CalibrationStep:
    return CalibrationStep(STEP, p, offset=step.offset, slope=step.slope, outcomes=step.outcomes)
