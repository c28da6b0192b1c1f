"""The /v2 routes: the Open Inference Protocol, which clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with the extension binary_tensor_data. Errors are of the protocol's
own form here, {"error": "…"}, and a request that is wrong is a 400 whatever is wrong with it.
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from msgspec import Struct

from models.bundle import Bundle
from service.answering import AnyRequest, answered, batcher_of, not_ready
from service.bodies import SHOWN_CHARACTERS, shown
from service.errors import BadHeader, UnknownModel, WrongMediaType
from service.incoming import read_body
from service.negotiation import JSON
from service.oip_inputs import BYTES, FIELDS, WHOLE, read_passengers, read_request
from service.oip_outputs import OUTPUTS, OutputTensor, wanted_outputs, write_output

BINARY = "application/octet-stream"
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
    """The served model. Of its inputs only pclass and sex must be there, or ``passenger`` in place of all."""

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


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """The protocol's errors, for OpenAPI."""
    return {status: ResponseSpec(ProtocolError, description="error", media_type=JSON) for status in statuses}


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


@get("/v2", responses={200: ResponseSpec(ServerMetadata)})
async def server() -> ServerMetadata:
    """What answers here."""
    try:
        number = version("evenkeel")
    except PackageNotFoundError:
        number = "source"
    return ServerMetadata("evenkeel", number, [BINARY_EXTENSION])


@get("/v2/health/live")
async def live() -> ServerLive:
    """The process runs and answers."""
    return ServerLive(True)


@get("/v2/health/ready", responses={200: ResponseSpec(ServerReady), 503: ResponseSpec(ServerReady)})
async def ready(request: AnyRequest) -> Response[ServerReady]:
    """The model is loaded and warm, and the process is not stopping."""
    found = _is_ready(request)
    return Response(ServerReady(found), status_code=200 if found else 503)


@get(
    ["/v2/models/{name:str}/ready", "/v2/models/{name:str}/versions/{version:str}/ready"],
    responses={200: ResponseSpec(ModelReady), **refusals(404, 503)},
)
async def model_ready(
    request: AnyRequest, name: FromPath[str], version: FromPath[str | None] = None
) -> Response[ModelReady]:
    """The named model can be asked."""
    found = _is_ready(request)
    return Response(ModelReady(_served(request, name, version).name, found), status_code=200 if found else 503)


@get(
    ["/v2/models/{name:str}", "/v2/models/{name:str}/versions/{version:str}"],
    responses={200: ResponseSpec(ModelMetadata), **refusals(404, 503)},
)
async def model(request: AnyRequest, name: FromPath[str], version: FromPath[str | None] = None) -> ModelMetadata:
    """The named model's inputs and outputs."""
    bundle = _served(request, name, version)
    inputs = [TensorMetadata(field, sent.datatype, [-1]) for field, sent in FIELDS.items()]
    return ModelMetadata(
        name=bundle.name, versions=[bundle.version], platform="mlx_bert",
        inputs=[*inputs, TensorMetadata(WHOLE, BYTES, [-1])],
        outputs=[TensorMetadata(output, sent.datatype, sent.shape(-1)) for output, sent in OUTPUTS.items()],
    )  # fmt: skip


@post(
    ["/v2/models/{name:str}/infer", "/v2/models/{name:str}/versions/{version:str}/infer"],
    status_code=200,
    responses={200: ResponseSpec(InferResponse), **refusals(400, 404, 411, 413, 415, 429, 503, 504)},
)
async def infer(request: AnyRequest, name: FromPath[str], version: FromPath[str | None] = None) -> Response[bytes]:
    """1 to 1024 passengers, as one tensor per field or as JSON objects in one tensor → one tensor per output."""
    _served(request, name, version)
    _check_type(request)
    settings = request.app.state.settings
    body = await read_body(request.headers, request.receive, settings.max_body_bytes, settings.read_seconds)
    asked, binary = read_request(body, _header_length(request, len(body)))
    wanted = wanted_outputs(asked)
    answer, answers = await answered(request, read_passengers(asked, binary))
    written = [write_output(output, answers, in_binary) for output, in_binary in wanted.items()]
    head = msgspec.json.encode(
        InferResponse(
            model_name=answer.bundle.name, model_version=answer.bundle.version, id=asked.id,
            outputs=[one for one, _ in written],
        )
    )  # fmt: skip
    if not any(wanted.values()):
        return Response(head, media_type=JSON)
    content = b"".join([head, *(raw for _, raw in written)])
    return Response(content, media_type=BINARY, headers={HEADER_LENGTH: str(len(head))})


def _is_ready(request: AnyRequest) -> bool:
    batcher = batcher_of(request)
    return batcher.ready and not batcher.draining


def _served(request: AnyRequest, name: str, version: str | None) -> Bundle:
    """The bundle, if it is the one named; raises NotReady, UnknownModel."""
    batcher = batcher_of(request)
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
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() not in ("", JSON, BINARY):
        raise WrongMediaType(
            f"Content-Type is {content_type[:SHOWN_CHARACTERS]}; it must be {JSON}, {BINARY} or absent"
        )


def _header_length(request: AnyRequest, body_length: int) -> int | None:
    """Length of the JSON before binary data; None if all of the body is JSON."""
    told = request.headers.get(HEADER_LENGTH)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) < 20 and int(told) <= body_length):
        raise BadHeader(
            f"{HEADER_LENGTH} is {told[:SHOWN_CHARACTERS]}; it must be a whole number, at most the body's {body_length}"
        )
    return int(told)
