"""A cell of a table → the value of its field; the one place that says what a field accepts."""

import json
import math
import re
from typing import Any

from models.schema import FALSE, TRUE, Field

UNKNOWN_CELLS = frozenset(
    {"", "na", "nan", "n/a", "null", "none", "<na>", "#n/a", "n.a.", "?", "-", "--", ".", "unknown", "missing"}
)
"""Spellings of an unknown value, in any case; in a text column the empty one alone, and no level of a category."""
TRUTH = {"0": False, "no": False, "n": False, "false": False, "f": False,
         "1": True, "yes": True, "y": True, "true": True, "t": True}  # fmt: skip
THOUSANDS = re.compile(r"[+-]?\d{1,3}([,' \u00a0\u202f]\d{3})+(\.\d+)?")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
SHOWN_CHARACTERS, SHOWN_LEVELS = 60, 20


class CellError(ValueError):
    """A value that its field does not accept; the message is a sentence that shows the value and says what is."""

    def __init__(self, field: Field, value: Any, hint: str = ""):
        shown = shorten(repr(value))
        super().__init__(f"{field.in_table} is {shown}; it must be {accepts(field)}{f' ({hint})' if hint else ''}")
        self.field, self.value = field, value


def shorten(text: str) -> str:
    """At most `SHOWN_CHARACTERS` of a text."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def accepts(field: Field, in_json: bool = False) -> str:
    """What a field accepts, in words: "a number from 0 to 120, or unknown"; ``in_json`` as JSON spells values."""
    if field.type == "category":
        said = _levels(field, in_json)
    elif field.type == "boolean":
        said = f"{TRUE} or {FALSE}" if in_json else f"{_spelling(field, False)} or {_spelling(field, True)}"
    elif field.type == "text":
        said = f"a text of at most {field.max_length} characters" if field.max_length else "a text"
    else:
        said = _number(field)
    return said + ("" if field.required else ", or null" if in_json else ", or unknown")


def parse_cell(field: Field, cell: str) -> Any:
    """The value of a cell as text; None is unknown. Raises CellError."""
    text = cell.strip()
    if field.type == "text":
        return _text(field, text) if text else _unknown(field, cell)
    if field.type == "category" and (level := _level(field, text)) is not None:
        return level
    if text.casefold() in UNKNOWN_CELLS:
        return _unknown(field, cell)
    if field.type == "category":
        raise CellError(field, text, _like(field, text))
    if field.type == "boolean":
        return _truth(field, text)
    return _bounded(field, _parse_number(field, text), text)


def parse_value(field: Field, value: Any) -> Any:
    """The value of a cell that has a type, as those of data frames and tensors: a whole number stays that in any form.

    None and NaN are unknown. Raises CellError.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _unknown(field, value)
    if isinstance(value, str):
        return parse_cell(field, value)
    if not isinstance(value, int | float):
        raise CellError(field, value)
    if field.type == "text":
        return _text(field, _plain(value))
    if isinstance(value, bool):
        if field.type != "boolean" and not (field.type == "category" and str(value) in map(str, field.levels)):
            raise CellError(field, value)
        return value if field.type == "boolean" else _level(field, str(value))
    if field.type == "category":
        if (level := _level(field, _plain(value))) is None:
            raise CellError(field, value)
        return level
    return _truth(field, _plain(value)) if field.type == "boolean" else _bounded(field, float(value), value)


def _plain(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _unknown(field: Field, value: Any) -> None:
    if field.required:
        raise CellError(field, value, "it is required")


def _text(field: Field, text: str) -> str:
    if field.max_length is not None and len(text) > field.max_length:
        raise CellError(field, text, f"it has {len(text)}")
    if "\x00" in text:
        raise CellError(field, text, "it holds a NUL character")
    return text


def _level(field: Field, text: str) -> int | str | None:
    known = field.level_of
    if text in known:
        return known[text]
    try:  # 3.0 is how a table with gaps spells 3.
        return known.get(_plain(float(text))) if text else None
    except (ValueError, OverflowError):
        return None


def _truth(field: Field, text: str) -> bool:
    spelled = {str(level).casefold(): bool(number) for number, level in enumerate(field.levels)}
    value = (spelled or TRUTH).get(text.casefold())
    if value is None:
        try:
            value = (spelled or TRUTH).get(_plain(float(text)))
        except (ValueError, OverflowError):
            value = None
    if value is None:
        raise CellError(field, text)
    return value


def _parse_number(field: Field, text: str) -> float:
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        pass
    hint = ""
    if THOUSANDS.fullmatch(text):
        hint = "thousands separators are not read; write " + re.sub(r"[^0-9.+-]", "", text)
    elif DECIMAL_COMMA.fullmatch(text):
        hint = "decimals have a point; write " + text.replace(",", ".")
    raise CellError(field, text, hint)


def _bounded(field: Field, number: float, shown: Any) -> int | float:
    low, high = field.minimum, field.maximum
    if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
        raise CellError(field, shown)
    if field.type == "number":
        return number
    if not number.is_integer():
        raise CellError(field, shown)
    return int(number)


def _number(field: Field) -> str:
    kind = "a whole number" if field.type == "integer" else "a number"
    low, high = field.minimum, field.maximum
    if low is not None and high is not None:
        return f"{kind} from {low:g} to {high:g}"
    return kind + (f" of at least {low:g}" if low is not None else f" of at most {high:g}" if high is not None else "")


def _levels(field: Field, in_json: bool) -> str:
    say = json.dumps if in_json else str
    shown = ", ".join(map(say, field.levels[:SHOWN_LEVELS]))
    more = len(field.levels) - SHOWN_LEVELS
    return f"one of {shown}" + (f" and {more} more" if more > 0 else "")


def _spelling(field: Field, value: bool) -> str:
    return str(field.levels[value]) if field.levels else (TRUE if value else FALSE)


def _like(field: Field, text: str) -> str:
    """A level that differs by case or blanks alone, as a hint."""
    alike = [str(level) for level in field.levels if str(level).casefold().split() == text.casefold().split()]
    return f"did you mean {alike[0]!r}?" if alike else ""
