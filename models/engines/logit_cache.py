"""An exact cache: the model is deterministic and texts are short, so many rows share one text and its logits."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock

Logits = tuple[float, ...]
"""One text's logits, in the order of the classes."""


class LogitCache:
    """Text → logits of one bundle, at most ``rows`` of them; the least recently used goes first. For any thread."""

    def __init__(self, rows: int, on_lookups: Callable[[int, int], None] = lambda hits, misses: None):
        """``rows`` 0 keeps nothing; ``on_lookups`` is called with hits and misses."""
        self._rows, self._on_lookups = rows, on_lookups
        self._held: OrderedDict[str, Logits] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, texts: list[str]) -> dict[str, Logits]:
        """The logits of those texts that are in the cache."""
        if not self._rows:
            return {}
        with self._lock:
            known = {text: self._held[text] for text in texts if text in self._held}
            for text in known:
                self._held.move_to_end(text)
        self._on_lookups(len(known), len(texts) - len(known))
        return known

    def clear(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._held.clear()

    def add(self, logits: Mapping[str, Logits]) -> None:
        """Add these logits."""
        if not self._rows:
            return
        with self._lock:
            self._held.update(logits)
            while len(self._held) > self._rows:
                self._held.popitem(last=False)
