"""/schema: the OpenAPI document as JSON and YAML, and a page that shows it, from service/static/swagger."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.routes import BaseRoute
from msgspec import Struct

from service.routes.openapi.document import document
from service.routes.prediction import AnyRequest

FOLDER = Path(__file__).parents[2] / "static" / "swagger"
PAGE = "index.html"
FILES = {
    PAGE: "text/html",
    "start.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
"""What is served of the folder, and as what."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI's style sheet holds its icons as data: addresses; it needs nothing else."""


class Document(Struct, frozen=True):
    """A file as it is served."""

    content: bytes
    media_type: str
    tag: str


def documents(routes: Iterable[BaseRoute]) -> dict[str, Document]:
    """What /schema/… serves, by name."""
    described = document(routes)
    held = {name: _document((FOLDER / name).read_bytes(), media_type) for name, media_type in FILES.items()}
    return held | {
        "openapi.json": _document(msgspec.json.encode(described), "application/json"),
        "openapi.yaml": _document(msgspec.yaml.encode(described), "application/yaml"),
    }


@get("/schema", include_in_schema=False)
async def page(request: AnyRequest) -> Response[bytes]:
    """The page with every operation."""
    return _respond(request, PAGE)


@get("/schema/{name:str}", include_in_schema=False)
async def file(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    """The OpenAPI document, or a file of the page."""
    return _respond(request, name)


def _respond(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    held: Document | None = request.app.state.documents.get(name)
    if held is None:
        raise NotFoundException
    headers = {
        "ETag": held.tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    }  # fmt: skip
    return Response(held.content, media_type=held.media_type, headers=headers)


def _document(content: bytes, media_type: str) -> Document:
    return Document(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
