"""What a handler says of itself for the OpenAPI document, beyond Litestar's own words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litestar.datastructures import ResponseHeader
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import Struct

from service.http.access import TRIAL_HEADER
from service.http.body.request_body import TIMEOUT_HEADER
from service.http.negotiation import JSON, MESSAGEPACK
from service.routes.table import Table

TAKES, ANSWERS, PARAMETERS, LINKS, ERRORS = "takes", "answers", "parameters", "links", "errors"
"""Keys of a handler's ``opt``: the `Body` that it reads, or what makes it of the `Table`; what makes examples of its
answer of the table; parameters that are not its arguments, or what makes one, or none, of the table; what makes links
by name of the table; and the `ErrorForm` of its errors if they are no problem details."""


TIMEOUT = {
    "name": TIMEOUT_HEADER, "in": "header", "required": False,
    "schema": {"type": "integer", "minimum": 1},
    "description": "How long the client waits, at most timeout_seconds.",
}  # fmt: skip
"""A parameter of every route that predicts."""

TRIAL = {
    "name": TRIAL_HEADER, "in": "header", "required": False, "schema": {"type": "boolean", "default": False},
    "description": "Answer without counting it as traffic: not in metrics, drift tests or log. Where there are keys it "
    "needs one with the scope trial; all predictions of a key that has no scope but that are trials.",
}  # fmt: skip
"""A parameter of every route whose predictions are counted."""

TIMING = ResponseHeader(
    name="Server-Timing", description="Milliseconds waited and computed: queue;dur=…, inference;dur=…",
    documentation_only=True,
)  # fmt: skip


class Body(Struct, frozen=True):
    """What a route reads: its form, a body that it takes, and one of the form's media type that gets 422, if any."""

    form: Any
    example: Any
    refused: Any = None
    media_types: tuple[str, ...] = (JSON, MESSAGEPACK)


BodyOf = Callable[[Table], Body]
ExamplesOf = Callable[[Table], list[Example]]
LinksOf = Callable[[Table], dict[str, Any]]


class ErrorForm(Struct, frozen=True):
    """The form of a protocol's own errors, from what problem details would say."""

    form: Any
    media_type: str
    of_problem: Callable[[Any], Any]


@dataclass
class Negotiated(ResponseSpec):
    """A response in JSON, or in another media type for whoever asks for it: of the same form unless binary."""

    other: str = MESSAGEPACK
