"""/schema: the OpenAPI document as JSON and YAML, and a page that shows it, from service/static/swagger."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec
from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.routes import BaseRoute

from service.routes.openapi.document import document
from service.routes.static_file import StaticFile, static_file

FOLDER = Path(__file__).parents[2] / "static" / "swagger"
PAGE, JSON_DOCUMENT, YAML_DOCUMENT = "index.html", "openapi.json", "openapi.yaml"
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


def documents(routes: Iterable[BaseRoute]) -> dict[str, StaticFile]:
    """What /schema/… serves, by name, but for YAML."""
    files = {name: static_file((FOLDER / name).read_bytes(), media_type) for name, media_type in FILES.items()}
    return files | {JSON_DOCUMENT: static_file(msgspec.json.encode(document(routes)), "application/json")}


def schema_router(routes: Iterable[BaseRoute]) -> Router:
    """The routes of the document, which describes ``routes``; it is made now, and as YAML when it is asked for."""
    files = documents(routes)

    def as_yaml() -> StaticFile:
        return static_file(msgspec.yaml.encode(msgspec.json.decode(files[JSON_DOCUMENT].content)), "application/yaml")

    @get("/schema", include_in_schema=False)
    async def page() -> Response[bytes]:
        """The page with every operation."""
        return files[PAGE].response(HEADERS)

    @get("/schema/{name:str}", include_in_schema=False)
    async def file(name: FromPath[str]) -> Response[bytes]:
        """The OpenAPI document, or a file of the page."""
        if name == YAML_DOCUMENT and name not in files:
            files[name] = await asyncio.to_thread(as_yaml)  # It takes a fifth of a second.
        if name not in files:
            raise NotFoundException
        return files[name].response(HEADERS)

    return Router("/", route_handlers=[page, file])
