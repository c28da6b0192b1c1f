"""The page at ``/``: the files of service/static/page, with headers that let nothing else in."""

from pathlib import Path

from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from service.routes.static_file import StaticFile, static_file

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
}


def read_page(folder: Path = FOLDER) -> dict[str, StaticFile]:
    """Path below the folder → file, of all files of the page."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in TYPES]
    return {path.relative_to(folder).as_posix(): static_file(path.read_bytes(), TYPES[path.suffix]) for path in paths}


def page_router() -> Router:
    """The routes of the page; its files are read now."""
    files = read_page()

    def answer(name: str) -> Response[bytes]:
        if name not in files:
            raise NotFoundException(f"the page has no file of that name; it has {', '.join(files)}")
        return files[name].response(HEADERS)

    @get("/", include_in_schema=False)
    async def page() -> Response[bytes]:
        """The page."""
        return answer("index.html")

    @get("/page/{name:str}", include_in_schema=False)
    async def page_file(name: FromPath[str]) -> Response[bytes]:
        """A file of the page."""
        return answer(name)

    @get("/page/{section:str}/{name:str}", include_in_schema=False)
    async def section_file(section: FromPath[str], name: FromPath[str]) -> Response[bytes]:
        """A file of one of the page's sections."""
        return answer(f"{section}/{name}")

    return Router("/", route_handlers=[page, page_file, section_file])
