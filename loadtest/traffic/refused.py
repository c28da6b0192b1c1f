"""Bodies that a service must refuse, made from the schema of what it serves."""

from typing import Any

import msgspec
from msgspec import Struct

from loadtest.traffic.rows import Row
from models.schema import Schema


class Refused(Struct, frozen=True, array_like=True):
    """A path, a body, and the statuses that it deserves."""

    path: str
    body: bytes
    statuses: tuple[int, ...]


def refused_bodies(schema: Schema, row: Row) -> list[Refused]:
    """What is wrong in one way each; ``row`` is one that is taken."""
    body, (first, value) = msgspec.json.encode(row), next(iter(row.items()))
    twice = b"{" + msgspec.json.encode({first: value})[1:-1] + b"," + body[1:]
    required = [field.name for field in schema.fields if field.required]
    wrong = [{**row, "no_such_field_": 3}, {**row, first: {"value": value}}, *_beyond(schema, row)]
    if required:
        wrong.append({name: value for name, value in row.items() if name != required[0]})
    return [
        Refused("/v1/predict", body[:-1], (400,)),
        Refused("/v1/predict", b"\xff\xfe", (400,)),
        Refused("/v1/predict", twice, (400,)),
        *(Refused("/v1/predict", msgspec.json.encode(each), (422,)) for each in wrong),
        Refused("/v1/predict/batch", b'{"rows": []}', (422,)),
        Refused("/v1/outcomes", b'{"outcomes": [{"id": 1}]}', (422,)),
    ]


def _beyond(schema: Schema, row: Row) -> list[dict[str, Any]]:
    """A value that is no level, and one that is past its bound, where the schema has such fields."""
    category = next((field for field in schema.fields if field.type == "category"), None)
    bounded = next((field for field in schema.fields if field.maximum is not None), None)
    found = [] if category is None else [{**row, category.name: 10**9 if category.whole else "no such level"}]
    return found if bounded is None else [*found, {**row, bounded.name: int(bounded.maximum or 0) + 1}]
