"""What a table is: its label, its fields, and the words that a row is put into.

Users write it as TOML, or have it written; a bundle carries it, complete, as ``schema.json``.
"""

import keyword
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from models.bins.input_bins import InputBins
from models.decisions.costs import Costs, CostsError, CostTable, check_costs

MAX_FIELDS, MAX_CLASSES, MAX_LEVELS, MAX_TEXT = 200, 100, 1000, 10_000
MAX_NAMED_LEVELS = 50
"""Levels of a field that metrics name, the first ones; the rest counts as "other". Also the bins of a text."""
FALSE, TRUE = "false", "true"
TABLES = Path(__file__).parent / "tables"
"""Descriptions of the tables that come with the program."""
TITANIC = TABLES / "titanic.toml"
NO_FIELD = "none"
"""What ``sets_by`` says for prediction sets that are not by a field."""

FieldType = Literal["number", "integer", "boolean", "category", "text"]
Identifier = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=60)]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
ColumnName = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Sentence = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Level = int | Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Value = bool | int | float | str


class SchemaError(ValueError):
    """A description that cannot be used; ``path`` names the place in it, as in ``fields[2].bins``."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path, self.reason = path, reason


class ClassName(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class: as the label's column spells it, and as answers, metrics and outcomes name it."""

    value: Name
    name: Name


class Label(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The column to predict. ``classes`` are in the order of the logits; with two, the last is the positive one."""

    column: ColumnName
    classes: Annotated[tuple[ClassName, ...], Meta(min_length=2, max_length=MAX_CLASSES)]


class RangeWord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The word for numbers below ``below`` and not below the range before it; the last range needs no end."""

    word: Sentence
    below: float | None = None


class Field(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """One column that the model reads.

    ``levels`` are a category's values, whole numbers where the table has such, or a boolean's two spellings in the
    table, false first. ``words`` says the value: of a number by ranges, of a category by level, of a boolean by
    ``false`` and ``true``; a value without a word is said as it stands. ``default`` is the value of a row that
    leaves the field out; null is unknown all the same. ``title`` is its label in a form, if not the name. ``bins`` of a
    text are of its tokens, and ``rare_bins`` of the share of them that are rare (`Tokenizer.measure`).
    """

    name: Identifier
    type: FieldType
    column: ColumnName | None = None
    required: bool = False
    default: Value | None = None
    title: Sentence = ""
    meaning: Sentence = ""
    unit: Sentence = ""
    minimum: float | None = None
    maximum: float | None = None
    levels: Annotated[tuple[Level, ...], Meta(max_length=MAX_LEVELS)] = ()
    max_length: Annotated[int, Meta(ge=1, le=MAX_TEXT)] | None = None
    words: Annotated[dict[str, Sentence], Meta(max_length=MAX_LEVELS)] | tuple[RangeWord, ...] = ()
    bins: Annotated[tuple[float, ...], Meta(max_length=51)] = ()
    rare_bins: Annotated[tuple[float, ...], Meta(max_length=51)] = ()

    @property
    def in_table(self) -> str:
        """The name of its column."""
        return self.column or self.name

    @property
    def whole(self) -> bool:
        """Whether its levels are whole numbers, on the wire too."""
        return bool(self.levels) and not any(isinstance(level, str) for level in self.levels)

    @property
    def values(self) -> tuple[Any, ...]:
        """What it can be, where that can be listed: a category's levels, false and true."""
        return (False, True) if self.type == "boolean" else self.levels

    @cached_property
    def level_of(self) -> dict[str, int | str]:
        """Spelling → level."""
        return {str(level): level for level in self.levels}

    @property
    def input_bins(self) -> InputBins:
        """How the drift counters cut it."""
        if self.type in ("number", "integer"):
            return InputBins(field=self.name, edges=self.bins)
        if self.type == "boolean":
            return InputBins(field=self.name, levels=(FALSE, TRUE))
        if self.type == "text":
            return InputBins(field=self.name, lengths=self.bins, rare=self.rare_bins)
        named = tuple(map(str, self.levels[:MAX_NAMED_LEVELS]))
        return InputBins(field=self.name, levels=named, other=len(self.levels) > len(named))


class Example(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A row to try on the page. ``outcome`` is what became of it, ``story`` a sentence about that, ``seen`` whether the
    model was trained on it."""

    label: Sentence
    row: dict[str, Value | None]
    outcome: Name | None = None
    story: Sentence = ""
    seen: bool = False


class Schema(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """A table's description, complete: nothing is guessed from it any more.

    ``name`` is the bundle's, and the model's on the wire; ``row`` what one row is called. ``text`` lists the phrases
    that a row is put into, each a template over the fields' words, as in "{color} {make}", with ``between`` from one
    to the next. What is unknown is said by the word ``unknown``; without such a word its phrase is left out. Rows with
    one value in the column ``group`` never sit in two folds. ``sets_by`` names the field within whose values prediction
    sets hold their coverage (`ConformalSets`), `NO_FIELD` for none; left out, training chooses. ``costs`` are those of
    mistakes (`CostTable`), where answers are to hold a decision. ``feature`` names code of `models.features` that
    derives further words from a row. Raises SchemaError.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=100)]
    label: Label
    fields: Annotated[tuple[Field, ...], Meta(min_length=1, max_length=MAX_FIELDS)]
    text: Annotated[tuple[Sentence, ...], Meta(min_length=1, max_length=2 * MAX_FIELDS)]
    between: Sentence = ", "
    unknown: Sentence = ""
    row: Identifier = "row"
    rows: Identifier | None = None
    question: Sentence = ""
    group: ColumnName | None = None
    sets_by: Identifier | None = None
    costs: CostTable | None = None
    feature: Identifier | None = None
    examples: Annotated[tuple[Example, ...], Meta(max_length=20)] = ()

    def __post_init__(self) -> None:
        _check_label(self.label, self.fields)
        for number, field in enumerate(self.fields):
            _check_field(f"fields[{number}]", field)
        _unique("fields", (field.name for field in self.fields), "name")
        _check_examples(self.examples, self.classes)
        _unique("fields", (field.in_table.casefold() for field in self.fields), "column")
        if self.sets_by not in (None, NO_FIELD):
            _check_sets_by(self.sets_by, self.by_name)
        _check_costs(self.costs, self.classes)

    def beside(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names for columns that are added to the table's own: what the table has too begins with ``prediction_``."""
        own = [
            self.label.column,
            self.group or "",
            *(name for each in self.fields for name in (each.name, each.in_table)),
        ]
        taken = {name.casefold() for name in own}
        return tuple(f"prediction_{name}" if name in taken else name for name in names)

    @property
    def plural(self) -> str:
        """What several rows are called."""
        return self.rows or self.row + "s"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(each.name for each in self.label.classes)

    @property
    def positive(self) -> str:
        """The class that ``probability`` is of, where there are two."""
        return self.classes[-1]

    @cached_property
    def decision_costs(self) -> Costs | None:
        """Of all mistakes, where the description has costs."""
        return None if self.costs is None else Costs.of(self.costs, self.classes)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Field's name → field."""
        return {field.name: field for field in self.fields}

    @cached_property
    def input_bins(self) -> tuple[InputBins, ...]:
        """How each field is cut into bins, in order."""
        return tuple(field.input_bins for field in self.fields)


def parts_of(template: str) -> list[tuple[str, str | None]]:
    """The template's literal texts, each with the field after it. Raises ValueError for anything but plain {names}."""
    parts = []
    for literal, name, form, conversion in Formatter().parse(template):
        if name is not None and (form or conversion or not re.fullmatch(r"[a-z][a-z0-9_]*", name)):
            raise ValueError(f"{template!r:.80} must hold plain names in braces, as in {{age}}")
        parts.append((literal, name))
    return parts


def schema_of(document: Any) -> Schema:
    """A complete description, as TOML or JSON gives it → the schema. Raises SchemaError."""
    try:
        return msgspec.convert(document, Schema)
    except SchemaError:
        raise
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, SchemaError):
            raise error.__cause__ from None
        reason, _, path = str(error).partition(" - at `$.")
        raise SchemaError(path.rstrip("`"), reason) from None


def read_packaged(path: Path = TITANIC) -> Schema:
    """The schema of one of `TABLES`."""
    return schema_of(tomllib.loads(path.read_text(encoding="utf-8")))


def _check_label(label: Label, fields: Iterable[Field]) -> None:
    _unique("label.classes", (each.value for each in label.classes), "value")
    _unique("label.classes", (each.name for each in label.classes), "name")
    for number, field in enumerate(fields):
        if field.in_table.casefold() == label.column.casefold():
            raise SchemaError(f"fields[{number}].column", f"{field.in_table} is the label's column")


def _check_examples(examples: Iterable[Example], classes: tuple[str, ...]) -> None:
    for number, example in enumerate(examples):
        if example.outcome is not None and example.outcome not in classes:
            raise SchemaError(f"examples[{number}].outcome", f"it must be one of {', '.join(classes)}")


def _check_costs(costs: CostTable | None, classes: tuple[str, ...]) -> None:
    try:
        if costs is not None:
            check_costs(costs, classes)
    except CostsError as error:
        raise SchemaError(f"costs.{error.path}".rstrip("."), error.reason) from None


def _check_sets_by(name: str, fields: Mapping[str, Field]) -> None:
    if name not in fields:
        raise SchemaError("sets_by", f"there is no field {name}; there are {', '.join(fields):.500}, and {NO_FIELD}")
    if fields[name].type == "text":
        raise SchemaError("sets_by", f"{name} is a text; sets are by a category, a boolean, a number or {NO_FIELD}")


def _unique(path: str, values: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for number, value in enumerate(values):
        if value in seen:
            raise SchemaError(f"{path}[{number}].{what}", f"{value!r:.60} is there twice")
        seen.add(value)


def _check_field(path: str, field: Field) -> None:
    if keyword.iskeyword(field.name):
        raise SchemaError(f"{path}.name", f"{field.name} is a word of Python; take another, as {field.name}_")
    numeric, text = field.type in ("number", "integer"), field.type == "text"
    for name, belongs in {
        "minimum": numeric, "maximum": numeric, "unit": numeric, "bins": numeric or text, "rare_bins": text,
        "levels": field.type in ("category", "boolean"), "max_length": text,
    }.items():  # fmt: skip
        if not belongs and getattr(field, name) not in (None, (), ""):
            raise SchemaError(f"{path}.{name}", f"a field of the type {field.type} has none")
    if field.required and field.default is not None:
        raise SchemaError(f"{path}.default", "a required field has none")
    _check_values(path, field)
    _check_words(path, field)


def _check_values(path: str, field: Field) -> None:
    if field.type in ("number", "integer"):
        if field.minimum is not None and field.maximum is not None and not field.minimum < field.maximum:
            raise SchemaError(f"{path}.maximum", f"it is {field.maximum:g}, and the minimum {field.minimum:g}")
        _check_edges(f"{path}.bins", field.bins)
    if field.type == "text" and (field.bins or field.rare_bins):
        _check_edges(f"{path}.bins", field.bins)
        _check_edges(f"{path}.rare_bins", field.rare_bins)
        if (count := (len(field.bins) - 1) * (len(field.rare_bins) - 1)) > MAX_NAMED_LEVELS:
            raise SchemaError(f"{path}.bins", f"with rare_bins they make {count} bins, more than {MAX_NAMED_LEVELS}")
    if field.type == "category" and not field.levels:
        raise SchemaError(f"{path}.levels", "a category lists its values")
    if field.type == "boolean" and field.levels and len(field.levels) != 2:
        raise SchemaError(f"{path}.levels", "a boolean has two spellings, false first")
    if len({isinstance(level, str) for level in field.levels}) > 1:
        raise SchemaError(f"{path}.levels", "they must be all texts, or all whole numbers")
    _unique(f"{path}.levels", map(str, field.levels), "value")


def _check_edges(path: str, edges: Sequence[float]) -> None:
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise SchemaError(path, "they must be at least two numbers, each above the one before")


def _check_words(path: str, field: Field) -> None:
    words = field.words
    if field.type == "text" and words:
        raise SchemaError(f"{path}.words", "a text is its own words")
    if isinstance(words, dict):
        known = (FALSE, TRUE) if field.type == "boolean" else tuple(map(str, field.levels))
        for level in words:
            if level not in known:
                raise SchemaError(f"{path}.words", f"{level!r:.60} is no value of the field: {', '.join(known)[:200]}")
    elif words:
        if field.type not in ("number", "integer"):
            raise SchemaError(f"{path}.words", f"a {field.type} has a word for each value, as in {{ {TRUE} = … }}")
        ends = [each.below for each in words]
        if None in ends[:-1] or any(low >= high for low, high in pairwise(e for e in ends if e is not None)):
            raise SchemaError(f"{path}.words", "below must rise from range to range, and only the last may lack it")
