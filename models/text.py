"""A row as a text: the words that the model reads."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from models.features.registry import Feature, find_feature
from models.rows import Row
from models.schema import FALSE, TRUE, Field, Schema, SchemaError, parts_of

Say = Callable[[Any], str | None]
"""A field's value → its words; None for nothing to say."""


class Renderer:
    """Puts the rows of one table into words, phrase by phrase; what is unknown is left out, or has a word for it.

    ``known`` is what the schema's feature learned from labelled rows, None without a feature. Raises SchemaError for a
    template that names no field.
    """

    def __init__(self, schema: Schema):
        self.schema = schema
        self.feature: Feature | None = find_feature(schema)
        self._say = {field.name: _words_of(field) for field in schema.fields}
        derived = self.feature.derived if self.feature else {}
        self._phrases = [_phrase(at, template, self._say, derived) for at, template in enumerate(schema.text)]

    def __call__(self, row: Row, known: Any = None) -> str:
        """The row as a short text, the model's only input."""
        derived = self.feature.derive(row, known) if self.feature else {}
        phrases, unknown = [], self.schema.unknown
        for parts in self._phrases:
            words = ""
            for literal, name, say in parts:
                words += literal
                if not name:
                    continue
                value = derived.get(name) if say is None else getattr(row, name)
                word = value if say is None else say(value)
                if not word and (not unknown or value not in (None, "")):
                    break
                words += word or unknown
            else:
                phrases.append(words)
        return self.schema.between.join(phrases)

    def every_word(self) -> list[str]:
        """Texts that together hold every word of the templates and of the fields with words; eight phrases a text."""
        derived = self.feature.derived if self.feature else {}
        phrases: list[str] = []
        for parts in self._phrases:
            choices = [_all_words(self.schema.by_name.get(name), derived.get(name, ())) for _, name, _ in parts if name]
            longest = max(map(len, choices), default=1)
            for number in range(longest):
                words = iter(choice[min(number, len(choice) - 1)] for choice in choices)
                phrases.append("".join(literal + (next(words) if name else "") for literal, name, _ in parts))
        phrases = list(dict.fromkeys(phrases))
        phrases += [self.schema.unknown] if self.schema.unknown else []
        return [self.schema.between.join(phrases[first : first + 8]) for first in range(0, len(phrases), 8)]


Phrase = list[tuple[str, str, Say | None]]
"""Literal text, the field or derived word after it ("" for none), and how the field is said; None for a derived one."""


def _phrase(at: int, template: str, say: Mapping[str, Say], derived: Mapping[str, Sequence[str]]) -> Phrase:
    try:
        parts = parts_of(template)
    except ValueError as error:
        raise SchemaError(f"text[{at}]", str(error)) from None
    for _, name in parts:
        if name is not None and name not in say and name not in derived:
            names = ", ".join((*say, *derived))
            raise SchemaError(f"text[{at}]", f"{{{name}}} is no field; there are: {names:.300}")
    return [(literal, name or "", say.get(name or "")) for literal, name in parts]


def _words_of(field: Field) -> Say:
    words = field.words
    if field.type == "text":
        return lambda value: clean(value) if value else None
    if field.type == "boolean":
        said = dict(words) if isinstance(words, dict) else {}
        return {False: said.get(FALSE, FALSE), True: said.get(TRUE, TRUE)}.get
    if field.type == "category":
        by_level = words if isinstance(words, dict) else {}
        said_levels: dict[int | str, str] = {level: by_level.get(str(level), str(level)) for level in field.levels}
        return said_levels.get
    ranges = words if isinstance(words, tuple) else ()
    ends = [(float("inf") if each.below is None else each.below, each.word) for each in ranges]
    if not ends:
        return lambda value: None if value is None else digits(value)
    return lambda value: None if value is None else next((word for below, word in ends if value < below), None)


def digits(value: float) -> str:
    """A number as it is said: whole ones whole, others to four significant digits."""
    if float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    return np.format_float_positional(float(f"{value:.4g}"), trim="-")


def clean(text: str) -> str:
    """One line in composed characters, which is how vocabularies spell accents."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _all_words(field: Field | None, derived: Iterable[str]) -> list[str]:
    if field is None:
        return list(derived) or [""]
    say = _words_of(field)
    if field.type == "category":
        values: Iterable[Any] = field.levels
    elif field.type == "boolean":
        values = (False, True)
    elif field.type == "text":
        values = ("text",)
    elif isinstance(field.words, tuple) and field.words:
        return [each.word for each in field.words]
    else:
        values = field.bins
    return [word for value in values if (word := say(value))] or [""]
