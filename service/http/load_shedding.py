"""Refusals at the door: while a client's next row could not be answered in time, its requests are not even read.

What a refusal costs is missing to the model; the answer is the same as that of the queue.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from service.http.access import Access
from service.http.errors import QueueFull, ServiceError
from service.http.request_body import TIMEOUT_HEADER, deadline_seconds
from service.inference.batcher import Batcher

PATHS = frozenset({"/v1/predict", "/v1/predict/batch", "/v1/explain"})
"""Of routes whose every valid request has a row at least."""


class Door:
    """Who is refused before anything is read of a request but its head.

    A server reads the heads of a thousand requests at once, and only then do the first of them come to the queue. So
    those let in meanwhile are counted here (``coming``).
    """

    def __init__(self, batcher: Batcher, access: Access, timeout_seconds: float):
        self._batcher, self._access, self._timeout_seconds = batcher, access, timeout_seconds
        self._met, self._let_in = 0, Counter[str]()

    def guards(self, scope: Any, coming: bool) -> bool:
        """Whether a request may be refused here at all; ``coming`` if its task has not begun."""
        if scope["method"] != "POST" or scope["path"] not in PATHS:
            return False
        if coming:
            if self._met == 0:
                # Before the loop looks for more requests, those of now come to the queue.
                asyncio.get_running_loop().call_soon(self._have_come)
            self._met += 1
        return self._batcher.crowded(self._met if coming else 0)

    def refusal(self, scope: Any, asked: Mapping[str, str], coming: bool) -> QueueFull | None:
        """Why a guarded request is refused, if it is; ``asked`` are its headers. Who is not admitted is told so
        elsewhere."""
        try:
            client = self._access.client(scope)
            seconds = deadline_seconds(asked.get(TIMEOUT_HEADER.lower()), self._timeout_seconds)
        except ServiceError:
            return None
        refused = self._batcher.refusal(client, 1 + (self._let_in[client] if coming else 0), seconds)
        if coming and refused is None:
            self._let_in[client] += 1
        return refused

    def _have_come(self) -> None:
        self._met = 0
        self._let_in.clear()
