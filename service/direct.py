"""Routes that are asked so often that they are spared Litestar's routing, which is a third of what a request costs
beside the model.

Their handlers are Litestar's, which describes them and answers whatever else comes to their paths.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from litestar import Litestar, Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Send

from service.http.access import Access

PLAIN_HOST = re.compile(rb"[A-Za-z0-9.:\[\]-]+")
"""Host headers that Litestar need not look at."""

Handle = Callable[[Any], Awaitable[Response[bytes]]]
ExceptionHandlers = Mapping[Any, Callable[[Any, Any], Response[bytes]]]


class DirectRoutes:
    """An ASGI application around ``litestar``: POSTs to the exact paths of ``handlers`` go to them directly, once
    ``access`` has admitted them. ``exception_handlers`` are Litestar's, by classes of exceptions."""

    def __init__(
        self, litestar: Litestar, handlers: Sequence[HTTPRouteHandler], access: Access,
        exception_handlers: ExceptionHandlers,
    ):  # fmt: skip
        self._litestar, self._access, self._exception_handlers = litestar, access, exception_handlers
        self._handlers: dict[str, Handle] = {path: handler.fn for handler in handlers for path in handler.paths}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        handle = self._handler(scope)
        if handle is None:
            await self._litestar(scope, receive, send)
            return
        scope["app"] = scope["litestar_app"] = self._litestar
        scope["path_template"], scope["path_params"] = scope["path"], {}
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        try:
            self._access.admit(scope)
            response = await handle(request)
        except Exception as error:
            handler = next(
                self._exception_handlers[kind] for kind in type(error).__mro__ if kind in self._exception_handlers
            )
            response = handler(request, error)
        body = response.content
        headers = {"content-type": response.media_type, "content-length": len(body), **response.headers}
        encoded = [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": response.status_code or 200, "headers": encoded})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _handler(self, scope: Any) -> Handle | None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
            return None
        host = next((value for name, value in scope["headers"] if name == b"host"), b"-")
        return self._handlers.get(scope["path"]) if PLAIN_HOST.fullmatch(host) else None
