"""TOML 1.0 for people to edit, which the standard library reads but does not write."""

import re
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

WIDTH = 116
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def toml_value(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(key)} = {toml_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return str(value)


def toml_string(text: str) -> str:
    """A basic string; what cannot be printed is escaped."""
    return '"' + "".join(ESCAPES.get(char) or (char if char.isprintable() else _escape(char)) for char in text) + '"'


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def toml_key(key: str) -> str:
    """A key, in quotes where it needs them."""
    return key if BARE_KEY.fullmatch(key) else toml_string(key)


def assignment(key: str, value: Any) -> list[str]:
    """``key = value`` as lines: a list that is too long for one is broken between its items."""
    line = f"{toml_key(key)} = {toml_value(value)}"
    if len(line) <= WIDTH or not isinstance(value, Sequence) or isinstance(value, str):
        return [line]
    lines, current = [f"{toml_key(key)} = ["], ""
    for item in map(toml_value, value):
        if current and len(current) + len(item) + 6 > WIDTH:
            lines, current = [*lines, f"    {current}"], ""
        current = f"{current} {item}," if current else f"{item},"
    return [*lines, f"    {current}", "]"]


def table(header: str, values: Mapping[str, Any]) -> list[str]:
    """A table with its header."""
    return [header, *(line for key, value in values.items() for line in assignment(key, value))]


def comment(sentences: Iterable[str]) -> list[str]:
    """Sentences as lines of comment."""
    lines = (line for sentence in sentences for line in wrap(sentence, WIDTH, break_on_hyphens=False) or [""])
    return [f"# {line}".rstrip() for line in lines]


def commented_out(lines: Iterable[str]) -> list[str]:
    """Lines of TOML that are not in force."""
    return [f"# {line}" for line in lines]
