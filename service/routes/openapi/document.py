"""The OpenAPI 3.1 document, made from the route handlers, the table and msgspec's schemas of what they read and answer.

Litestar's own document loses the constraints of list items and that unknown fields are refused, and knows no body that
a handler reads by itself. A handler says what it is in Litestar's words, ``operation_id``, ``summary``, ``tags``,
``responses``, ``response_headers``; its docstring is the description; ``opt={TAKES: Body(…)}`` is what it reads.
"""

import inspect
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import msgspec
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import ParameterKwarg
from litestar.routes import BaseRoute, HTTPRoute

from service.http.access import Need, closed_without_keys, need_of
from service.http.body.decoding import decode_body
from service.http.errors import (
    PROBLEM,
    InvalidBody,
    Misdirected,
    NotAuthenticated,
    NotPermitted,
    Problem,
    RateLimited,
    ServiceError,
)
from service.http.negotiation import BINARY, JSON, MESSAGEPACK
from service.routes.openapi.classes import COMPONENTS, OF_CLASSES, about, with_classes
from service.routes.openapi.description import (
    ANSWERS,
    ERRORS,
    LINKS,
    PARAMETERS,
    TAKES,
    Body,
    BodyOf,
    ErrorForm,
    Negotiated,
)
from service.routes.openapi.json_schema import prose, repaired
from service.routes.openapi.refusals import problem_of, refusals
from service.routes.table import Table

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
"""Says the version, and is beside the code wherever that runs."""

WIRE = (
    "\n\nBodies and answers are JSON, or MessagePack by `Content-Type` and `Accept`. Types are not coerced, an integer "
    "is written without a decimal point, unknown fields and repeated keys are refused. Bodies may be compressed by "
    "gzip or zstd, and answers are for whoever accepts it. Errors are problem details (RFC 9457) that name every "
    "fault of a body."
)

INFO = {
    "summary": "Calibrated probabilities for the rows of a table, with what is known of how far to trust them.",
    "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
}

TAGS = {
    "predictions": "From rows to calibrated probabilities.",
    "outcomes": "What became of rows that were predicted.",
    "model": "What is served.",
    "drift": "Whether the probabilities are still true.",
    "operations": "For balancers, orchestrators and Prometheus.",
    "open inference protocol": "For clients of Triton and KServe; errors are of the protocol's own form.",
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
CHALLENGE = {"WWW-Authenticate": {"description": "How a key is sent.", "schema": {"type": "string"}}}

KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, where the service was started with keys."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same keys, sent otherwise."},
}
"""The ways to send a key."""

SEQUENCES = ("application/x-ndjson",)
"""Media types of one JSON value a line. A schema of theirs is of all values as an array, as OpenAPI 3.2 has it."""


def project_version() -> str:
    """The version of the project, of this document too."""
    return str(tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"])


def document(routes: Iterable[BaseRoute], table: Table) -> dict[str, Any]:
    """The OpenAPI document of the routes that are not left out of it (``include_in_schema``), for a table's rows."""
    handlers = [
        (route, handler)
        for route in routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.include_in_schema is not False and handler.http_methods != {"OPTIONS"}
    ]
    forms = list(dict.fromkeys([*(form for _, handler in handlers for form in _forms(handler, table)), *OF_CLASSES]))
    schemas, components = msgspec.json.schema_components(forms, ref_template=COMPONENTS + "{name}")
    schema_of = dict(zip(forms, map(repaired, schemas), strict=True))
    order = list(TAGS)
    paths: dict[str, Any] = {}
    for route, handler in sorted(
        handlers, key=lambda pair: (order.index((pair[1].tags or order)[0]), pair[0].path_format)
    ):
        for method in sorted(handler.http_methods - {"HEAD", "OPTIONS"}):
            paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, handler, table, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Evenkeel",
            "version": project_version(),
            **INFO,
            "description": about(table) + WIRE,
        },
        "servers": [{"url": "/", "description": "the service that this document comes from"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": with_classes(
                {name: repaired(each) for name, each in sorted(components.items())}, schema_of, table
            ),
            "securitySchemes": KEY_SCHEMES,
        },
    }


def _body(handler: HTTPRouteHandler, table: Table) -> Body | None:
    body: Body | BodyOf | None = handler.opt.get(TAKES)
    return body(table) if callable(body) else body


def _forms(handler: HTTPRouteHandler, table: Table) -> Iterator[Any]:
    """The types whose schemas an operation needs; Problem, as every operation may be refused."""
    yield Problem
    if (body := _body(handler, table)) is not None:
        yield body.form
    if (errors := handler.opt.get(ERRORS)) is not None:
        yield errors.form
    for spec in (handler.responses or {}).values():
        if spec.data_container is not None:
            yield from _members(spec.data_container)


def _members(form: Any) -> tuple[Any, ...]:
    """A union's forms, of which msgspec makes no common schema, as it could not tell them apart."""
    return get_args(form) if isinstance(form, UnionType) else (form,)


def _schema(form: Any, media_type: str, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    schemas = [schema_of[member] for member in _members(form)]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"type": "array", "items": schema} if media_type in SEQUENCES else schema


def _operation(
    route: HTTPRoute, handler: HTTPRouteHandler, table: Table, schema_of: Mapping[Any, Any]
) -> dict[str, Any]:
    body = _body(handler, table)
    parameters = list(_parameters(route, handler, table))
    need = need_of(route.path_format)
    return {
        "operationId": _operation_id(route, handler),
        "summary": handler.summary,
        "description": prose(handler.description or inspect.getdoc(handler.fn) or "") + _need_in_words(need),
        "tags": list(handler.tags or ()),
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": _request_body(body, schema_of)} if body else {}),
        "responses": {
            str(status): _response(status, spec, handler, body, table, schema_of)
            for status, spec in _answers(need, route.path_format, handler).items()
        },
        "security": _security(need, route.path_format),
        "x-scope": need,
    }


def _operation_id(route: HTTPRoute, handler: HTTPRouteHandler) -> str | None:
    named = handler.operation_id
    return named(handler, next(iter(handler.http_methods)), route.path_components) if callable(named) else named


def _answers(need: Need | None, path: str, handler: HTTPRouteHandler) -> dict[int, ResponseSpec]:
    """The handler's responses and those before it, in the form of the handler's errors."""
    errors: ErrorForm | None = handler.opt.get(ERRORS)
    specs = refusals(*access_refusals(need, path), beside=handler.responses or {})
    return specs if errors is None else {status: _in_form(spec, errors) for status, spec in specs.items()}


def _in_form(spec: ResponseSpec, errors: ErrorForm) -> ResponseSpec:
    if spec.data_container is not Problem:
        return spec
    examples = [replace(example, value=errors.of_problem(example.value)) for example in spec.examples or ()]
    return replace(spec, data_container=errors.form, media_type=errors.media_type, examples=examples)


def access_refusals(need: Need | None, path: str) -> Iterator[tuple[str, ServiceError]]:
    """When service/http/access.py refuses what is asked of a route, and an error that it then raises."""
    if need != "open":
        yield "there are keys, and none was sent, or one that is unknown or has expired", NotAuthenticated()
        yield "the key's rate is used up", RateLimited(1)
    if need not in ("open", "any"):
        closed = ", or the service was started without keys" if closed_without_keys(path) else ""
        yield f"the key does not have the scope {need}{closed}", NotPermitted(f"the key does not have the scope {need}")
    yield "a host name that is not among allowed_hosts", Misdirected("other.example", ["evenkeel.example"])


def _need_in_words(need: Need | None) -> str:
    if need == "open":
        return "\n\nNeeds no key."
    trial = ", or `trial` for predictions that are no traffic" if need == "predict" else ""
    return f"\n\nWhere there are keys, needs {'any' if need == 'any' else f'one with the scope `{need}`'}{trial}."


def _security(need: Need | None, path: str) -> list[dict[str, list[str]]]:
    if need == "open":
        return []
    # A service may be without keys, and then /admin is closed.
    with_key: list[dict[str, list[str]]] = [{name: []} for name in KEY_SCHEMES]
    return with_key if closed_without_keys(path) else [*with_key, {}]


def _parameters(route: HTTPRoute, handler: HTTPRouteHandler, table: Table) -> Iterator[dict[str, Any]]:
    """Those of the path, those among the handler's arguments, and those that it reads by itself."""
    for name in route.path_parameters:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for field in handler.parsed_fn_signature.parameters.values():
        definition = field.kwarg_definition
        # One of the path that is not in this route is in another of the handler's.
        if isinstance(definition, ParameterKwarg) and definition.param_type.value != "path":
            schema = {**msgspec.json.schema(field.annotation), **(definition.schema_extra or {})}
            default = {"default": field.default} if field.has_default else {}
            yield {
                "name": definition.name or field.name, "in": str(definition.param_type.value),
                "required": field.is_required, "description": definition.description or "",
                "schema": repaired(schema | default),
            }  # fmt: skip
    for parameter in handler.opt.get(PARAMETERS, ()):
        described = parameter(table) if callable(parameter) else parameter
        if described is not None:
            yield described


def _request_body(body: Body, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    content = {
        media_type: {
            "schema": _schema(body.form, media_type, schema_of),
            **({} if media_type == MESSAGEPACK else {"example": body.example}),
        }
        for media_type in body.media_types
    }
    return {"required": True, "content": content}


def _response(
    status: int,
    spec: ResponseSpec,
    handler: HTTPRouteHandler,
    body: Body | None,
    table: Table,
    schema_of: Mapping[Any, Any],
) -> dict[str, Any]:
    answers = handler.opt[ANSWERS](table) if status < 300 and ANSWERS in handler.opt else ()
    examples = {each.id: {"summary": each.summary, "value": each.value} for each in [*(spec.examples or ()), *answers]}
    if status == 422 and body is not None and spec.media_type == PROBLEM:
        examples["invalid_body"] = {
            "summary": f"the body was {msgspec.json.encode(body.refused).decode()}", "value": _refusal(body),
        }  # fmt: skip
    media_type = spec.media_type.value if isinstance(spec.media_type, MediaType) else spec.media_type
    links = handler.opt[LINKS](table) if status < 300 and LINKS in handler.opt else None
    described = {"description": spec.description, "headers": _headers(status, spec, handler)}
    if spec.data_container is not None:
        schema = _schema(spec.data_container, media_type, schema_of)
        content: dict[str, Any] = {media_type: {"schema": schema, **({"examples": examples} if examples else {})}}
        if isinstance(spec, Negotiated):
            content[spec.other] = {} if spec.other == BINARY else {"schema": schema}
        described["content"] = content
    return described | ({"links": links} if links else {})


def _headers(status: int, spec: ResponseSpec, handler: HTTPRouteHandler) -> dict[str, Any]:
    own = {
        header.name: {"description": header.description, "schema": {"type": "string"}}
        for header in handler.response_headers or ()
        if status < 400
    }
    refused = spec.examples and status >= 400
    retry = RETRY_AFTER if status in (429, 503) and refused else {}
    return own | retry | (CHALLENGE if status == 401 else {}) | EVERY_RESPONSE


def _refusal(body: Body) -> dict[str, Any]:
    """The problem that a route answers to the body that it refuses."""
    try:
        decode_body(msgspec.json.encode(body.refused), JSON, body.form)
    except InvalidBody as error:
        return problem_of(error)
    raise ValueError(f"{body.refused!r} is not refused")
