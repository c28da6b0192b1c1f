"""msgspec's JSON schemas as makers of clients understand them."""

import inspect
from typing import Any


def repaired(schema: Any) -> Any:
    """msgspec's schema, the same but for what readers of it stumble over.

    Docstrings become Markdown, an enumeration names its type, and a tuple is an array of its length whose items are of
    any of its types: makers of clients do not know ``prefixItems`` with ``"items": false``. Patterns are ECMAScript's.
    """
    if isinstance(schema, list):
        return [repaired(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    mended = {key: repaired(value) for key, value in schema.items()}
    if isinstance(mended.get("description"), str):
        mended["description"] = prose(mended["description"])
    if isinstance(mended.get("pattern"), str):
        # Python's end of a text is that of ECMAScript's ``$``, which JSON Schema has.
        mended["pattern"] = mended["pattern"].replace(r"\Z", "$")
    if mended.get("items") is False:
        kinds_of_items = mended.pop("prefixItems")
        unlike = [kind for place, kind in enumerate(kinds_of_items) if kind not in kinds_of_items[:place]]
        mended["items"] = unlike[0] if len(unlike) == 1 else {"anyOf": unlike}
    if isinstance(mended.get("enum"), list) and "type" not in mended:
        kinds = sorted({_kind(value) for value in mended["enum"]})
        mended = {"type": kinds[0] if len(kinds) == 1 else kinds, **mended}
    return mended


def _kind(value: Any) -> str:
    return "null" if value is None else "string" if isinstance(value, str) else "integer"


def prose(text: str) -> str:
    """A docstring as Markdown."""
    return inspect.cleandoc(text).replace("``", "`")
