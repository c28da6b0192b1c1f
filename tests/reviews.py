"""A table of texts: a review beside its stars, and which of two classes it is of. Words that a vocabulary lacks are
among them."""

from typing import Any

import numpy as np

from models.bert.tokenizer import Tokenizer
from models.rows import Rows
from models.schema import Schema, schema_of
from training.data.table import Table
from training.fit.pretrained import find_base
from training.fit.texts import with_text_bins

GOOD = ("wonderful", "loved it", "would come again", "friendly people", "the best soup in town")
BAD = ("dreadful", "cold soup", "never again", "we waited an hour", "rude waiters")
RARE = ("Schweinshaxe", "zabaglione", "quesadillas", "bouillabaisse")
DOCUMENT: dict[str, Any] = {
    "name": "reviews", "row": "review",
    "label": {"column": "kind", "classes": [{"value": "bad", "name": "bad"}, {"value": "good", "name": "good"}]},
    "fields": [
        {"name": "stars", "type": "integer", "minimum": 0, "maximum": 5, "bins": [0, 1, 3, 5]},
        {"name": "review", "type": "text", "max_length": 10_000},
    ],
    "text": ["{stars} stars", "{review}"],
}  # fmt: skip
SCHEMA: Schema = schema_of(DOCUMENT)
ROWS = Rows(SCHEMA)
Review: Any = ROWS.struct


def reviews(count: int, seed: int = 0) -> tuple[list[Any], np.ndarray]:
    """Rows that are made up, one in ten without a text, and their labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    rows = []
    for label in labels.tolist():
        parts = rng.choice(GOOD if label else BAD, int(rng.integers(1, 12))).tolist()
        if rng.random() < 0.3:
            parts.insert(int(rng.integers(0, len(parts))), str(rng.choice(RARE)))
        stars = None if rng.random() < 0.2 else int(np.clip(rng.normal(4 if label else 2, 1), 0, 5))
        rows.append(Review(stars=stars, review=None if rng.random() < 0.1 else ", ".join(parts)))
    return rows, labels


def tokenizer(max_tokens: int = 64) -> Tokenizer:
    """The base model's."""
    return Tokenizer.load(find_base(None)[1], max_tokens)


def table(count: int = 200, seed: int = 0) -> Table:
    """Labelled rows, whose schema has the bins of its text."""
    rows, labels = reviews(count, seed)
    return with_text_bins(Table(SCHEMA, tuple(rows), labels.astype(np.int64), "0" * 64), tokenizer())
