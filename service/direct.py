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
from service.http.errors import response_messages

PLAIN_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")
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
        for message in response_messages(response):
            await send(message)

    def _handler(self, scope: Any) -> Handle | None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
            return None
        host = scope["state"]["headers"].get("host", "-")
        return self._handlers.get(scope["path"]) if PLAIN_HOST.fullmatch(host) else None
