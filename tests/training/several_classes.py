"""Rows of three classes for the tests of training: penguins with outcomes that a tiny bundle's logits say."""

import csv
from pathlib import Path

import numpy as np

from models.bundle.read import Bundle
from models.calibration.logit import calibration_scores, softmax
from models.predictor import Predictor
from tests import penguins


def write_outcomes(path: Path, bundle: Bundle, rows: int, seed: int, slope: float = 0.6) -> Path:
    """A CSV of penguins whose species are drawn from ``slope`` times the bundle's logits, scaled."""
    made = penguins.table(rows, seed)
    predictor = Predictor.load(bundle.folder)
    scores = calibration_scores(predictor.logits(predictor.render(made.rows)))
    p = softmax(slope * scores / scores.std())
    labels = (np.random.default_rng(seed).random(rows)[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    fields = penguins.SCHEMA.fields
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(field.in_table for field in fields), "species"])
        for row, label in zip(made.rows, labels.tolist(), strict=True):
            writer.writerow([*(_cell(getattr(row, field.name)) for field in fields), penguins.SPECIES[label]])
    return path


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "female" if value else "male"
    return "" if value is None else value
