"""A table's description, worked out from its rows."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.labels import LabelReader
from models.schema import MAX_FIELDS, Label, Schema, SchemaError, schema_of
from training.data.caveats import Caveat, column_caveats, counted, share
from training.data.classes import label_classes, question
from training.data.examples import made_up_examples
from training.data.identifiers import identifiers, table_name
from training.data.inference import complete_field
from training.data.profile import ColumnProfile, TableProfile
from training.data.source import DataError
from training.data.toml.reasons import plain_reason
from training.data.wording import PLACES, phrases

FEW_ROWS = 100
"""Rows below which scores say little."""


class DescribedField(NamedTuple):
    """A field with what is to be said of it."""

    field: dict[str, Any]
    caveats: list[Caveat]

    @property
    def left_out(self) -> bool:
        """Whether the model is not to read it."""
        return any(caveat.leaves_out for caveat in self.caveats)


@dataclass(frozen=True)
class Description:
    """What was found out about a table, before anyone edits it.

    ``head`` are the keys before the label, ``fields`` all columns but the label's and the group's, those too that the
    model is not to read; ``notes`` are about the table, ``label_notes`` about its label.
    """

    profile: TableProfile
    head: dict[str, Any]
    label: dict[str, Any]
    label_notes: list[str]
    fields: list[DescribedField]
    notes: list[str]
    examples: list[dict[str, Any]]

    @property
    def document(self) -> dict[str, Any]:
        """The description without its comments, complete."""
        taken = [each.field for each in self.fields if not each.left_out]
        return {
            **self.head, "text": phrases(taken), **PLACES, "label": self.label, "fields": taken,
            "examples": self.examples,
        }  # fmt: skip

    @property
    def schema(self) -> Schema:
        """The description as it is used. Raises DataError for a column that no description can hold."""
        try:
            return schema_of(self.document)
        except SchemaError as error:
            at, reason = plain_reason(error.path, error.reason)
            raise DataError(f"{self.profile.path} cannot be described: {at}: {reason}") from None


def describe(profile: TableProfile, label: str, name: str | None = None, group: str | None = None) -> Description:
    """Work out the description of a table that was read. Raises DataError, also if nothing is left to learn from."""
    column, path = required_column(profile, label), profile.path
    rng = np.random.default_rng(0)
    classes, label_notes = label_classes(path, column)
    head: dict[str, Any] = {"name": name or table_name(path.stem), "row": "row"}
    head["question"] = question(column.name, classes)
    if group is not None:
        head["group"] = required_column(profile, group).name
    target = {"column": column.name, "classes": classes}
    labels = sample_labels(profile, column, msgspec.convert(target, Label))
    names = dict(zip(profile.header, identifiers(profile.header), strict=True))
    fields = []
    for each in profile.columns:
        if each.name and each.name not in (column.name, head.get("group")):
            caveats = column_caveats(profile, each, labels, rng)
            fields.append(DescribedField(_new_field(profile, each, names[each.name]), caveats))
    fields, notes = _bounded(fields), _table_notes(profile)
    if all(each.left_out for each in fields):
        reasons = "".join(f"\n  {each.field['column']} {each.caveats[0].sentence}" for each in fields[:10])
        raise DataError(f"{path} has no column that anything can be learned from{reasons and ':'}{reasons}")
    found = Description(profile, head, target, label_notes, fields, notes, [])
    return replace(found, examples=made_up_examples(profile, found.schema, labels))


def _new_field(profile: TableProfile, column: ColumnProfile, name: str) -> dict[str, Any]:
    given: dict[str, Any] = {"name": name, "column": column.name}
    if name.startswith("column_"):
        # What has no Latin letters is called by its own name where people read it.
        given["title"] = column.name
    field = complete_field(profile, column, given)
    unknown = column.empty if field["type"] == "text" else profile.rows - column.known
    if not unknown:
        field["required"] = True
    if field["type"] in ("number", "integer"):
        field["unit"] = ""
    return field


def _bounded(fields: list[DescribedField]) -> list[DescribedField]:
    """The fields, at most `MAX_FIELDS` of them taken."""
    taken, bounded = 0, []
    for each in fields:
        taken += not each.left_out
        if taken > MAX_FIELDS and not each.left_out:
            reason = Caveat(f"is beyond the {MAX_FIELDS} fields that a table may have", leaves_out=True)
            each = DescribedField(each.field, [reason, *each.caveats])
        bounded.append(each)
    return bounded


def _table_notes(profile: TableProfile) -> list[str]:
    notes = []
    if profile.repeated:
        rows = f"{profile.repeated:,} ({share(profile.repeated, profile.rows)})"
        notes.append(
            f"Rows that repeat an earlier one, cell by cell: {rows}. They never sit in two folds; are they meant?"
        )
    if profile.rows < FEW_ROWS:
        notes.append(f"With {profile.rows} rows all scores are rough.")
    if unnamed := profile.header.count(""):
        notes.append(f"Left out, without a name, as row numbers often are: {counted(unnamed, 'column')}.")
    return notes


def required_column(profile: TableProfile, name: str) -> ColumnProfile:
    """A column by its name in any case. Raises DataError."""
    column = profile.column(name)
    if column is None:
        hint = " (--separator names what separates cells)" if len(profile.header) == 1 else ""
        raise DataError(f"{profile.path} has no column {name}; it has {', '.join(profile.header):.500}{hint}")
    return column


def sample_labels(profile: TableProfile, column: ColumnProfile, label: Label) -> np.ndarray:
    """The classes' numbers of the sample's rows (n,) int64, −1 where a row has none."""
    read = LabelReader(label)
    return np.array([-1 if (number := read(cell)) is None else number for cell in profile.cells(column)])
