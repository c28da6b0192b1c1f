"""The rows that a bundle was made of, as hashes: by which rows that are new to it are known."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta, Struct

from models.rows import Row

HASH_BYTES = 8
MAX_ROWS = 1_000_000
"""Of more rows nothing is kept."""


class TrainingRows(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hashes of a table's rows, without their labels: of those that were there ``once``, and of those there ``more``
    often, each sorted and `HASH_BYTES` long; ``rows`` is how many rows there were.

    A hash says nothing of a row, but who holds a row and the bundle can tell that the bundle was trained on it.
    """

    rows: Annotated[int, Meta(ge=0, le=MAX_ROWS)]
    once: bytes
    more: bytes

    def __post_init__(self) -> None:
        count = len(self.once) // HASH_BYTES
        if len(self.once) % HASH_BYTES or len(self.more) % HASH_BYTES or not count <= self.rows:
            raise ValueError(f"once and more must be hashes of {HASH_BYTES} bytes, once of at most rows")

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self | None:
        """The hashes of rows, None for more than `MAX_ROWS`."""
        if len(rows) > MAX_ROWS:
            return None
        return cls._counted(hash_rows(rows), len(rows))

    @classmethod
    def _counted(cls, hashes: np.ndarray, rows: int) -> Self:
        distinct, counts = np.unique(hashes, return_counts=True)
        return cls(rows=rows, once=distinct[counts == 1].tobytes(), more=distinct[counts > 1].tobytes())

    def joined(self, other: Self) -> Self | None:
        """These rows and others."""
        if self.rows + other.rows > MAX_ROWS:
            return None
        both = [np.frombuffer(part, "<u8") for part in (self.once, other.once, *[self.more, other.more] * 2)]
        return self._counted(np.concatenate(both), self.rows + other.rows)

    @property
    def chance(self) -> float:
        """How likely a new row equals one of these by chance: the share that is not there once (Good, 1953)."""
        return 1 - len(self.once) / HASH_BYTES / self.rows if self.rows else 0.0

    def among(self, rows: Sequence[Row]) -> np.ndarray:
        """Whether each row (n,) equals one of these."""
        known = np.concatenate([np.frombuffer(self.once, "<u8"), np.frombuffer(self.more, "<u8")])
        return np.isin(hash_rows(rows), known)


NO_ROWS = TrainingRows(rows=0, once=b"", more=b"")


def hash_rows(rows: Sequence[Row]) -> np.ndarray:
    """A hash (n,) uint64 of each row's fields and values, by name."""
    encode = msgspec.json.Encoder().encode
    digests = (hashlib.blake2b(encode(row), digest_size=HASH_BYTES).digest() for row in rows)
    return np.frombuffer(b"".join(digests), "<u8")
