"""The cache: exact, bounded, least recently used first, and off when it holds no rows."""

from hypothesis import given
from hypothesis import strategies as st

from models.engines.logit_cache import LogitCache


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=5, unique=True), max_size=30), st.integers(0, 5))
def test_what_is_found_is_what_was_kept_last(batches: list[list[str]], rows: int) -> None:
    lookups: list[tuple[int, int]] = []
    cache, order = LogitCache(rows, lambda *counts: lookups.append(counts)), []
    for batch in batches:
        found = cache.get(batch)
        assert found == {text: (float(ord(text)), 0.0) for text in batch if text in order}
        new = [text for text in batch if text not in found]
        cache.add({text: (float(ord(text)), 0.0) for text in new})
        used = [text for text in batch if text in found]
        order = ([text for text in order if text not in used] + used + new)[-rows:] if rows else []
        assert len(cache) == len(order) <= rows
        if rows:
            assert lookups[-1] == (len(found), len(new))
    assert rows or not lookups
