"""What the tokenizer says of a table's texts before training: the bins of their lengths, and which are cut."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from msgspec import structs

from models.bert.tokenizer import Tokenizer
from models.schema import Field, Schema, parts_of
from models.text import clean
from training.data.table import Table

LENGTH_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
RARE_SHARES = (0.5, 0.9, 0.99)
"""Of the texts that lie below an edge of their tokens, and of their share of rare ones: fine where odd texts are."""
SAMPLE = 20_000
"""Texts that edges are worked out from."""


def with_text_bins(table: Table, tokenizer: Tokenizer) -> Table:
    """The table with bins for each text that the model reads as it stands and whose description has none."""
    said = {name for template in table.schema.text for _, name in parts_of(template)}
    fields = tuple(
        _with_bins(field, table, tokenizer) if field.type == "text" and field.name in said and not field.bins else field
        for field in table.schema.fields
    )
    schema: Schema = structs.replace(table.schema, fields=fields)
    return replace(table, schema=schema)


def _with_bins(field: Field, table: Table, tokenizer: Tokenizer) -> Field:
    values = [value for row in table.rows if (value := getattr(row, field.name))]
    if not values:
        return field
    # Evenly over the table, whose rows may be in an order.
    measures = tokenizer.measure([clean(value) for value in values[:: -(-len(values) // SAMPLE)]])
    tokens = np.array([one.tokens for one in measures])
    rare = np.array([one.rare for one in measures]) / np.maximum(tokens, 1)
    lengths = _edges(tokens, LENGTH_SHARES, 0)
    return structs.replace(
        field, bins=(*lengths, max(float(tokens.max()), lengths[-1] + 1)),
        rare_bins=tuple(dict.fromkeys((*_edges(rare, RARE_SHARES, 2), 1.0))),
    )  # fmt: skip


def _edges(values: np.ndarray, shares: Sequence[float], digits: int) -> tuple[float, ...]:
    """0, and the values (n,) above it that these shares of all lie below, rounded up."""
    unit = 10**digits
    cuts = np.ceil(np.quantile(values, shares, method="higher") * unit - 1e-9) / unit
    return tuple(sorted({0.0, *cuts.tolist()}))


def describe_cut(texts: Sequence[str], tokenizer: Tokenizer) -> str:
    """A sentence on the texts that the tokenizer cuts; "" where there are none."""
    cut = tokenizer.tokens_of_cut(texts)
    if not cut:
        return ""
    limit = tokenizer.max_tokens
    return (
        f"{len(cut)} of {len(texts)} texts have more than {limit} tokens, up to {max(cut.values())}; the first {limit} "
        "of each are read"
    )
