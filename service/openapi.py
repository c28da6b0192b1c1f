"""The OpenAPI 3.1 document, made from the route handlers and from msgspec's schemas of what they read and answer.

Litestar's own document loses the constraints of list items and that unknown fields are refused, and knows no body that
a handler reads by itself. A handler says what it is in Litestar's words, ``operation_id``, ``summary``, ``tags``,
``responses``, ``response_headers``; its docstring is the description; ``opt={TAKES: Body(…)}`` is what it reads.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, NamedTuple, get_args

import msgspec
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import ParameterKwarg, PathParameter
from litestar.routes import BaseRoute, HTTPRoute
from msgspec import Struct

from models.passenger import MEANINGS
from service.access import need_of
from service.bodies import decode_body
from service.errors import (
    PROBLEM,
    InvalidBody,
    Misdirected,
    NotAuthenticated,
    NotPermitted,
    Problem,
    ProtocolError,
    RateLimited,
    ServiceError,
    service_problem,
)
from service.negotiation import JSON, MESSAGEPACK

VERSION = "0.1.0"
TAKES, PARAMETERS, LINKS = "takes", "parameters", "links"
"""Keys of a handler's ``opt``: the `Body` that it reads, parameters that are not its arguments, links by name."""

PARAMETER = re.compile(r"{(\w+)")
REFERENCE = "#/components/schemas/{name}"

INFO = {
    "title": "Evenkeel",
    "version": VERSION,
    "summary": "Calibrated probabilities of survival, with what is known of how far to trust them.",
    "description": (
        "Bodies and answers are JSON, or MessagePack by `Content-Type` and `Accept`. Types are not coerced, an integer "
        "is written without a decimal point, unknown fields and repeated keys are refused. Bodies may be compressed by "
        "gzip or zstd, and answers are for whoever accepts it. Errors are problem details (RFC 9457) that name every "
        "fault of a body."
    ),
    "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
}

TAGS = {
    "predictions": "From passengers to calibrated probabilities.",
    "outcomes": "What became of passengers that were predicted.",
    "model": "What is served.",
    "drift": "Whether the probabilities are still true.",
    "inference protocol": "The predictions in the Open Inference Protocol, version 2, with its own form of errors.",
    "operations": "For balancers, orchestrators and Prometheus.",
}
"""Tags in the order of the document, and what each holds."""

EVERY_RESPONSE = {
    "X-Request-ID": {"description": "The request's own, or a new one.", "schema": {"type": "string"}},
    "traceparent": {
        "description": "W3C Trace Context: the request's trace, or a new one.",
        "schema": {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    },
}
RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds until another try makes sense.",
        "schema": {"type": "integer", "minimum": 0},
    }
}
AUTHENTICATE = {"WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}}}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, made by python -m service keys."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}
BINARY = "application/octet-stream"


class Body(Struct, frozen=True):
    """What a route reads: its form, a body that it takes, and one that it refuses with 422, if it does so.

    Of a stream the form is that of a line, and the example is text.
    """

    form: Any
    example: Any
    refused: Any = None
    media_types: tuple[str, ...] = (JSON, MESSAGEPACK)


@dataclass
class Negotiated(ResponseSpec):
    """A response in JSON, or in MessagePack for whoever asks for it."""


def refusals(
    *reasons: tuple[str, ServiceError], beside: Mapping[int, ResponseSpec] | None = None
) -> dict[int, ResponseSpec]:
    """Responses by status from when they are given and an error that leads there, which is the example.

    They go with those ``beside`` them, also of the same status. InvalidBody has no example of its own: each route's is
    that of its body.
    """
    specs = {status: replace(spec, examples=[*(spec.examples or ())]) for status, spec in (beside or {}).items()}
    for reason, error in reasons:
        problem = problem_of(error)
        spec = specs.setdefault(
            problem["status"], ResponseSpec(Problem, description="", media_type=PROBLEM, examples=[])
        )
        spec.description = f"{spec.description}; or {reason}" if spec.description else reason
        if not isinstance(error, InvalidBody) and spec.examples is not None:
            spec.examples.append(Example(id=_snake(type(error).__name__), summary=reason, value=problem))
    return dict(sorted(specs.items()))


def problem_of(error: ServiceError) -> dict[str, Any]:
    """The body of the response to an error, as the service makes it."""
    request: Any = None  # It has no part in it.
    problem: dict[str, Any] = msgspec.json.decode(service_problem(request, error).content)
    return problem


def document(routes: Iterable[BaseRoute], keyed: bool = False) -> dict[str, Any]:
    """The OpenAPI document of the routes that are not left out of it (``include_in_schema``), with keys or without."""
    operations = [
        Operation(
            route.path_format, list(route.path_parameters), handler, _responses(route.path_format, handler, keyed)
        )
        for route in routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.include_in_schema is not False and handler.http_methods != {"OPTIONS"}
    ]
    forms = list(dict.fromkeys(form for one in operations for form in one.forms()))
    schemas, components = msgspec.json.schema_components(forms, ref_template=REFERENCE)
    schema_of = dict(zip(forms, (_repaired(one) for one in schemas), strict=True))
    order = list(TAGS)
    paths: dict[str, Any] = {}
    for one in sorted(operations, key=lambda one: (order.index((one.handler.tags or order)[0]), one.path)):
        for method in sorted(one.handler.http_methods - {"HEAD", "OPTIONS"}):
            paths.setdefault(one.path, {})[method.lower()] = _operation(one, schema_of, keyed)
    security = {"securitySchemes": SECURITY} if keyed else {}
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": "/", "description": "the service that this document comes from"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _described({name: _repaired(one) for name, one in sorted(components.items())}), **security,
        },
    }  # fmt: skip


class Operation(NamedTuple):
    """A handler at one of its paths."""

    path: str
    path_parameters: list[str]
    handler: HTTPRouteHandler
    responses: dict[int, ResponseSpec]

    @property
    def body(self) -> Body | None:
        """What it reads."""
        body: Body | None = self.handler.opt.get(TAKES)
        return body

    @property
    def id(self) -> str | None:
        """That of the handler, with the parameters that its shortest path does not have."""
        shortest = min((PARAMETER.findall(path) for path in self.handler.paths), key=len)
        added = [name for name in self.path_parameters if name not in shortest]
        return self.handler.operation_id and "With".join([self.handler.operation_id, *(name.title() for name in added)])

    def forms(self) -> Iterator[Any]:
        """The types whose schemas it needs."""
        for form in (self.body and self.body.form, *(spec.data_container for spec in self.responses.values())):
            yield from _members(form) if form is not None else ()


def _members(form: Any) -> tuple[Any, ...]:
    """The Structs of a union, which msgspec takes none of if they have no tags; else the form itself."""
    return get_args(form) if isinstance(form, UnionType) else (form,)


def _responses(path: str, handler: HTTPRouteHandler, keyed: bool) -> dict[int, ResponseSpec]:
    """What a route answers, refusals of access among it, and under /v2 errors in that protocol's form."""
    specs = refusals(*_admission(path, keyed), beside=handler.responses)
    if not path.startswith("/v2"):
        return specs
    return {status: _in_protocols_form(spec) if spec.media_type == PROBLEM else spec for status, spec in specs.items()}


def _admission(path: str, keyed: bool) -> Iterator[tuple[str, ServiceError]]:
    """What `service.access` refuses there."""
    yield "Host is no name that this service answers to", Misdirected("example.org", ["127.0.0.1", "::1", "localhost"])
    need = need_of(path)
    if keyed and need != "open":
        yield "no key, or none that is known and valid", NotAuthenticated()
        yield "the key's rate is used up", RateLimited(2)
        if need != "any":
            yield "the key does not open this route", NotPermitted(f"the key does not have the scope {need}")
    elif need == "admin" and path.startswith("/admin/"):
        yield (
            "closed to a service without keys",
            NotPermitted("this needs a key with the scope admin, and the service was started without keys"),
        )


def _in_protocols_form(spec: ResponseSpec) -> ResponseSpec:
    examples = [replace(one, value={"error": one.value["detail"]}) for one in spec.examples or () if one.value]
    return replace(spec, data_container=ProtocolError, media_type=JSON, examples=examples)


def _operation(one: Operation, schema_of: Mapping[Any, Any], keyed: bool) -> dict[str, Any]:
    handler, parameters = one.handler, list(_parameters(one))
    locked = keyed and need_of(one.path) != "open"
    return {
        "operationId": one.id,
        "summary": handler.summary,
        "description": _prose(handler.description or inspect.getdoc(handler.fn) or ""),
        "tags": list(handler.tags or ()),
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": _request_body(one.body, schema_of)} if one.body else {}),
        "responses": {
            str(status): _response(status, spec, one, schema_of) for status, spec in sorted(one.responses.items())
        },
        **({"security": [{name: []} for name in SECURITY]} if locked else {}),
    }


def _parameters(one: Operation) -> Iterator[dict[str, Any]]:
    """Those of the path, those among the handler's arguments, and those that it reads by itself."""
    told = one.handler.opt.get(PARAMETERS, ())
    of_path = {parameter["name"]: parameter for parameter in told if parameter["in"] == "path"}
    for name in one.path_parameters:
        yield of_path.get(name, {"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    for field in one.handler.parsed_fn_signature.parameters.values():
        kind = field.kwarg_definition
        if isinstance(kind, ParameterKwarg) and not isinstance(kind, PathParameter):
            schema = {**msgspec.json.schema(field.annotation), **(kind.schema_extra or {})}
            default = {"default": field.default} if field.has_default else {}
            yield {
                "name": kind.name or field.name, "in": str(kind.param_type.value), "required": field.is_required,
                "description": kind.description or "", "schema": _repaired(schema | default),
            }  # fmt: skip
    yield from (parameter for parameter in told if parameter["in"] != "path")


def _request_body(body: Body, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media_type in body.media_types:
        if media_type == BINARY:
            content[media_type] = {"schema": {"type": "string", "format": "binary"}}
        else:
            example = {} if media_type == MESSAGEPACK else {"example": body.example}
            content[media_type] = {"schema": schema_of[body.form], **example}
    return {"required": True, "content": content}


def _response(status: int, spec: ResponseSpec, one: Operation, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    examples = {example.id: {"summary": example.summary, "value": example.value} for example in spec.examples or ()}
    body, links = one.body, one.handler.opt.get(LINKS)
    if status == 422 and body is not None and body.refused is not None:
        examples["invalid_body"] = {
            "summary": f"the body was {msgspec.json.encode(body.refused).decode()}", "value": _refusal(body),
        }  # fmt: skip
    described = {"description": spec.description, "headers": _headers(status, spec, one.handler)}
    if spec.data_container is not None:
        schemas = [schema_of[form] for form in _members(spec.data_container)]
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        media_type = spec.media_type.value if isinstance(spec.media_type, MediaType) else spec.media_type
        content = {media_type: {"schema": schema, "examples": examples} if examples else {"schema": schema}}
        packed = [MESSAGEPACK] if isinstance(spec, Negotiated) else []
        described["content"] = content | {name: {"schema": schema} for name in packed}
    return described | ({"links": links} if links and status < 300 else {})


def _headers(status: int, spec: ResponseSpec, handler: HTTPRouteHandler) -> dict[str, Any]:
    own = {
        header.name: {"description": header.description, "schema": {"type": "string"}}
        for header in handler.response_headers or ()
        if status < 400
    }
    error = spec.data_container in (Problem, ProtocolError)
    retry = RETRY_AFTER if status in (429, 503) and error else {}
    return own | retry | (AUTHENTICATE if status == 401 else {}) | EVERY_RESPONSE


def _refusal(body: Body) -> dict[str, Any]:
    """The problem that a route answers to the body that it refuses."""
    try:
        decode_body(msgspec.json.encode(body.refused), JSON, body.form)
    except InvalidBody as error:
        return problem_of(error)
    raise ValueError(f"{body.refused!r} is not refused")


def _repaired(schema: Any) -> Any:
    """msgspec's schema, the same but for what readers of it stumble over.

    Docstrings become Markdown, an enumeration names its type, and a tuple of one type is an array of that length:
    makers of clients do not know ``prefixItems`` with ``"items": false``.
    """
    if isinstance(schema, list):
        return [_repaired(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _repaired(value) for key, value in schema.items()}
    if isinstance(found.get("description"), str):
        found["description"] = _prose(found["description"])
    if found.get("items") is False and found["prefixItems"].count(found["prefixItems"][0]) == found["maxItems"]:
        found["items"] = found.pop("prefixItems")[0]
    if isinstance(found.get("enum"), list) and "type" not in found:
        kinds = sorted({_kind(one) for one in found["enum"]})
        found = {"type": kinds[0] if len(kinds) == 1 else kinds, **found}
    return found


def _kind(value: Any) -> str:
    return "null" if value is None else "string" if isinstance(value, str) else "integer"


def _described(components: dict[str, Any]) -> dict[str, Any]:
    """The components with what the fields of a passenger mean."""
    for name, meaning in MEANINGS.items():
        if "Passenger" in components:
            components["Passenger"]["properties"][name]["description"] = meaning
    return components


def _prose(text: str) -> str:
    """A docstring as Markdown."""
    return inspect.cleandoc(text).replace("``", "`")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
