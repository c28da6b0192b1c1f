"""The page at ``/``: static files beside this module, read once, with headers that let nothing else in."""

import hashlib
from pathlib import Path

from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from msgspec import Struct

FOLDER = Path(__file__).parents[1] / "static" / "page"
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip
HEADERS = {
    # Scripts and styles from these files alone, requests to this service alone; no markup is made from text.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept by the browser and asked about each time: another version of the service is seen at once.
    "Cache-Control": "no-cache",
}


class PageFile(Struct, frozen=True):
    """A file as it is sent, and its entity tag."""

    content: bytes
    media_type: str
    tag: str


def read_page(folder: Path = FOLDER) -> dict[str, PageFile]:
    """File name → file, of all files of the page."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in TYPES:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[path.name] = PageFile(content, TYPES[path.suffix], tag)
    return found


def page_router() -> Router:
    """The routes of the page; its files are read now."""
    files = read_page()

    @get("/", include_in_schema=False)
    async def page() -> Response[bytes]:
        """The page."""
        return _send(files["index.html"])

    @get("/page/{name:str}", include_in_schema=False)
    async def page_file(name: FromPath[str]) -> Response[bytes]:
        """A file of the page."""
        if name not in files:
            raise NotFoundException(f"the page has no file of that name; it has {', '.join(files)}")
        return _send(files[name])

    return Router("/", route_handlers=[page, page_file])


def _send(file: PageFile) -> Response[bytes]:
    return Response(file.content, media_type=file.media_type, headers={**HEADERS, "ETag": file.tag})
