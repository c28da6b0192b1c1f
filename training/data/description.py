"""Which schema some rows have: by a description in TOML, or written where there is none."""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from models.rows import check_examples
from models.schema import TABLES, Schema, SchemaError, read_packaged, schema_of
from models.text import Renderer
from training.data.describing import describe, required_column, sample_labels
from training.data.examples import made_up_examples
from training.data.profile import TableProfile, profile_table
from training.data.source import DataError, open_source
from training.data.toml.completion import complete
from training.data.toml.document import write_description
from training.data.toml.lines import find_line
from training.data.toml.reasons import plain_reason

"""Descriptions that come with the program."""
MAX_NAMED = 10
"""Columns to be rewritten that an error names."""


class DescribedFile(NamedTuple):
    """A description's text, with comments, the schema that it says, and why which columns are not in it."""

    text: str
    schema: Schema
    left_out: tuple[str, ...]


def describe_file(
    path: Path, label: str, *, name: str | None = None, separator: str | None = None, group: str | None = None
) -> DescribedFile:
    """Describe a table and take the description as it is. Raises DataError, also for numbers that must be rewritten."""
    description = describe(profile_table(path, separator), label, name, group)
    unreadable = [
        f"{each.field['column']} {caveat.sentence}"
        for each in description.fields
        for caveat in each.caveats
        if caveat.unreadable
    ]
    if unreadable:
        faults = "\n  ".join(unreadable[:MAX_NAMED])
        raise DataError(f"{path} has columns that cannot be read as numbers:\n  {faults}")
    left_out = tuple(
        f"{each.field['column']} {next(caveat.sentence for caveat in each.caveats if caveat.leaves_out)}"
        for each in description.fields
        if each.left_out
    )
    return DescribedFile(write_description(description), description.schema, left_out)


def find_schema(
    data: Path, table: Path | None = None, label: str | None = None, *, separator: str | None = None
) -> Schema:
    """The schema of a file of rows: as ``table`` describes it, or with ``label`` as the label's column, or, without
    either, that of the packaged table whose columns it has. Raises DataError, also where there is none."""
    if table is not None:
        return read_description(table, data, separator=separator)
    if label is not None:
        return describe_file(data, label, separator=separator).schema
    with open_source(data, separator) as source:
        found = packaged_schema(source.header)
    if found is None:
        raise DataError(f"{data}: name the column to predict (--label COLUMN), or its description (--table TOML)")
    return found


def packaged_schema(header: Sequence[str]) -> Schema | None:
    """The schema that comes with the program whose label and required columns are all in a header; None for none."""
    columns = {name.casefold() for name in header}
    for path in sorted(TABLES.glob("*.toml")):
        schema = read_packaged(path)
        needed = [schema.label.column, *(field.in_table for field in schema.fields if field.required)]
        if all(name.casefold() in columns for name in needed):
            return schema
    return None


def read_description(path: Path, data: Path, *, separator: str | None = None) -> Schema:
    """The schema that a TOML file describes; what is left out is worked out from the rows of ``data``.

    Raises DataError, with the line of the TOML file where it is at fault.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; a description in TOML is needed") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    with open_source(data, separator) as source:
        header = source.header
    read = cache(lambda: profile_table(data, separator))
    try:
        schema = _checked(complete(document, header, data.stem, read))
    except SchemaError as error:
        at, reason = plain_reason(error.path, error.reason)
        line = find_line(text, at)
        raise DataError(f"{path}{f', line {line}' if line else ''}: {at}{': ' if at else ''}{reason}") from None
    return schema if "examples" in document else with_examples(schema, read())


def with_examples(schema: Schema, profile: TableProfile) -> Schema:
    """A schema with rows to try that are made up from a table's."""
    labels = sample_labels(profile, required_column(profile, schema.label.column), schema.label)
    examples = made_up_examples(profile, schema, labels)
    return schema_of({**msgspec.to_builtins(schema), "examples": examples})


def _checked(document: dict[str, Any]) -> Schema:
    """The schema of a complete description, its templates and examples tried. Raises SchemaError."""
    schema = schema_of(document)
    Renderer(schema)
    check_examples(schema)
    return schema
