"""Where in a TOML text a value is, so that a fault has a line."""

import re
import tomllib
from typing import Any

STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def find_line(text: str, path: str) -> int | None:
    """The line of a path such as ``fields[2].bins`` in a TOML text, or of what it is in; None for none.

    Each statement is read alone: TOML ends one with its line, so the lines that together can be read are one.
    """
    wanted = [name or int(number) for name, number in STEP.findall(path)]
    places = _places(text)
    for length in range(len(wanted), 0, -1):
        if tuple(wanted[:length]) in places:
            return places[tuple(wanted[:length])]
    return None


def _places(text: str) -> dict[tuple[str | int, ...], int]:
    places: dict[tuple[str | int, ...], int] = {}
    header: tuple[str | int, ...] = ()
    counts: dict[tuple[str | int, ...], int] = {}
    for first, statement, content in _statements(text):
        if statement.lstrip().startswith("["):
            header = _named(content)
            if statement.lstrip().startswith("[["):
                counts[header] = counts.get(header, -1) + 1
            places.setdefault(header, first)
            header = _numbered(header, counts)
            places.setdefault(header, first)
        else:
            _add(places, header, content, first)
    return places


def _statements(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    found, lines, first = [], list[str](), 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not lines:
            first = number
        lines.append(line)
        try:
            content = tomllib.loads("\n".join(lines))
        except tomllib.TOMLDecodeError:
            continue
        if content:
            found.append((first, "\n".join(lines), content))
        lines = []
    return found


def _named(content: dict[str, Any]) -> tuple[str | int, ...]:
    """The names of a header's tables, outermost first."""
    names: list[str | int] = []
    while content:
        name, inner = next(iter(content.items()))
        names.append(name)
        content = inner[0] if isinstance(inner, list) else inner
    return tuple(names)


def _numbered(header: tuple[str | int, ...], counts: dict[tuple[str | int, ...], int]) -> tuple[str | int, ...]:
    """A header with the number of each list's table after its name."""
    numbered: list[str | int] = []
    for length, name in enumerate(header, start=1):
        numbered.append(name)
        if header[:length] in counts:
            numbered.append(counts[header[:length]])
    return tuple(numbered)


def _add(places: dict[tuple[str | int, ...], int], at: tuple[str | int, ...], value: Any, line: int) -> None:
    places.setdefault(at, line)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        _add(places, (*at, key), inner, line)
