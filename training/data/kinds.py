"""What a cell looks like, before it is known what its column is."""

import math
import re
from enum import StrEnum

from models.cells import DECIMAL_COMMA, THOUSANDS, UNKNOWN_CELLS

LARGEST_WHOLE = 2**53
"""Whole numbers beyond it are not exact as floating-point numbers; nobody counts that far, but ids do."""
DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    r"|\d{1,2}[ -][A-Za-z]{3,9}\.?[ -]\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4})"
    r"([T ]+\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)? ?([AaPp][Mm])?( ?(Z|UTC|[+-]\d{2}:?\d{2}))?)?"
)
MARKED = re.compile(r"[-+]?[$€£¥] ?[-+]?\d[\d.,' ]*|[-+]?\d[\d.,' ]* ?[$€£¥%]")
LONGEST_UNKNOWN, LONGEST_DATE, SIGNS = max(map(len, UNKNOWN_CELLS)), 50, "+-$€£¥"


class Kind(StrEnum):
    """``code``: digits that are no number, as 00123; ``marked``: a number as people write it, as 1,234 or 5 %."""

    UNKNOWN = "unknown"
    INTEGER = "whole number"
    NUMBER = "number"
    CODE = "code"
    MARKED = "number with signs"
    DATE = "date"
    TEXT = "text"


NUMBERS = (Kind.INTEGER, Kind.NUMBER)


def kind_of(cell: str) -> Kind:
    """The kind of a cell without blanks around it."""
    if len(cell) <= LONGEST_UNKNOWN and cell.casefold() in UNKNOWN_CELLS:
        return Kind.UNKNOWN
    try:
        number = float(cell)
    except ValueError:
        return _kind_of_text(cell)
    if "_" in cell or not math.isfinite(number):
        return Kind.TEXT
    if not number.is_integer():
        return Kind.NUMBER
    large = abs(number) >= LARGEST_WHOLE
    if cell.isdigit() and (large or (cell[0] == "0" and len(cell) > 1)):
        return Kind.CODE
    return Kind.NUMBER if large else Kind.INTEGER


def _kind_of_text(cell: str) -> Kind:
    # The ends of most texts show that they are no date and no marked number.
    if len(cell) > LONGEST_DATE or not (cell[0] in SIGNS or cell[0].isdigit() or cell[-1].isdigit()):
        return Kind.TEXT
    if DATE.fullmatch(cell):
        return Kind.DATE
    marked = THOUSANDS.fullmatch(cell) or DECIMAL_COMMA.fullmatch(cell) or MARKED.fullmatch(cell)
    return Kind.MARKED if marked else Kind.TEXT
