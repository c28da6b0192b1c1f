"""The budget of a batch in tokens with their padding: one long text must not hold the short ones beside it.

All rows that are computed together are padded to the longest, and answered together. So what a batch has taken from the
queue is computed in parts of about one length, the shortest first, each answered when it is done.
"""

from collections.abc import Sequence

from models.schema import Schema, parts_of
from service.inference.fair_queue import Slice

TOKENS_PER_ROW = 64
"""Of the budget, for each row that a batch may have: a batch of rows of a table without long texts is one part."""
BYTES_PER_TOKEN = 4
"""Of a text that is not tokenized yet. An estimate will do: it decides what is computed together, and no answer."""


class TokenBudget:
    """Parts of a batch of at most ``max_rows`` rows, of at most `TOKENS_PER_ROW` times as many tokens."""

    def __init__(self, schema: Schema, max_rows: int):
        said = {name for template in schema.text for _, name in parts_of(template)}
        self._texts = [field.name for field in schema.fields if field.type == "text" and field.name in said]
        self._max_tokens = TOKENS_PER_ROW * max_rows

    def parts(self, batch: Sequence[Slice]) -> list[list[Slice]]:
        """The slices by their longest row, within the budget with padding, or one slice that is beyond it."""
        if len(batch) < 2 or not self._texts:
            return [list(batch)]
        lengths = {part.entry: self._longest(part) for part in batch}
        parts: list[list[Slice]] = [[]]
        rows = 0
        for part in sorted(batch, key=lambda part: lengths[part.entry]):
            # It is the longest so far, to which the others are padded.
            if parts[-1] and (rows + part.size) * lengths[part.entry] > self._max_tokens:
                parts.append([])
                rows = 0
            parts[-1].append(part)
            rows += part.size
        return parts

    def _longest(self, part: Slice) -> int:
        """Tokens of a slice's longest row: those it has where it was encoded ahead, else by the bytes of its texts."""
        encoded = part.encoded
        if len(encoded) == part.size:
            return max(len(one.token_ids) for one in encoded)
        sizes = (sum(len((getattr(row, name) or "").encode()) for name in self._texts) for row in part.rows)
        return max(sizes) // BYTES_PER_TOKEN
