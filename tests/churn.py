"""A second table: classes that are not in the order of the alphabet, a boolean with words of its own, a category of
more levels than metrics name, a column that is not called as its field, and a text."""

from typing import Any

import numpy as np

from models.rows import Rows
from models.schema import MAX_NAMED_LEVELS, schema_of
from training.data.table import Table

CITIES = [f"city {number:02}" for number in range(MAX_NAMED_LEVELS + 10)]
SCHEMA = schema_of({
    "name": "churn", "row": "customer",
    "label": {
        "column": "Churned?", "classes": [{"value": "No", "name": "stays"}, {"value": "Yes", "name": "leaves"}]
    },
    "fields": [
        {"name": "city", "type": "category", "levels": CITIES, "required": True},
        {"name": "plan", "type": "category", "column": "Plan", "levels": [2, 5, 10],
         "words": {"2": "small plan", "5": "plan", "10": "large plan"}},
        {"name": "senior", "type": "boolean", "levels": ["n", "y"], "words": {"true": "senior"}},
        {"name": "tenure", "type": "integer", "column": "Months here", "minimum": 0, "bins": [0, 6, 24, 72]},
        {"name": "bill", "type": "number", "minimum": 0, "maximum": 500, "bins": [0, 20, 60, 500]},
        {"name": "probability", "type": "number", "minimum": 0, "maximum": 1, "bins": [0, 0.5, 1]},
        {"name": "note", "type": "text", "max_length": 200},
    ],
    "text": ["{city}", "{plan}", "{senior}", "{tenure} months", "bill {bill}", "{note}"],
})  # fmt: skip
ROWS = Rows(SCHEMA)
Customer: Any = ROWS.struct


def customers(count: int, seed: int = 0) -> list[Any]:
    """Rows that are made up, with cells that are unknown among them."""
    rng = np.random.default_rng(seed)

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    return [
        Customer(
            city=CITIES[int(rng.integers(len(CITIES)))], plan=maybe(int(rng.choice([2, 5, 10]))),
            senior=maybe(bool(rng.random() < 0.3)), tenure=maybe(int(rng.integers(0, 80))),
            bill=maybe(round(float(rng.uniform(5, 120)), 2)), note=maybe(f'said "no", {number}\nthen left'),
        )
        for number in range(count)
    ]  # fmt: skip


def table(count: int = 60) -> Table:
    """Labelled rows: those with a large bill leave."""
    rows = customers(count)
    labels = np.array([(row.bill or 0) > 60 for row in rows], np.int64)
    return Table(SCHEMA, tuple(rows), labels, "0" * 64)
