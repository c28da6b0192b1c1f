"""How one field is cut into bins."""

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

OTHER, UNKNOWN, KNOWN = "other", "unknown", "known"


class InputBins(Struct, frozen=True, kw_only=True):
    """How one field is cut into bins for the drift counters and the typicality.

    ``edges`` cuts a number into [e0, e1), …, the last bin also holding its upper edge, and the outer ones all that lies
    beyond; ``levels`` lists a category's values, with ``other`` where the field has more. ``lengths`` cuts a text by
    its tokens and ``rare`` by the share of them that are rare, each as ``edges`` cuts a number; the lengths of the
    lowest share come first. None of these: only known or unknown. Every field has the further bin ``unknown``.
    """

    field: str
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    other: bool = False
    lengths: tuple[float, ...] = ()
    rare: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All bins of the field, each by another name, ``unknown`` last; a level of that name keeps it."""
        names = _ranges(self.edges) or list(self.levels) or self._text_names() or [KNOWN]
        for name in (OTHER, UNKNOWN) if self.other else (UNKNOWN,):
            while name in names:
                name += "_"
            names.append(name)
        return tuple(names)

    def _text_names(self) -> list[str]:
        lengths = [f"{each} tokens" for each in _ranges(self.lengths)]
        return [f"{length}, {share} rare" for share in _ranges(self.rare) for length in lengths]


def _ranges(edges: Sequence[float]) -> list[str]:
    return [f"{low}-{high}" for low, high in pairwise(_distinct(edges))]


def _distinct(numbers: Sequence[float]) -> list[str]:
    """Numbers, in as few digits as tell them apart."""
    for digits in (6, 9, 12, 17):
        texts = [f"{number:.{digits}g}" for number in numbers]
        if len(set(texts)) == len(set(numbers)):
            break
    return texts
