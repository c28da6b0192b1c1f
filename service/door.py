"""Refusals at the door: while a client's next row could not be answered in time, its requests are not even read.

What a refusal costs is missing to the model; the answer is the same as that of the queue.
"""

from collections.abc import Mapping
from typing import Any

from service.access import Access
from service.batcher import Batcher
from service.errors import QueueFull, ServiceError
from service.incoming import TIMEOUT_HEADER, deadline_seconds

PATHS = frozenset({"/v1/predict", "/v1/predict/batch", "/v1/explain"})
"""Of routes whose every valid request has a row at least."""


class Door:
    """Who is refused before anything is read of a request but its head."""

    def __init__(self, batcher: Batcher, access: Access, timeout_seconds: float):
        self._batcher, self._access, self._timeout_seconds = batcher, access, timeout_seconds

    def guards(self, scope: Any) -> bool:
        """Whether a request may be refused here at all."""
        return self._batcher.crowded and scope["method"] == "POST" and scope["path"] in PATHS

    def refusal(self, scope: Any, asked: Mapping[str, str]) -> QueueFull | None:
        """Why a guarded request is refused, if it is; ``asked`` are its headers. Who is not admitted is told so
        elsewhere."""
        try:
            client = self._access.client(scope)
            seconds = deadline_seconds(asked.get(TIMEOUT_HEADER.lower()), self._timeout_seconds)
        except ServiceError:
            return None
        return self._batcher.refusal(client, 1, seconds)
