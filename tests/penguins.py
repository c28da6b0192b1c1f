"""A table of three classes, in an order that is not the alphabet's, and a bundle of it made in a second."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file

from models.bert.tokenizer import Tokenizer
from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from models.engines.choice import choose_engine, load_engine
from models.rows import Rows
from models.schema import schema_of
from models.text import Renderer
from tests.tiny import ORIGIN, Contents, make_contents
from training.data.table import Table

SPECIES = ("Gentoo", "Adelie", "Chinstrap")
MEANS: dict[str, tuple[float, float]] = {"Gentoo": (47.5, 217), "Adelie": (38.8, 190), "Chinstrap": (48.8, 196)}
"""Of the bill and the flipper, in mm."""
ISLANDS = {"Gentoo": ("Biscoe",), "Adelie": ("Biscoe", "Dream", "Torgersen"), "Chinstrap": ("Dream",)}
SCHEMA = schema_of({
    "name": "penguins", "row": "penguin",
    "label": {"column": "species", "classes": [{"value": name, "name": name} for name in SPECIES]},
    "fields": [
        {"name": "island", "type": "category", "levels": ["Biscoe", "Dream", "Torgersen"], "required": True},
        {"name": "bill", "type": "number", "column": "bill_length_mm", "minimum": 0, "bins": [30, 40, 47, 60],
         "unit": "mm"},
        {"name": "flipper", "type": "integer", "column": "flipper_length_mm", "minimum": 0,
         "bins": [170, 190, 205, 235], "unit": "mm"},
        {"name": "female", "type": "boolean", "column": "sex", "levels": ["male", "female"],
         "words": {"false": "male", "true": "female"}},
    ],
    "text": ["{island}", "bill {bill}", "flipper {flipper}", "{female}"],
    "examples": [
        {"label": "a long bill", "row": {"island": "Dream", "bill": 49.5, "flipper": 197}, "outcome": "Chinstrap"},
    ],
})  # fmt: skip
ROWS = Rows(SCHEMA)
Penguin: Any = ROWS.struct


def table(count: int = 120, seed: int = 0) -> Table:
    """Labelled rows that are made up, with cells that are unknown among them; each class has its share of the first
    60."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(SPECIES), count, p=(0.36, 0.44, 0.2))
    return Table(SCHEMA, tuple(_penguin(SPECIES[label], rng) for label in labels), labels, "0" * 64)


def _penguin(species: str, rng: np.random.Generator) -> Any:
    bill, flipper = MEANS[species]
    return Penguin(
        island=str(rng.choice(ISLANDS[species])),
        bill=None if rng.random() < 0.05 else round(float(rng.normal(bill, 3)), 1),
        flipper=int(rng.normal(flipper, 6.5)),
        female=None if rng.random() < 0.05 else bool(rng.random() < 0.5),
    )


def write(folder: Path, seed: int = 0) -> Bundle:
    """A tiny bundle of the table, written to ``folder / "bundle"``; it predicts each of the classes for some rows."""
    made = table(seed=seed)
    contents = make_contents(made, folder)
    _spread(folder / "model.safetensors", contents, made)
    counts = dict(zip(SPECIES, np.bincount(made.labels[:60]).tolist(), strict=True))
    data = msgspec.structs.replace(ORIGIN.data, rows=60, classes=counts)
    return write_bundle(folder / "bundle", contents, msgspec.structs.replace(ORIGIN, data=data))


def _spread(weights: Path, contents: Contents, made: Table) -> None:
    """Weights whose logits differ from row to row by more than thousandths: those of random ones, less their mean and
    times 500, and some more for the rarest class, which would be predicted for no row."""
    tensors, config = load_file(weights), json.loads(contents["config.json"])
    tokenizer, render = Tokenizer(contents["tokenizer.json"], config["max_position_embeddings"]), Renderer(SCHEMA)
    engine = load_engine(choose_engine("auto", config), config, dict(tensors))
    mean = engine.logits(tokenizer.token_ids([render(row) for row in made.rows])).mean(axis=0)
    tensors["classifier.bias"] = ((tensors["classifier.bias"] - mean) * 500 + (0, 0, 1.2)).astype(np.float32)
    tensors["classifier.weight"] *= 500
    save_file(tensors, weights, metadata={"format": "pt"})
