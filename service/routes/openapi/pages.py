"""/schema: the OpenAPI document as JSON and YAML, and a page that shows it, from service/static/swagger."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.routes import BaseRoute

from service.routes.openapi.document import document
from service.routes.request import AnyRequest, table_of
from service.routes.static_file import StaticFile, static_file
from service.routes.table import Table

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
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
}  # fmt: skip


def json_document(routes: Iterable[BaseRoute], table: Table) -> StaticFile:
    """The OpenAPI document."""
    return static_file(msgspec.json.encode(document(routes, table)), "application/json")


def yaml_document(routes: Iterable[BaseRoute], table: Table) -> StaticFile:
    """The same in YAML."""
    return static_file(msgspec.yaml.encode(document(routes, table)), "application/yaml")


DOCUMENTS = {"openapi.json": json_document, "openapi.yaml": yaml_document}


def schema_router(routes: Sequence[BaseRoute]) -> Router:
    """The routes of the document, which describes ``routes``; it is made when it is asked for, once for each bundle."""
    files = {name: static_file((FOLDER / name).read_bytes(), media_type) for name, media_type in FILES.items()}

    @lru_cache(2 * len(DOCUMENTS))
    def made(name: str, table: Table) -> StaticFile:
        return DOCUMENTS[name](routes, table)

    @get("/schema", include_in_schema=False)
    async def page() -> Response[bytes]:
        """The page with every operation."""
        return files[PAGE].response(HEADERS)

    @get("/schema/{name:str}", include_in_schema=False)
    async def file(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
        """The OpenAPI document, or a file of the page."""
        if name in DOCUMENTS:  # Up to a fifth of a second the first time.
            return (await asyncio.to_thread(made, name, table_of(request))).response(HEADERS)
        if name not in files:
            raise NotFoundException
        return files[name].response(HEADERS)

    return Router("/", route_handlers=[page, file])
