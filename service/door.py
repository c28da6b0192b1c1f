"""Refusals at the door: while a client's next row could not be answered in time, its requests are not even read.

What a refusal costs is missing to the model. Here it costs about three fifths of one at the queue, and the answer is
the same.
"""

from collections.abc import Callable
from typing import Any

from litestar.datastructures import Headers

from service.access import Access
from service.batcher import Batcher
from service.errors import QueueFull, ServiceError
from service.incoming import TIMEOUT_HEADER, deadline_seconds

PATHS = frozenset({"/v1/predict", "/v1/predict/batch", "/v1/explain"})
"""Of routes whose every valid request has a row at least."""

Door = Callable[[Any], QueueFull | None]


def door(batcher: Batcher, access: Access, timeout_seconds: float) -> Door:
    """Scope of a request → why it is refused at the door, if it is. Whoever is not admitted is told so elsewhere."""

    def refuses(scope: Any) -> QueueFull | None:
        if not batcher.crowded or scope["method"] != "POST" or scope["path"] not in PATHS:
            return None
        try:
            client = access.client(scope)
            seconds = deadline_seconds(Headers.from_scope(scope).get(TIMEOUT_HEADER), timeout_seconds)
        except ServiceError:
            return None
        return batcher.refusal(client, 1, seconds)

    return refuses
