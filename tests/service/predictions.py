"""Predictions made up for tests that are not about the model."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from models.bert.tokenizer import Tokenizer
from models.bins.input_binner import InputBinner
from models.bundle.read import Bundle
from models.calibration.confidence import CalibrationStep, Confidence
from models.prediction import Diagnosis, Prediction
from models.reference import PredictionBins, probability_bin, top_class
from models.schema import Schema
from tests.titanic import SCHEMA, Passenger

CONFIDENCE = Confidence(
    interval=(0, 1), prediction_set=(), coverage=0.9, margin=0, entropy_bits=0, typicality=1, abstain=True,
    uncalibrated_probability=0.5, calibration=(), warnings=(),
)  # fmt: skip
OWEN = Passenger(pclass=3, sex="male", name="Braund, Mr. Owen Harris", age=22, fare=7.25)
BINS = InputBinner(SCHEMA)


def prediction(
    probability: float, row: Any = OWEN, unshifted: float | None = None, schema: Schema = SCHEMA
) -> Prediction:
    """The prediction that a model with this ``probability`` would make; ``unshifted`` is that before a prior shift."""
    before = probability if unshifted is None else unshifted
    return Prediction(
        outcome=schema.classes[probability >= 0.5], probability=probability,
        probabilities=(1 - probability, probability), confidence=CONFIDENCE, text="", logits=(0.0, 0.0),
        unshifted_probabilities=(1 - before, before), probability_bin=probability_bin(probability),
        unshifted_bin=probability_bin(before), input_bins=(BINS if schema is SCHEMA else InputBinner(schema))(row),
    )  # fmt: skip


def prediction_of(probabilities: Sequence[float], row: Any, schema: Schema) -> Prediction:
    """The prediction of a model of more than two classes with these ``probabilities`` (K)."""
    cells, p = PredictionBins(schema.classes), tuple(probabilities)
    by_class = dict(zip(schema.classes, p, strict=True))
    confidence = msgspec.structs.replace(
        CONFIDENCE, interval=UNSET, uncalibrated_probability=UNSET, intervals=dict.fromkeys(schema.classes, (0.0, 1.0)),
        uncalibrated_probabilities=dict.fromkeys(schema.classes, 1 / len(p)),
        calibration=(CalibrationStep("model", probabilities=by_class),),
    )  # fmt: skip
    return Prediction(
        outcome=schema.classes[top_class(p)], probability=None, probabilities=p, confidence=confidence, text="",
        logits=tuple(np.log(p).tolist()), unshifted_probabilities=p, probability_bin=cells.of_row(p),
        unshifted_bin=cells.of_row(p), input_bins=InputBinner(schema)(row),
    )  # fmt: skip


def diagnose(bundle: Bundle, z: np.ndarray, rows: Sequence[Any], texts: Sequence[str]) -> list[Prediction]:
    """The predictions of a bundle whose model gives the log-odds z (B,)."""
    logits = np.stack([np.zeros_like(z), z], axis=1)
    tokenizer = tokenizer_of(bundle.folder, bundle.config["max_position_embeddings"])
    return Diagnosis(bundle.record, bundle.reference, bundle.schema, tokenizer).predictions(logits, rows, texts)


tokenizer_of = lru_cache(8)(lambda folder, max_tokens: Tokenizer.load(folder / "tokenizer.json", max_tokens))
