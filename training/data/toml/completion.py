"""What a description leaves out, worked out from the rows."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from models.schema import MAX_LEVELS, FieldType, SchemaError
from training.data.classes import label_classes
from training.data.describing import describe
from training.data.identifiers import table_name
from training.data.inference import complete_field, infer_type
from training.data.profile import ColumnProfile, TableProfile
from training.data.wording import PLACES, phrases

INFERRED = {
    "number": ("minimum", "maximum", "bins", "words"), "integer": ("minimum", "maximum", "bins", "words"),
    "boolean": ("levels", "words"), "category": ("levels",), "text": ("max_length",),
}  # fmt: skip
"""Type → what of a field is worked out from its rows where it is left out."""


def complete(
    document: dict[str, Any], header: list[str], stem: str, read: Callable[[], TableProfile]
) -> dict[str, Any]:
    """A description, as TOML gives it, complete; ``read`` goes through the rows and is called only where it must.

    What has a wrong form is left as it is, for `schema_of` to refuse. Raises SchemaError for a missing column.
    """
    found = {"name": table_name(stem), **document}
    label = found.get("label")
    if not isinstance(label, dict) or not isinstance(label.get("column"), str):
        return found
    _check_column(header, "label.column", label["column"])
    if isinstance(found.get("group"), str):
        _check_column(header, "group", found["group"])
    if "classes" not in label:
        profile = read()
        found["label"] = {**label, "classes": label_classes(profile.path, _column(profile, label["column"]))[0]}
    if "fields" not in found:
        found["fields"] = describe(read(), label["column"], group=found.get("group")).document["fields"]
    if isinstance(found["fields"], list):
        found["fields"] = [_complete_field(at, field, header, read) for at, field in enumerate(found["fields"])]
        if "text" not in found and all(map(_is_formed, found["fields"])):
            found = {**found, "text": phrases(found["fields"]), **{key: found.get(key, PLACES[key]) for key in PLACES}}
    return found


def _complete_field(at: int, field: Any, header: list[str], read: Callable[[], TableProfile]) -> Any:
    if not isinstance(field, dict) or not isinstance(name := field.get("column", field.get("name")), str):
        return field
    _check_column(header, f"fields[{at}].{'column' if 'column' in field else 'name'}", name)
    kind = field.get("type")
    if kind is not None and (kind not in INFERRED or all(key in field for key in INFERRED[kind])):
        return field
    column = _column(read(), name)
    if (kind or infer_type(column)) == "category" and "levels" not in field and column.levels() is None:
        raise SchemaError(f"fields[{at}].type", f"{name} has more than {MAX_LEVELS} different values, or long ones")
    return complete_field(read(), column, field)


def _is_formed(field: Any) -> bool:
    return (
        isinstance(field, Mapping) and isinstance(field.get("name"), str) and field.get("type") in get_args(FieldType)
    )


def _check_column(header: list[str], path: str, name: str) -> None:
    if name.strip().casefold() not in [each.casefold() for each in header]:
        raise SchemaError(path, f"there is no column {name}; there are: {', '.join(header):.500}")


def _column(profile: TableProfile, name: str) -> ColumnProfile:
    column = profile.column(name)
    assert column is not None, "the header was checked"
    return column
