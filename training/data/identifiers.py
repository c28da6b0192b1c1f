"""Columns' names → names of fields."""

import keyword
import re
import unicodedata
from collections.abc import Iterable

MAX_LENGTH = 50
UNACCENTED = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "ı": "i"}
)
"""Letters that Unicode does not take apart."""


def identifier(name: str, place: int) -> str:
    """A column's name as an identifier in lower case; one without Latin letters or digits is numbered by its place."""
    plain = latin(name)
    if len(re.findall(r"[A-Za-z0-9]", plain)) < len(re.findall(r"\w", name)) / 2:
        plain = ""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain)
    snake = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:MAX_LENGTH].strip("_")
    if not snake:
        return f"column_{place + 1}"
    snake = snake if snake[0].isalpha() else f"n_{snake}"
    return f"{snake}_" if keyword.iskeyword(snake) else snake


def identifiers(names: Iterable[str]) -> list[str]:
    """One identifier for each column, none twice, and none that is another column's name."""
    columns = list(names)
    taken = {name.casefold() for name in columns}
    found: list[str] = []
    for place, name in enumerate(columns):
        base = chosen = identifier(name, place)
        number = 2
        while chosen in found or (chosen in taken and chosen != name.casefold()):
            chosen, number = f"{base}_{number}", number + 1
        found.append(chosen)
    return found


def latin(text: str) -> str:
    """A text's Latin letters without their accents; others are dropped."""
    return unicodedata.normalize("NFKD", text.translate(UNACCENTED)).encode("ascii", "ignore").decode()


def table_name(stem: str) -> str:
    """A file's name as the name of a table."""
    plain = latin(stem)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip("._-")[:100] or "table"
