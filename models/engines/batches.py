"""Rows of token ids → batches of neighbours in length, so that little of what is computed is padding."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

MAX_PADDING = 1.25
"""Of a batch's tokens, with padding."""


def token_batches(
    token_ids: Sequence[Sequence[int]], max_tokens: float = math.inf, max_rows: float = math.inf
) -> Iterator[list[int]]:
    """Row numbers of each batch, sorted by length: at most ``max_tokens`` with padding, or one row that is longer."""
    by_length = _by_length(token_ids)
    batch: list[int] = []
    for row in by_length:
        # The next is the longest so far, to which the others are padded.
        if batch and ((len(batch) + 1) * len(token_ids[row]) > max_tokens or len(batch) >= max_rows):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def even_batches(token_ids: Sequence[Sequence[int]], count: int) -> Iterator[list[int]]:
    """Row numbers of about ``count`` batches, neighbours in length, each with about as many tokens; more batches where
    a text is so long that others would be padded by more than `MAX_PADDING`."""
    by_length = _by_length(token_ids)
    lengths = np.array([len(token_ids[row]) for row in by_length])
    each = max(1.0, lengths.sum() / count)
    places = ((np.cumsum(lengths) - lengths / 2) // each).tolist()
    for _, group in groupby(zip(places, by_length, strict=True), key=itemgetter(0)):
        rows = [row for _, row in group]
        for batch in token_batches([token_ids[row] for row in rows], MAX_PADDING * each):
            yield [rows[at] for at in batch]


def _by_length(token_ids: Sequence[Sequence[int]]) -> list[int]:
    return sorted(range(len(token_ids)), key=lambda row: len(token_ids[row]))


def padded(token_ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids per row → ids (B, L) int32, L the longest row's tokens and at least 1, and lengths (B,) int32."""
    lengths = np.array([len(tokens) for tokens in token_ids], np.int32)
    ids = np.zeros((len(token_ids), max(1, int(lengths.max(initial=0)))), np.int32)
    for row, tokens in enumerate(token_ids):
        ids[row, : len(tokens)] = tokens
    return ids, lengths
