"""A schema's names as they are set in sentences and pictures."""

from models.schema import Schema

MAX_NAME = 21
"""Characters of a class's or a group's name that a picture has room for."""


def plural(schema: Schema) -> str:
    """What several rows are called, in words."""
    return schema.plural.replace("_", " ")


def short(name: str) -> str:
    """A name as a picture has room for it."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
