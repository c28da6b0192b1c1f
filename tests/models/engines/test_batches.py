"""Batches by tokens: every row once, neighbours in length, within the budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.batches import MAX_PADDING, even_batches, padded, token_batches

LENGTHS = st.lists(st.integers(0, 60), max_size=80)


@given(LENGTHS, st.integers(1, 200), st.integers(1, 20))
def test_every_row_is_in_one_batch_that_keeps_the_bounds(lengths: list[int], max_tokens: int, max_rows: int) -> None:
    token_ids = [[1] * length for length in lengths]
    batches = list(token_batches(token_ids, max_tokens, max_rows))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert 1 <= len(batch) <= max_rows
        assert len(batch) * longest <= max_tokens or len(batch) == 1


@given(LENGTHS, st.integers(1, 12))
def test_even_batches_hold_every_row_once_and_about_as_many_tokens(lengths: list[int], count: int) -> None:
    batches = list(even_batches([[1] * length for length in lengths], count))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)
    each = max(1, sum(lengths) / count)
    for batch in batches:
        sizes = [lengths[row] for row in batch]
        assert len(batch) * max(sizes) <= MAX_PADDING * each or len(batch) == 1


@pytest.mark.parametrize(("rows", "count"), [(2, 2), (4, 2), (8, 2), (16, 2), (64, 4)])
def test_texts_of_about_one_length_are_as_many_batches_as_were_asked_for(rows: int, count: int) -> None:
    lengths = np.random.default_rng(rows).integers(18, 23, rows).tolist()
    batches = list(even_batches([[1] * length for length in lengths], count))
    assert len(batches) == count
    assert max(map(len, batches)) - min(map(len, batches)) <= max(1, rows // 8)


@given(LENGTHS)
def test_padding_keeps_the_tokens(lengths: list[int]) -> None:
    token_ids = [list(range(1, length + 1)) for length in lengths]
    ids, found = padded(token_ids)
    assert ids.shape == (len(lengths), max(1, *lengths, 0))
    assert found.tolist() == lengths
    for row, tokens in enumerate(token_ids):
        assert ids[row].tolist() == tokens + [0] * (ids.shape[1] - len(tokens))
