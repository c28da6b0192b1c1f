"""The probabilities of the rows seen lately: of two classes counted in fine bins, of more as they are.

Lately: the block of rows that is being filled and the one before it.
"""

from collections.abc import Sequence

import numpy as np

from service.drift.label_free import FINE_BINS, fine_bin


class FineCounts:
    """Rows and sums of the positive class's probability in each of `FINE_BINS` bins, of either block."""

    def __init__(self) -> None:
        self.blocks = [_empty() for _ in range(2)]

    def add(self, probabilities: Sequence[tuple[float, ...]]) -> None:
        """Take in the next rows, each with the probabilities of both classes."""
        counts, sums = self.blocks[0]
        for _, p in probabilities:
            place = fine_bin(p)
            counts[place] += 1
            sums[place] += p

    def next_block(self) -> None:
        """Begin a block; the one before the last is forgotten."""
        self.blocks = [_empty(), self.blocks[0]]

    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and sums of probability per fine bin, (200,) and (200,)."""
        counts, sums = np.array(self.blocks).sum(axis=0)
        return counts, sums


def _empty() -> list[list[float]]:
    return [[0.0] * FINE_BINS, [0.0] * FINE_BINS]


class RecentProbabilities:
    """The probabilities (n, K) of the block of rows that is being filled and of the one before it."""

    def __init__(self, classes: int):
        self._classes = classes
        self._blocks: list[list[np.ndarray]] = [[], []]

    def add(self, probabilities: Sequence[tuple[float, ...]]) -> None:
        """Take in the next rows, each with K probabilities."""
        self._blocks[0].append(np.array(probabilities, np.float32))

    def next_block(self) -> None:
        """Begin a block; the one before the last is forgotten."""
        self._blocks = [[], self._blocks[0]]

    def array(self) -> np.ndarray:
        """All of them, (n, K) float64, the newest block first."""
        return self._joined([part for block in self._blocks for part in block]).astype(float)

    def snapshot(self) -> list[bytes]:
        """Either block as float16."""
        return [self._joined(block).astype(np.float16).tobytes() for block in self._blocks]

    def restore(self, blocks: Sequence[bytes]) -> None:
        """Go on from a snapshot; raises ValueError, and nothing is taken over then."""
        parts = [np.frombuffer(block, np.float16).reshape(-1, self._classes).astype(np.float32) for block in blocks]
        if len(parts) != 2 or any((part < 0).any() or not (abs(part.sum(axis=1) - 1) < 0.1).all() for part in parts):
            raise ValueError("a block is not of probabilities that sum to 1")
        self._blocks = [[part / part.sum(axis=1, keepdims=True)] for part in parts]

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts) if parts else np.empty((0, self._classes), np.float32)
