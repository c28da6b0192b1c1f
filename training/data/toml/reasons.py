"""msgspec's reasons for refusing a description → plain sentences for who wrote it."""

import re

from models.schema import ClassName, Example, Field, Label, RangeWord, Schema

TABLES = {r"fields\[\d+\]": Field, r"fields\[\d+\]\.words.*": RangeWord, "label": Label, r"label\.classes.*": ClassName,
          r"examples\[\d+\]": Example, "": Schema}  # fmt: skip
"""Where in a description → what is there."""
TYPES = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list",
         "object": "a table", "null": "nothing"}  # fmt: skip
PATTERNS = {
    "'^[a-z]": "small letters, digits and _, with a letter first",
    "'^[A-Za-z0-9]": "letters, digits, points, _ and -",
    "'^[^": "a text of one line",
}
FIELD_TYPES = "one of number, integer, boolean, category, text"


def plain_reason(path: str, reason: str) -> tuple[str, str]:
    """The path, with the key at its end that is one too many, and the reason in plain words."""
    if unknown := re.search(r"unknown field `([^`]+)`", reason):
        return ".".join(filter(None, (path, unknown[1]))), f"there is no such key here{_keys(path)}"
    if missing := re.search(r"missing required field `([^`]+)`", reason):
        return path, f"{missing[1]} is missing"
    if reason.startswith("Invalid enum value"):
        return path, f"it must be {FIELD_TYPES}"
    for start, words in PATTERNS.items():
        if f"matching regex {start}" in reason:
            return path, f"it must be {words}"
    return path, _plain_types(reason)


def _plain_types(reason: str) -> str:
    found = re.fullmatch(r"Expected `([^`]+)`(?: of length (>=|<=) (\d+))?(?:, got `([^`]+)`)?", reason)
    if found is None:
        return reason
    expected, bound, length, got = found.groups()
    words = " or ".join(TYPES.get(name, name) for name in expected.split(" | ") if name != "null")
    more = {None: "", ">=": f" of at least {length}", "<=": f" of at most {length}"}[bound]
    more += (" characters" if expected == "str" else " items") if bound else ""
    return f"it must be {words}{more}" + (f", and is {TYPES.get(got, got)}" if got else "")


def _keys(path: str) -> str:
    for pattern, kind in TABLES.items():
        if re.fullmatch(pattern, path):
            return f"; there are: {', '.join(kind.__struct_fields__)}"
    return ""
