"""The /v2 routes: the Open Inference Protocol, which clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with the extension binary_tensor_data. Errors are of the protocol's
own form here, {"error": "…"}, and a request that is wrong is a 400 whatever is wrong with it.
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import FromPath
from litestar.types import OperationIDCreator
from msgspec import Struct

from models.bundle.read import Bundle
from service.http.body.faults import shown
from service.http.errors import SHOWN_CHARACTERS, BadHeader, MalformedBody, UnknownModel, WrongMediaType
from service.http.negotiation import BINARY, JSON
from service.routes.oip.inputs import InferRequest, input_columns, read_request, read_rows
from service.routes.oip.outputs import OutputTensor, outputs_of, wanted_outputs, write_output
from service.routes.openapi.description import ERRORS, PARAMETERS, TAKES, TIMEOUT, TRIAL, Body, ErrorForm, Negotiated
from service.routes.openapi.refusals import (
    CODING_REFUSAL,
    INFERENCE_REFUSALS,
    NOT_LOADED,
    QUEUE_REFUSAL,
    TIMEOUT_REFUSAL,
    TRANSFER_REFUSALS,
    refusals,
)
from service.routes.predict import predict_and_record
from service.routes.request import AnyRequest, headers_of, not_ready, read_request_body, services_of, table_of
from service.routes.table import Table

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_EXTENSION = "binary_tensor_data"

E = TypeVar("E", bound=Exception)
Handler = Callable[[Request[Any, Any, Any], E], Response[bytes]]


class ProtocolError(Struct, frozen=True):
    """The protocol's form of an error."""

    error: str


class ServerMetadata(Struct, frozen=True):
    name: str
    version: str
    extensions: list[str]


class ServerLive(Struct, frozen=True):
    live: bool


class ServerReady(Struct, frozen=True):
    ready: bool


class ModelReady(Struct, frozen=True):
    name: str
    ready: bool


class TensorMetadata(Struct, frozen=True):
    """A size of -1 is any, 1 to 1024."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, frozen=True, kw_only=True):
    """The served model. Of its inputs the required fields must be there, or ``row`` in place of all."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InferResponse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``id`` is the request's."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


PROTOCOL = ErrorForm(ProtocolError, JSON, lambda problem: {"error": problem["detail"]})
TAGGED: dict[str, Any] = {"tags": ["open inference protocol"], "opt": {ERRORS: PROTOCOL}}
NAMED_REFUSALS = refusals(
    ("another model or version than the one served", UnknownModel('there is no model "x"; this service has y')),
    NOT_LOADED,
)
"""What every route may refuse that names the model."""

READY_OR_NOT: Any = ModelReady | ProtocolError
NOT_READY = Example(
    id="not_ready", summary="not loaded yet", value=msgspec.to_builtins(ProtocolError("the model is being loaded"))
)


def infer_body(table: Table) -> Body:
    """Two rows, one tensor for each field that is known of either."""
    rows, columns = (table.example, table.short_example), input_columns(table)
    inputs = [
        {"name": name, "shape": [2], "datatype": columns[name].datatype, "data": [row.get(name) for row in rows]}
        for name in table.example
    ]
    said = ("probability", "interval") if len(table.schema.classes) == 2 else ("probabilities", "intervals")
    outputs = [{"name": name} for name in ("outcome", *said)]
    return Body(InferRequest, {"inputs": inputs, "outputs": outputs}, media_types=(JSON,))


INFER_REFUSALS = refusals(
    (
        "not a request of the protocol, or not rows of the table",
        MalformedBody("the body is not JSON: Input data was truncated"),
    ),
    TIMEOUT_REFUSAL,
    *TRANSFER_REFUSALS,
    (
        "Content-Type is none that the protocol's clients send",
        WrongMediaType(f"Content-Type is text/plain; it must be {JSON}, {BINARY} or absent"),
    ),
    CODING_REFUSAL,
    QUEUE_REFUSAL,
    *INFERENCE_REFUSALS,
    beside=NAMED_REFUSALS,
)
JSON_LENGTH = ResponseHeader(
    name=HEADER_LENGTH, description="Where binary data begin, if outputs are asked for so.", documentation_only=True
)


def operation_id(name: str) -> OperationIDCreator:
    """An operation's id by its path, of those with a version another."""
    return lambda _, __, path: f"{name}OfVersion" if "versions" in path else name


def in_protocols_form(handle: Handler[E]) -> Handler[E]:
    """An exception handler → one whose responses under /v2 are of the protocol's form, and elsewhere as they were."""

    def handled(request: Request[Any, Any, Any], error: E) -> Response[bytes]:
        response = handle(request, error)
        path = str(request.scope.get("path", ""))
        if path != "/v2" and not path.startswith("/v2/"):
            return response
        detail = msgspec.json.decode(response.content)["detail"]
        return Response(
            msgspec.json.encode(ProtocolError(detail)), media_type=JSON, headers=response.headers,
            status_code=response.status_code,
        )  # fmt: skip

    return handled


@get(
    "/v2", operation_id="oipServer", summary="What answers", **TAGGED,
    responses={200: ResponseSpec(ServerMetadata, description="name, version and extensions")},
)  # fmt: skip
async def server() -> ServerMetadata:
    """The server's name and version, and the extensions of the protocol that it has."""
    try:
        number = version("evenkeel")
    except PackageNotFoundError:
        number = "source"
    return ServerMetadata("evenkeel", number, [BINARY_EXTENSION])


@get(
    "/v2/health/live", operation_id="oipLive", summary="Does the process answer?", **TAGGED,
    responses={200: ResponseSpec(ServerLive, description="it does")},
)  # fmt: skip
async def live() -> ServerLive:
    """The process runs and answers."""
    return ServerLive(True)


@get(
    "/v2/health/ready", operation_id="oipReady", summary="Is the model loaded?", **TAGGED,
    responses={
        200: ResponseSpec(ServerReady, description="send requests"),
        503: ResponseSpec(ServerReady, description="send none"),
    },
)  # fmt: skip
async def ready(request: AnyRequest) -> Response[ServerReady]:
    """The model is loaded and warm, and the process is not stopping."""
    ready = _is_ready(request)
    return Response(ServerReady(ready), status_code=200 if ready else 503)


@get(
    ["/v2/models/{name:str}/ready", "/v2/models/{name:str}/versions/{version:str}/ready"],
    operation_id=operation_id("oipModelReady"), summary="Can the named model be asked?", **TAGGED,
    responses={
        200: ResponseSpec(ModelReady, description="it can"), **NAMED_REFUSALS,
        503: ResponseSpec(
            READY_OR_NOT, description="not loaded yet, or stopping", media_type=JSON, examples=[NOT_READY]
        ),
    },
)  # fmt: skip
async def model_ready(
    request: AnyRequest, name: FromPath[str], version: FromPath[str | None] = None
) -> Response[ModelReady]:
    """The named model is loaded and warm, and the process is not stopping."""
    ready = _is_ready(request)
    return Response(ModelReady(_served(request, name, version).name, ready), status_code=200 if ready else 503)


@get(
    ["/v2/models/{name:str}", "/v2/models/{name:str}/versions/{version:str}"],
    operation_id=operation_id("oipModel"), summary="The named model's inputs and outputs", **TAGGED,
    responses={200: ResponseSpec(ModelMetadata, description="names, datatypes and shapes"), **NAMED_REFUSALS},
)  # fmt: skip
async def model(request: AnyRequest, name: FromPath[str], version: FromPath[str | None] = None) -> ModelMetadata:
    """The named model's inputs and outputs, each each a column."""
    bundle, table = _served(request, name, version), table_of(request)
    inputs, classes = input_columns(table).items(), len(table.schema.classes)
    outputs = outputs_of(classes, decided=table.schema.costs is not None)
    return ModelMetadata(
        name=bundle.name, versions=[bundle.version], platform="mlx_bert",
        inputs=[TensorMetadata(field, sent.datatype, [-1]) for field, sent in inputs],
        outputs=[
            TensorMetadata(output, sent.datatype, sent.shape(-1, classes)) for output, sent in outputs.items()
        ],
    )  # fmt: skip


@post(
    ["/v2/models/{name:str}/infer", "/v2/models/{name:str}/versions/{version:str}/infer"],
    status_code=200, operation_id=operation_id("oipInfer"), summary="Predict 1 to 1024 rows",
    tags=TAGGED["tags"], opt={ERRORS: PROTOCOL, TAKES: infer_body, PARAMETERS: [TIMEOUT, TRIAL]},
    response_headers=[JSON_LENGTH],
    responses={200: Negotiated(InferResponse, description="the outputs", other=BINARY), **INFER_REFUSALS},
)  # fmt: skip
async def infer(request: AnyRequest, name: FromPath[str], version: FromPath[str | None] = None) -> Response[bytes]:
    """1 to 1024 rows, as one tensor per field or as JSON objects in one tensor → one tensor per output.

    By the extension ``binary_tensor_data`` tensors may be sent and asked for as bytes behind the JSON, whose length is
    then given by the header ``Inference-Header-Content-Length``; such a body is not described here.
    """
    _served(request, name, version)
    _check_type(request)
    body = await read_request_body(request)
    query, binary = read_request(body, _header_length(request, len(body)))
    table = table_of(request)
    wanted = wanted_outputs(query, outputs_of(len(table.schema.classes), decided=table.schema.costs is not None))
    answer, predictions = await predict_and_record(request, read_rows(query, binary, table))
    written = [write_output(output, predictions, in_binary) for output, in_binary in wanted.items()]
    head = msgspec.json.encode(
        InferResponse(
            model_name=answer.bundle.name, model_version=answer.bundle.version, id=query.id,
            outputs=[tensor for tensor, _ in written],
        )
    )  # fmt: skip
    if not any(wanted.values()):
        return Response(head, media_type=JSON)
    content = b"".join([head, *(raw for _, raw in written)])
    return Response(content, media_type=BINARY, headers={HEADER_LENGTH: str(len(head))})


def _is_ready(request: AnyRequest) -> bool:
    batcher = services_of(request).batcher
    return batcher.ready and not batcher.draining


def _served(request: AnyRequest, name: str, version: str | None) -> Bundle:
    """The bundle, if it is the one named; raises NotReady, UnknownModel."""
    batcher = services_of(request).batcher
    if batcher.predictor is None:
        raise not_ready(batcher)
    bundle = batcher.predictor.bundle
    if name != bundle.name:
        raise UnknownModel(f"there is no model {shown(name)}; this service has {bundle.name}")
    if version not in (None, bundle.version):
        raise UnknownModel(f"there is no version {shown(version)} of {name}; this service has {bundle.version}")
    return bundle


def _check_type(request: AnyRequest) -> None:
    # The protocol's clients send none, or that of bytes, whatever they send.
    content_type = headers_of(request).get("content-type", "")
    if content_type.partition(";")[0].strip().lower() not in ("", JSON, BINARY):
        raise WrongMediaType(
            f"Content-Type is {content_type[:SHOWN_CHARACTERS]}; it must be {JSON}, {BINARY} or absent"
        )


def _header_length(request: AnyRequest, body_length: int) -> int | None:
    """Length of the JSON before binary data; None if all of the body is JSON."""
    length = headers_of(request).get(HEADER_LENGTH.lower())
    if length is None:
        return None
    if not (length.isascii() and length.isdigit() and len(length) < 20 and int(length) <= body_length):
        shown_length = length[:SHOWN_CHARACTERS]
        raise BadHeader(
            f"{HEADER_LENGTH} is {shown_length}; it must be a whole number, at most the body's {body_length}"
        )
    return int(length)
